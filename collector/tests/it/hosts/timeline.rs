//! `/api/v1/hosts/{id}/timeline` and the history of facts: every source in one order, filters, cursors, plans.

use http::{Method, StatusCode};
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use infratrack_collector::store::timeline::sources::ALL;
use infratrack_collector::store::timeline::{self, Ask};
use serde_json::{Value, json};
use sqlx::Executor;
use time::Duration;
use time::format_description::well_known::Rfc3339;

use super::{call, json as document, say};
use crate::harness::{Collector, Host};

/// Rows of each table, 12 or so of each, at 7 instants a minute apart before `$2`.
const PAST: [&str; 10] = [
    "insert into events (host_id, at, claimed_at, received_at, kind, body)
     select $1, at, at, at + interval '1 hour', (array['host_offline', 'host_online', 'agent_start', 'login',
         'identity_conflict', 'command_result', 'certificate_renewed'])[1 + n % 7], jsonb_build_object('n', n)
     from (select n, $2 - n % 7 * interval '1 minute' as at from generate_series(0, 20) n) as made",
    "insert into gaps (host_id, stream, class, from_seq, to_seq, reason, received_at)
     select $1, gen_random_uuid(), (array['critical', 'beat'])[1 + n % 2], n, n + 4, 'disk_full',
         $2 - n % 7 * interval '1 minute' from generate_series(1, 12) n",
    "insert into dead_letters (host_id, stream, class, seq, kind, claimed_at, received_at, error, body)
     select $1, gen_random_uuid(), 'critical', n, 'odd', $2, $2 - n % 7 * interval '1 minute', 'it is odd', ''
     from generate_series(1, 9) n",
    "insert into collector_downtimes (from_at, to_at)
     select at, at + interval '20 seconds' from (select $2 - n * interval '1 minute' as at
         from generate_series(0, 6) n, (select $1::uuid) as h) as made",
    "insert into fact_changes (host_id, changed_at, key, old_body, new_body)
     select $1, $2 - n % 7 * interval '1 minute', 'facts.' || n, case when n % 3 > 0 then '{\"v\": 1}'::jsonb end,
         case when n % 4 > 0 then '{\"v\": 2}'::jsonb end from generate_series(1, 12) n",
    "with made as (
         insert into changes (change_id, origin, title, started_at, ended_at, outcome, tools, created_at, updated_at)
         select gen_random_uuid(), 'manual', 'change ' || n, at, at, 'unknown', '{}', at, at
         from (select n, $2 - n % 7 * interval '1 minute' as at from generate_series(1, 12) n) as made
         returning change_id, started_at
     )
     insert into change_hosts (change_id, run_id, host_id, at, until, method, confidence)
     select change_id, null, $1, started_at, started_at, 'manual', 'certain' from made",
    "insert into commands (command_id, host_id, action, created_at, created_by, expires_at, outcome)
     select gen_random_uuid(), $1, 'renew', at, 'ada', at, case when n % 2 = 0 then 'done' end
     from (select n, $2 - n % 7 * interval '1 minute' as at from generate_series(1, 12) n) as made",
    "insert into tasks (task_id, host_id, kind, status, title, notes, at, created_at, created_by, updated_at, updated_by)
     select gen_random_uuid(), $1, 'patch', 'done', 'task ' || n, '', at, at, 'ada', at, 'ada'
     from (select n, $2 - n % 7 * interval '1 minute' as at from generate_series(1, 12) n) as made",
    "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, revoked_at, revoked_by,
                              revoked_reason)
     select decode(lpad(to_hex(n), 4, '0'), 'hex'), $1, '', '', at, $2 + interval '1 day',
         case when n % 2 = 0 then at + interval '1 minute' end, 'ada', 'lost'
     from (select n, $2 - (1 + n % 6) * interval '1 minute' as at from generate_series(1, 12) n) as made",
    "insert into audit_log (at, actor_kind, actor_name, action, subject_kind, subject_id, after)
     select $2 - n % 7 * interval '1 minute', 'user', 'ada', 'host.update', 'host', $1::uuid::text,
         '{\"owner\": \"bob\"}' from generate_series(1, 12) n",
];

