//! The audit log: nothing is changed in it that is not noticed, and nothing that commits late is forgotten.

use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use infratrack_collector::audit::chain::{self, GENESIS};
use infratrack_collector::audit::verify::{Bounds, Finding, Report, verify, verify_end};
use infratrack_collector::audit::{Actor, Change, checkpoint, record};
use infratrack_collector::blob::Key;
use infratrack_collector::jobs::{self, run};
use infratrack_collector::store::audit_chain;
use serde_json::json;
use sqlx::{ConnectOptions, PgConnection, PgPool};

use crate::harness::{Collector, eventually};

/// A collector that has done what it does at its start.
async fn collector() -> Collector {
    let collector = Collector::start().await;
    collector.job_has_run("audit_checkpoint").await;
    collector
}

async fn add(connection: &mut PgConnection, collector: &Collector, subject: &str) {
    let change = Change {
        action: "test.change",
        subject_kind: "test",
        subject_id: subject.to_owned(),
        before: None,
        after: Some(json!({"name": subject, "tags": ["a", "b"]})),
    };
    let now = collector.clock.now();
    record(connection, &Actor::job("test"), change, now)
        .await
        .unwrap();
}

/// Adds rows and waits for their seals.
async fn sealed(collector: &Collector, count: usize) {
    let mut connection = collector.pool.acquire().await.unwrap();
    for number in 0..count {
        add(&mut connection, collector, &format!("subject {number}")).await;
    }
    all_sealed(collector).await;
}