/// How many items the statements above make, with the kinds that they are of.
const MADE: [(&str, usize); 11] = [
    ("state", 6),
    ("event", 6),
    ("gap", 21),
    ("downtime", 7),
    ("fact", 12),
    ("command", 15),
    ("task", 12),
    ("certificate", 21),
    ("conflict", 4),
    ("audit", 12),
    ("change", 12),
];

/// A host without an agent, which is not on the timeline itself but by its making, with a past.
async fn past(collector: &Collector) -> String {
    let host = super::made(collector, json!({"name": "with-a-past"})).await;
    let id = host["id"].as_str().unwrap().to_owned();
    let uuid: uuid::Uuid = id.parse().unwrap();
    sqlx::query("update hosts set created_at = created_at - interval '1 day' where host_id = $1")
        .bind(uuid)
        .execute(&collector.pool)
        .await
        .unwrap();
    let at = collector.clock.now() - Duration::MINUTE;
    for sql in PAST {
        let made = sqlx::query(sql)
            .bind(uuid)
            .bind(at)
            .execute(&collector.pool)
            .await;
        assert!(made.unwrap().rows_affected() > 0, "{sql}");
    }
    let hidden = super::made(collector, json!({"name": "hidden"})).await;
    let hidden: uuid::Uuid = hidden["id"].as_str().unwrap().parse().unwrap();
    sqlx::query(
        "insert into host_conflicts (conflict_id, host_id, hidden_host_id, detected_at, kept_instance, kept_boot_id,
             kept_address, kept_first_seen_at, clone_instance, clone_boot_id, clone_address, clone_first_seen_at,
             state, resolved_at, resolved_by)
         select i, $1, $3, $2, i, i, '10.0.0.1', $2, i, i, '10.0.0.2', $2, 'dropped', $2, 'ada'
         from gen_random_uuid() as i",
    )
    .bind(uuid)
    .bind(at)
    .bind(hidden)
    .execute(&collector.pool)
    .await
    .unwrap();
    id
}

fn timeline(id: &str, query: &str) -> String {
    format!("/api/v1/hosts/{id}/timeline?{query}")
}

fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().unwrap().clone()
}

/// All items, page by page, by the cursor of that name.
async fn walk(collector: &Collector, id: &str, query: &str, cursor: &str) -> Vec<Value> {
    let first = timeline(id, query);
    let (mut found, mut path) = (Vec::new(), first.clone());
    loop {
        let page = collector.get(&path).await;
        let mut here = items(&page);
        if cursor == "previous_cursor" {
            here.reverse();
        }
        found.extend(here);
        let Some(next) = page[cursor].as_str() else {
            return found;
        };
        path = format!("{first}&cursor={next}");
    }
}