async fn all_sealed(collector: &Collector) {
    eventually("every row to be sealed", || async {
        let mut connection = collector.pool.acquire().await.unwrap();
        let left = audit_chain::count_pending(&mut connection).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
}

/// Ten rows, a checkpoint, and ten more with one.
async fn signed_twice() -> (Collector, Vec<(i64, i64)>) {
    let collector = collector().await;
    for _ in 0..2 {
        sealed(&collector, 10).await;
        sign(&collector).await;
    }
    assert!(found(&collector).await.finding.is_none());
    let seals = sqlx::query_as("select seq, audit_id from audit_seals order by seq")
        .fetch_all(&collector.pool)
        .await
        .unwrap();
    (collector, seals)
}

async fn sign(collector: &Collector) {
    let app = &collector.server.app;
    // The leader may be at it just now.
    eventually("a checkpoint to be signed", || async {
        let done = run::once(app, "audit_checkpoint", jobs::audit::checkpoint).await;
        done.unwrap()
    })
    .await;
}

async fn found(collector: &Collector) -> Report {
    let app = &collector.server.app;
    verify(&app.pool, &app.blob, &app.ca.load()).await.unwrap()
}

/// What somebody can do who owns the database.
async fn tamper(pool: &PgPool, statements: &[String]) {
    let mut transaction = pool.begin().await.unwrap();
    for table in ["audit_log", "audit_seals", "audit_checkpoints"] {
        let sql = format!("alter table {table} disable trigger all");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    for sql in statements {
        let done = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert!(done.rows_affected() > 0, "{sql} changed something");
    }
    for table in ["audit_log", "audit_seals", "audit_checkpoints"] {
        let sql = format!("alter table {table} enable trigger all");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
}

/// Makes the chain anew over the rows in this order, as somebody would who read the code.
async fn forge_chain(pool: &PgPool, order: &[i64]) {
    let mut connection = pool.acquire().await.unwrap();
    let rows = audit_chain::list_rows(&mut connection, order)
        .await
        .unwrap();
    let rows: Vec<_> = order
        .iter()
        .map(|id| rows.iter().find(|row| row.audit_id == *id).unwrap().clone())
        .collect();
    let mut statements = vec!["delete from audit_seals".to_owned()];
    for seal in chain::seal(0, GENESIS, &rows) {
        let hash = hex::encode(&seal.hash);
        statements.push(format!(
            "insert into audit_seals values ({}, {}, '\\x{hash}')",
            seal.seq, seal.audit_id
        ));
    }
    tamper(pool, &statements).await;
}

fn ids(seals: &[(i64, i64)]) -> Vec<i64> {
    seals.iter().map(|(_, audit_id)| *audit_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_seals_and_checkpoints_are_added_and_never_changed() {
    let (collector, _) = signed_twice().await;
    for table in ["audit_log", "audit_seals", "audit_checkpoints"] {
        for sql in [
            format!("delete from {table}"),
            format!("truncate {table}"),
            match table {
                "audit_log" => "update audit_log set actor_name = 'eve'".to_owned(),
                _ => format!("update {table} set hash = ''"),
            },
        ] {
            for role in ["origin", "replica"] {
                let mut transaction = collector.pool.begin().await.unwrap();
                let set = format!("set local session_replication_role = {role}");
                sqlx::query(sqlx::AssertSqlSafe(set))
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                let refused = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                    .execute(&mut *transaction)
                    .await;
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains("only ever added"), "{sql}: {refused}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_edited_is_named() {
    let (collector, seals) = signed_twice().await;
    let (seq, audit_id) = seals[6];
    let sql = format!("update audit_log set actor_name = 'eve' where audit_id = {audit_id}");
    tamper(&collector.pool, &[sql]).await;
    let report = found(&collector).await;
    let Some(Finding::Changed {
        seq: s,
        audit_id: a,
    }) = report.finding
    else {
        panic!("{report:?}");
    };
    assert_eq!((s, a, report.rows), (seq, audit_id, seq - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_log_is_verified_from_a_checkpoint_on() {
    let (collector, seals) = signed_twice().await;
    let app = &collector.server.app;
    let end = async |rows: i64, time_ms: u64| {
        let bounds = Bounds {
            rows,
            time: std::time::Duration::from_millis(time_ms),
        };
        let found = verify_end(&app.pool, &app.blob, &app.ca.load(), bounds).await;
        found.unwrap()
    };
    let (edited, _) = seals[2];
    for (rows, after_seq, read) in [(100, 0, 20), (12, 10, 10), (5, 20, 0)] {
        let report = end(rows, 60_000).await;
        assert!(report.finding.is_none() && !report.is_cut, "{report:?}");
        assert_eq!((report.after_seq, report.rows), (after_seq, read));
    }
    assert!(end(100, 0).await.is_cut);
    let edit = |seq: usize| {
        let (_, audit_id) = seals[seq];
        format!("update audit_log set actor_name = 'eve' where audit_id = {audit_id}")
    };
    tamper(&collector.pool, &[edit(2)]).await;
    assert!(end(12, 60_000).await.finding.is_none());
    let finding = end(100, 60_000).await.finding;
    assert!(matches!(finding, Some(Finding::Changed { seq, .. }) if seq == edited));
    tamper(&collector.pool, &[edit(15)]).await;
    let finding = end(12, 60_000).await.finding;
    assert!(
        matches!(finding, Some(Finding::Changed { seq: 16, .. })),
        "{finding:?}"
    );
    // A chain that was made anew does not begin at what was signed.
    forge_chain(&collector.pool, &ids(&seals)).await;
    let finding = end(12, 60_000).await.finding;
    assert!(
        matches!(finding, Some(Finding::Rewritten { to_seq: 10, .. })),
        "{finding:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_swapped_are_named() {
    let (collector, seals) = signed_twice().await;
    let ((seq, first), (_, second)) = (seals[3], seals[5]);
    // Their seals change places, as if one had been done before the other.
    let swap = [
        format!("update audit_seals set audit_id = -1 where audit_id = {first}"),
        format!("update audit_seals set audit_id = {first} where audit_id = {second}"),
        format!("update audit_seals set audit_id = {second} where audit_id = -1"),
    ];
    tamper(&collector.pool, &swap).await;
    let report = found(&collector).await;
    let Some(Finding::Changed {
        seq: s,
        audit_id: a,
    }) = report.finding
    else {
        panic!("{report:?}");
    };
    assert_eq!((s, a), (seq, second));
    let mut order = ids(&seals);
    order.swap(3, 5);
    forge_chain(&collector.pool, &order).await;
    let report = found(&collector).await;
    let Some(Finding::Rewritten { from_seq, to_seq }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((from_seq, to_seq), (1, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_deleted_is_named_with_its_seal_or_without() {
    let (collector, seals) = signed_twice().await;
    let (seq, audit_id) = seals[12];
    let row = format!("delete from audit_log where audit_id = {audit_id}");
    tamper(&collector.pool, &[row]).await;
    let report = found(&collector).await;
    let Some(Finding::RowGone {
        seq: s,
        audit_id: a,
    }) = report.finding
    else {
        panic!("{report:?}");
    };
    assert_eq!((s, a), (seq, audit_id));
    let seal = format!("delete from audit_seals where seq = {seq}");
    tamper(&collector.pool, &[seal]).await;
    let report = found(&collector).await;
    let Some(Finding::SealsGone { from_seq, to_seq }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((from_seq, to_seq), (seq, seq));
    // A chain without it, whole in itself.
    let mut order = ids(&seals);
    order.remove(12);
    forge_chain(&collector.pool, &order).await;
    let report = found(&collector).await;
    let Some(Finding::TailGone { from_seq, to_seq }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((from_seq, to_seq), (20, 20));
    // With another row at its end, so that the count is right.
    sealed(&collector, 1).await;
    let report = found(&collector).await;
    let Some(Finding::Rewritten { from_seq, to_seq }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((from_seq, to_seq), (11, 20));
    let app = &collector.server.app;
    let signed = run::once(app, "audit_checkpoint", jobs::audit::checkpoint).await;
    assert!(signed.is_err(), "what was forged is not signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_was_deleted_is_named_with_its_seals_or_without() {
    let (collector, seals) = signed_twice().await;
    let (seq, audit_id) = seals[17];
    let rows = format!("delete from audit_log where audit_id >= {audit_id}");
    tamper(&collector.pool, &[rows]).await;
    let report = found(&collector).await;
    let Some(Finding::RowGone {
        seq: s,
        audit_id: a,
    }) = report.finding
    else {
        panic!("{report:?}");
    };
    assert_eq!((s, a), (seq, audit_id));
    let forgotten = [
        format!("delete from audit_seals where seq >= {seq}"),
        format!("delete from audit_checkpoints where seq >= {seq}"),
    ];
    tamper(&collector.pool, &forgotten).await;
    let report = found(&collector).await;
    let Some(Finding::TailGone { from_seq, to_seq }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((from_seq, to_seq), (seq, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_forged_is_named_without_a_seal_and_with_one() {
    let (collector, seals) = signed_twice().await;
    let forged: i64 = sqlx::query_scalar("select max(audit_id) + 1 from audit_log")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    let insert = format!(
        "insert into audit_log (audit_id, at, actor_kind, actor_name, action, subject_kind, subject_id)
         overriding system value values ({forged}, now(), 'user', 'ada', 'host.revoke', 'host', 'x')"
    );
    tamper(&collector.pool, &[insert]).await;
    let report = found(&collector).await;
    let Some(Finding::Unsealed { audit_id }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((audit_id, report.rows), (forged, 20));
    // Into the middle, with seals that fit.
    let mut order = ids(&seals);
    order.insert(14, forged);
    forge_chain(&collector.pool, &order).await;
    let report = found(&collector).await;
    let Some(Finding::Rewritten { from_seq, to_seq }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!((from_seq, to_seq), (11, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_deleted_before_it_was_sealed_is_named() {
    let (collector, _) = signed_twice().await;
    tamper(
        &collector.pool,
        &["insert into audit_pending values (999)".to_owned()],
    )
    .await;
    let report = found(&collector).await;
    let Some(Finding::PendingGone { audit_id }) = report.finding else {
        panic!("{report:?}");
    };
    assert_eq!(audit_id, 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_forged_is_named() {
    let (collector, _) = signed_twice().await;
    let app = &collector.server.app;
    let key = checkpoint::key(20).unwrap();
    let signed = app.blob.find_bytes(&key, 4096).await.unwrap().unwrap();
    let mut turned = signed.to_vec();
    let last = turned.len() - 1;
    turned[last] ^= 1;
    app.blob.delete(&key).await.unwrap();
    app.blob.put_bytes(&key, Bytes::from(turned)).await.unwrap();
    // One that is whole, under another's name.
    let other = Key::new(format!("{}/{:020}", checkpoint::PREFIX, 19)).unwrap();
    for (name, said) in [(&key, "signature"), (&other, "something else")] {
        if name == &other {
            app.blob.put_bytes(&other, signed.clone()).await.unwrap();
        }
        let report = found(&collector).await;
        let Some(Finding::Checkpoint { key, error }) = report.finding else {
            panic!("{report:?}");
        };
        assert_eq!(&key, name);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_transaction_commits_late_is_sealed_late_and_never_forgotten() {
    let collector = collector().await;
    let mut late = collector.pool.begin().await.unwrap();
    add(&mut late, &collector, "late").await;
    // Its id is larger, and it is there first.
    sealed(&collector, 1).await;
    late.commit().await.unwrap();
    all_sealed(&collector).await;
    let order: Vec<String> = sqlx::query_scalar(
        "select subject_id from audit_seals join audit_log using (audit_id) order by seq",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    assert_eq!(order, ["subject 0", "late"]);
    let ids: Vec<i64> = sqlx::query_scalar("select audit_id from audit_seals order by seq")
        .fetch_all(&collector.pool)
        .await
        .unwrap();
    assert!(ids[0] > ids[1], "{ids:?}");
    // And one that never commits leaves nothing behind.
    let mut never = collector.pool.begin().await.unwrap();
    add(&mut never, &collector, "never").await;
    never.rollback().await.unwrap();
    sealed(&collector, 1).await;
    let report = found(&collector).await;
    assert!(report.finding.is_none(), "{report:?}");
    assert_eq!((report.rows, report.pending), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_chain_is_signed_once_and_only_where_something_is_new() {
    let collector = collector().await;
    let app = &collector.server.app;
    let count = async || {
        let prefix = Key::new(checkpoint::PREFIX).unwrap();
        app.blob.list(&prefix, None, 100).await.unwrap().len()
    };
    sign(&collector).await;
    assert_eq!(count().await, 0, "there is nothing to sign");
    sealed(&collector, 3).await;
    sign(&collector).await;
    sign(&collector).await;
    assert_eq!(count().await, 1);
    // As after a crash between the object and its row.
    tamper(
        &collector.pool,
        &["delete from audit_checkpoints".to_owned()],
    )
    .await;
    sign(&collector).await;
    assert_eq!(count().await, 1);
    let report = found(&collector).await;
    let last = report.last_checkpoint.unwrap();
    assert_eq!((report.checkpoints, last.seq), (1, 3));
}

fn by_command(collector: &Collector) -> Output {
    let config = collector.data_dir.path().join("collector.toml");
    let text = format!("data_dir = '{}'", collector.data_dir.path().display());
    std::fs::write(&config, text).unwrap();
    let url = collector.database.as_ref().unwrap().connect_options();
    Command::new(env!("CARGO_BIN_EXE_infratrack-collector"))
        .arg("--config")
        .arg(&config)
        .args(["audit", "verify"])
        .env("DATABASE_URL", url.to_url_lossy().as_str())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_how_far_it_read_and_fails_where_the_log_is_not_whole() {
    let (collector, seals) = signed_twice().await;
    let whole = by_command(&collector);
    let said = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(whole.status.success(), "{whole:?}");
    for expected in [
        "rows as they were sealed: 20",
        "agree:   2, the last at row 20",
        "is whole",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let audit_id = seals[4].1;
    let sql = format!("update audit_log set action = 'x' where audit_id = {audit_id}");
    tamper(&collector.pool, &[sql]).await;
    let broken = by_command(&collector);
    assert_eq!(broken.status.code(), Some(1));
    let said = String::from_utf8_lossy(&broken.stderr);
    assert!(
        said.contains(&format!("row {audit_id} (seal 5) was changed")),
        "{said}"
    );
}