fn key(item: &Value) -> (String, String) {
    let text = |field: &str| item[field].as_str().unwrap().to_owned();
    // Of one length, so that they sort as times do.
    let at = time::OffsetDateTime::parse(&text("at"), &Rfc3339).unwrap();
    (format!("{:030}", at.unix_timestamp_nanos()), text("id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_in_one_order_however_it_is_paged() {
    let collector = Collector::start().await;
    let id = past(&collector).await;
    let all = walk(&collector, &id, "limit=50", "next_cursor").await;
    // And that it was made.
    let expected: usize = MADE.iter().map(|(_, count)| count).sum();
    assert_eq!(all.len(), expected + 1);
    let mut sorted: Vec<_> = all.iter().map(key).collect();
    sorted.sort();
    sorted.dedup();
    sorted.reverse();
    assert_eq!(all.iter().map(key).collect::<Vec<_>>(), sorted);
    for limit in [1, 7, 13] {
        let query = format!("limit={limit}");
        assert_eq!(
            walk(&collector, &id, &query, "next_cursor").await,
            all,
            "{limit}"
        );
    }
    // And back from the oldest.
    let last = collector.get(&timeline(&id, "limit=9")).await;
    let mut page = last.clone();
    while let Some(cursor) = page["next_cursor"].as_str() {
        page = collector
            .get(&timeline(&id, &format!("limit=9&cursor={cursor}")))
            .await;
    }
    let mut back = items(&page);
    while let Some(cursor) = page["previous_cursor"].as_str() {
        page = collector
            .get(&timeline(&id, &format!("limit=9&cursor={cursor}")))
            .await;
        let mut longer = items(&page);
        longer.extend(back);
        back = longer;
    }
    assert_eq!(back, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_filtered_alone_and_together() {
    let collector = Collector::start().await;
    let id = past(&collector).await;
    let all = walk(&collector, &id, "limit=50", "next_cursor").await;
    let of = |kinds: &[&str]| {
        let is = |item: &&Value| kinds.contains(&item["kind"].as_str().unwrap());
        all.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    for (kind, count) in MADE {
        let found = walk(
            &collector,
            &id,
            &format!("kinds={kind}&limit=5"),
            "next_cursor",
        )
        .await;
        assert_eq!(found, of(&[kind]), "{kind}");
        // That the host was made is in the audit log.
        assert_eq!(found.len(), count + usize::from(kind == "audit"), "{kind}");
        for (other, _) in MADE.iter().filter(|(other, _)| *other != kind) {
            let query = format!("kinds={kind},{other}&limit=50");
            let found = walk(&collector, &id, &query, "next_cursor").await;
            assert_eq!(found, of(&[kind, other]), "{kind} and {other}");
        }
    }
    for refused in [
        "kinds=odd",
        "limit=51",
        "limit=0",
        "cursor=x",
        "before=yesterday",
        "kind=task",
    ] {
        let (status, problem) = collector
            .api(Method::GET, &timeline(&id, refused), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_jumped_to_and_the_day_before_an_item_can_be_read() {
    let collector = Collector::start().await;
    let id = past(&collector).await;
    let all = walk(&collector, &id, "limit=50", "next_cursor").await;
    let at = |item: &Value| item["at"].as_str().unwrap().to_owned();
    let middle = at(&all[all.len() / 2]);
    let middle_key = key(&all[all.len() / 2]).0;
    let (newer, older): (Vec<_>, Vec<_>) = all
        .iter()
        .cloned()
        .partition(|item| key(item).0 >= middle_key);
    let before = walk(
        &collector,
        &id,
        &format!("before={middle}&limit=9"),
        "next_cursor",
    )
    .await;
    assert_eq!(before, older);
    let after = walk(
        &collector,
        &id,
        &format!("after={middle}&limit=9"),
        "next_cursor",
    )
    .await;
    assert_eq!(after, newer);
    let around = collector
        .get(&timeline(&id, &format!("around={middle}&limit=10")))
        .await;
    let mut expected = newer[newer.len() - 5..].to_vec();
    expected.extend(older[..5].iter().cloned());
    assert_eq!(items(&around), expected);
    // On from there, both ways.
    let cursor = around["previous_cursor"].as_str().unwrap();
    let page = collector
        .get(&timeline(&id, &format!("limit=10&cursor={cursor}")))
        .await;
    assert_eq!(items(&page), newer[newer.len() - 15..newer.len() - 5]);
    let cursor = around["next_cursor"].as_str().unwrap();
    let page = collector
        .get(&timeline(&id, &format!("limit=10&cursor={cursor}")))
        .await;
    assert_eq!(items(&page), older[5..15]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_audit_log_does_not_read_it_here() {
    let collector = Collector::start().await;
    let id = past(&collector).await;
    let mut connection = collector.pool.acquire().await.unwrap();
    for (role, sees) in [
        (Role::Viewer, false),
        (Role::Operator, false),
        (Role::Lead, true),
    ] {
        let new = NewToken::of_role("reader", role, "test");
        let made = token::create(&mut connection, &new, collector.clock.now()).await;
        let bearer = format!("Bearer {}", made.unwrap().1);
        for (query, others) in [("kinds=audit", false), ("", true)] {
            let headers = [("authorization", bearer.as_str())];
            let answer = call(&collector, Method::GET, &timeline(&id, query), &headers, "").await;
            assert_eq!(answer.status(), StatusCode::OK);
            let found = items(&document(&answer));
            let audit = found.iter().filter(|item| item["kind"] == "audit").count();
            assert_eq!(audit > 0, sees, "{role:?} {query}");
            assert_eq!(found.len() > audit, others, "{role:?} {query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_source_scans_a_table_or_sorts_all_of_it() {
    let collector = Collector::start().await;
    let id: uuid::Uuid = past(&collector).await.parse().unwrap();
    let mut connection = collector.pool.acquire().await.unwrap();
    // Whatever the size of these tables: what can be had by an index is, and what can't be shows.
    connection
        .execute("set enable_seqscan = off")
        .await
        .unwrap();
    connection
        .execute("set enable_bitmapscan = off")
        .await
        .unwrap();
    connection.execute("set enable_sort = off").await.unwrap();
    let now = collector.clock.now();
    for source in ALL {
        for is_forward in [false, true] {
            for from in [None, Some((now - Duration::HOUR, "x".to_owned()))] {
                let ask = Ask {
                    host: infratrack_shared::ids::HostId(id),
                    from,
                    is_forward,
                    after: Some(now - Duration::DAY),
                    before: Some(now),
                    whats: None,
                    limit: 51,
                };
                let plan = timeline::explain(&mut connection, source, &ask)
                    .await
                    .unwrap();
                assert!(plan.contains("Index"), "{}:\n{plan}", source.name);
                // Hosts are one row by its key; of certificates and conflicts a host has few.
                let few = ["revoked", "dropped"].contains(&source.name);
                let sorts = plan
                    .lines()
                    .any(|line| line.trim_start().trim_start_matches("->").trim_start() == "Sort");
                assert!(!plan.contains("Seq Scan"), "{}:\n{plan}", source.name);
                assert!(few || !sorts, "{}:\n{plan}", source.name);
            }
        }
    }
}

async fn history(collector: &Collector, host: &Host, query: &str) -> Value {
    collector
        .get(&format!("/api/v1/hosts/{}/facts/history?{query}", host.id))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_fact_says_what_differed_and_when() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let versions = [
        json!({"id": "debian", "version": "12", "list": [1, 2]}),
        json!({"id": "debian", "version": "13", "list": [1, 2, 3]}),
        json!({"id": "debian", "version": "13", "list": "x".repeat(60_000), "more": "y".repeat(60_000)}),
    ];
    for (version, body) in (1..).zip(&versions) {
        say(&collector, &host, version, "facts.os", body.clone()).await;
        collector.clock.advance(Duration::MINUTE);
    }
    say(&collector, &host, 4, "facts.cpu", json!({"model": "x"})).await;
    let page = history(&collector, &host, "key=facts.os").await;
    let found = items(&page);
    assert_eq!((page["total"].as_i64(), found.len()), (Some(3), 3));
    let [cut, changed, first] = found.as_slice() else {
        panic!("{page}");
    };
    assert_eq!(
        (&first["was_there"], &first["is"]),
        (&json!(false), &versions[0])
    );
    assert_eq!(first["differences"], json!([]));
    let expected = json!([
        {"path": "/list/2", "was": null, "is": 3},
        {"path": "/version", "was": "12", "is": "13"},
    ]);
    assert_eq!(changed["differences"], expected);
    assert_eq!(
        (&cut["is_cut"], &cut["is"], &cut["was"]),
        (&json!(true), &json!(null), &versions[1])
    );
    // Page by page the same.
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = history(&collector, &host, &format!("key=facts.os&limit=1{cursor}")).await;
        paged.extend(items(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, found);
    assert_eq!(
        history(&collector, &host, "key=facts.none").await["total"],
        0
    );
    let path = format!("/api/v1/hosts/{}/facts/history", host.id);
    for refused in ["", "?key=", "?key=a&limit=51", "?key=a&cursor=%20"] {
        let (status, _) = collector
            .api(Method::GET, &format!("{path}{refused}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    }
    // The timeline tells the same in a line.
    let told = collector
        .get(&timeline(&host.id.to_string(), "kinds=fact"))
        .await;
    let told = items(&told);
    assert_eq!(told[0]["title"], "facts.cpu was told first");
    assert_eq!(
        (&told[1]["body"]["is"], &told[1]["is_cut"]),
        (&json!(null), &json!(true))
    );
    assert_eq!(told[2]["detail"], "list.2: nothing → 3; version: 12 → 13");
}
