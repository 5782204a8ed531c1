//! Packages and updates: in parts, whole and as what changed, apart from everything else a batch brings.

use infratrack_shared::codec;
use infratrack_shared::digest::Digest;
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::StatePart;
use infratrack_shared::wire::packages::{
    Database, Group, Manager, PACKAGES, Package, PackageKey, PackagesPart, PendingUpdate, UPDATES,
    UpdateCheck, UpdatesPart,
};
use serde::Serialize;
use time::Duration;

use crate::harness::{Collector, Host};

/// `name` and `version` of one of dpkg's.
pub(crate) fn package((name, version): (&str, &str)) -> Package {
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: "amd64".to_owned(),
        ..Package::default()
    }
}

pub(crate) fn dpkg(unknown: Option<&str>) -> Vec<Database> {
    vec![Database {
        manager: Manager::Dpkg,
        unknown: unknown.map(str::to_owned),
        skipped: 0,
        has_log: false,
    }]
}

pub(crate) fn of_dpkg<T>(packages: Vec<T>) -> Vec<Group<T>> {
    vec![Group {
        manager: Manager::Dpkg,
        packages,
    }]
}

pub(crate) fn whole(packages: &[(&str, &str)]) -> PackagesPart {
    PackagesPart {
        databases: dpkg(None),
        put: of_dpkg(packages.iter().copied().map(package).collect()),
        gone: Vec::new(),
    }
}

/// One part of a version, which is known by `hash`.
pub(crate) fn part(key: &str, version: u64, hash: &str, body: &impl Serialize) -> StatePart {
    StatePart {
        key: key.to_owned(),
        version,
        base_hash: None,
        new_hash: Digest::of(hash.as_bytes()),
        part: 0,
        parts: 1,
        body: codec::to_value(body).unwrap(),
    }
}

fn delta(version: u64, base: &str, hash: &str, body: &PackagesPart) -> StatePart {
    StatePart {
        base_hash: Some(Digest::of(base.as_bytes())),
        ..part(PACKAGES, version, hash, body)
    }
}

/// Sends the parts; answers the Ack of the batch, and the one that came later.
pub(crate) async fn send(
    collector: &Collector,
    host: &Host,
    state: Vec<StatePart>,
) -> (Ack, Option<Ack>) {
    let mut batch = host.batch(collector);
    batch.state = state;
    let mut connection = host.connect(collector).await;
    let (ack, mut answer) = crate::harness::send(&mut connection, &batch).await.unwrap();
    let mut late = None;
    while let Some(frame) = answer.next_frame().await.unwrap() {
        late = frame.ack.or(late);
    }
    (ack, late)
}

/// What is stored of the host, as `name version`.
async fn stored(collector: &Collector, host: &Host) -> Vec<String> {
    sqlx::query_scalar(
        "select name || ' ' || version from host_packages join packages using (package_id)
         where host_id = $1 order by 1",
    )
    .bind(host.id.0)
    .fetch_all(&collector.pool)
    .await
    .unwrap()
}

async fn history(collector: &Collector, host: &Host) -> Vec<String> {
    sqlx::query_scalar(
        "select concat_ws(' ', action, name, was_version, is_version) from package_changes
         where host_id = $1 order by change_id",
    )
    .bind(host.id.0)
    .fetch_all(&collector.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_is_stored_and_what_changes_is_history() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let first = whole(&[("a", "1"), ("b", "1:2-1"), ("c", "1")]);
    let (ack, late) = send(&collector, &host, vec![part(PACKAGES, 1, "one", &first)]).await;
    assert!(ack.state.is_empty(), "it is not stored with the rest");
    assert_eq!(late.unwrap().state[0].version, 1);
    assert_eq!(stored(&collector, &host).await, ["a 1", "b 1:2-1", "c 1"]);
    assert!(history(&collector, &host).await.is_empty());

    let mut held = package(("a", "1"));
    held.held = true;
    let change = PackagesPart {
        databases: dpkg(None),
        put: of_dpkg(vec![held, package(("b", "1:2~rc1-1")), package(("d", "3"))]),
        gone: of_dpkg(vec![
            PackageKey {
                name: "b".to_owned(),
                version: "1:2-1".to_owned(),
                arch: "amd64".to_owned(),
            },
            PackageKey {
                name: "c".to_owned(),
                version: "1".to_owned(),
                arch: "amd64".to_owned(),
            },
        ]),
    };
    let (_, late) = send(&collector, &host, vec![delta(2, "one", "two", &change)]).await;
    assert_eq!(late.unwrap().state.len(), 1);
    assert_eq!(
        stored(&collector, &host).await,
        ["a 1", "b 1:2~rc1-1", "d 3"]
    );
    assert_eq!(
        history(&collector, &host).await,
        [
            "held a 1",
            "downgraded b 1:2-1 1:2~rc1-1",
            "removed c 1",
            "installed d 3"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_is_not_stored_is_asked_for_whole() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let change = whole(&[("a", "2")]);
    let (_, late) = send(&collector, &host, vec![delta(1, "one", "two", &change)]).await;
    let late = late.unwrap();
    assert_eq!((late.state.len(), &*late.want_whole[0].key), (0, PACKAGES));
    assert!(stored(&collector, &host).await.is_empty());
    let state = vec![part(PACKAGES, 2, "two", &change)];
    send(&collector, &host, state).await;
    // An older version, one more time, and the same in a newer one.
    let old = part(PACKAGES, 1, "old", &whole(&[("old", "1")]));
    let again = part(PACKAGES, 2, "two", &whole(&[("not read", "1")]));
    let same = part(PACKAGES, 3, "two", &whole(&[("not read", "1")]));
    let (_, late) = send(&collector, &host, vec![old, again, same]).await;
    assert_eq!(late.unwrap().state.len(), 3);
    assert_eq!(stored(&collector, &host).await, ["a 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_take_effect_together_in_any_order_and_across_a_restart() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let of = |number: u32, body: &PackagesPart| StatePart {
        part: number,
        parts: 3,
        ..part(PACKAGES, 5, "five", body)
    };
    let parts = [
        of(0, &whole(&[("a", "1")])),
        of(
            1,
            &PackagesPart {
                databases: Vec::new(),
                ..whole(&[("b", "1")])
            },
        ),
        of(
            2,
            &PackagesPart {
                databases: Vec::new(),
                ..whole(&[("c", "1")])
            },
        ),
    ];
    let abandoned = StatePart {
        version: 4,
        ..parts[2].clone()
    };
    send(&collector, &host, vec![abandoned, parts[2].clone()]).await;
    let (_, late) = send(&collector, &host, vec![parts[0].clone(), parts[2].clone()]).await;
    let numbers: Vec<_> = late.unwrap().state.iter().map(|ack| ack.part).collect();
    assert_eq!(numbers, [0, 2]);
    assert!(stored(&collector, &host).await.is_empty());
    let collector = collector.restarted(async |_| {}).await;
    send(&collector, &host, vec![parts[1].clone()]).await;
    assert_eq!(stored(&collector, &host).await, ["a 1", "b 1", "c 1"]);
    let waiting = "select count(*) from host_state_parts where host_id = $1";
    assert_eq!(collector.count(waiting, &host).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_database_had_stays_while_it_cannot_be_read() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut body = whole(&[("a", "1")]);
    body.databases.push(Database {
        manager: Manager::Snap,
        ..Database::default()
    });
    body.put.push(Group {
        manager: Manager::Snap,
        packages: vec![package(("lxd", "5"))],
    });
    send(&collector, &host, vec![part(PACKAGES, 1, "one", &body)]).await;
    let locked = PackagesPart {
        databases: dpkg(Some("it is locked")),
        ..PackagesPart::default()
    };
    send(&collector, &host, vec![part(PACKAGES, 2, "two", &locked)]).await;
    assert_eq!(
        stored(&collector, &host).await,
        ["a 1"],
        "snaps are no more"
    );
    let empty = whole(&[]);
    send(&collector, &host, vec![part(PACKAGES, 3, "three", &empty)]).await;
    assert!(stored(&collector, &host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_with_the_hash_of_what_is_stored_asks_for_nothing() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let packages = part(PACKAGES, 1, "one", &whole(&[("a", "1")]));
    let updates = part(UPDATES, 2, "none", &UpdatesPart::default());
    let set = [(PACKAGES, packages.new_hash), (UPDATES, updates.new_hash)];
    let mut batch = host.batch(&collector);
    let mut heartbeat = host.heartbeat(&collector);
    heartbeat.inventory_hash = Some(Digest::of_set(set));
    batch.heartbeat = Some(heartbeat);
    let ack = host.send(&collector, &batch).await.unwrap();
    let keys: Vec<_> = ack.want_whole.iter().map(|want| &*want.key).collect();
    assert_eq!(keys, [PACKAGES, UPDATES]);
    send(&collector, &host, vec![packages, updates]).await;
    let ack = host.send(&collector, &batch).await.unwrap();
    assert!(ack.want_whole.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_inventory_is_refused_and_what_no_index_takes_is_left_out() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut wrong = part(PACKAGES, 1, "one", &whole(&[]));
    wrong.body = rmpv::Value::from("packages");
    let (_, late) = send(&collector, &host, vec![wrong]).await;
    let late = late.unwrap();
    let rejected = &late.rejected[0];
    assert_eq!(
        (rejected.version, &*rejected.code),
        (Some(1), "body_invalid")
    );
    let long = "9".repeat(256);
    let body = whole(&[
        ("a\0b", "1"),
        ("", "1"),
        ("c", ""),
        ("d", &long),
        ("e", "1"),
    ]);
    send(&collector, &host, vec![part(PACKAGES, 2, "two", &body)]).await;
    assert_eq!(stored(&collector, &host).await, ["a\u{fffd}b 1", "e 1"]);
    let skipped = "select skipped from host_states where host_id = $1";
    assert_eq!(collector.count(skipped, &host).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_keep_their_age_and_what_became_of_them_is_told() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let update = |name: &str, candidate: &str, security| PendingUpdate {
        name: name.to_owned(),
        arch: "amd64".to_owned(),
        installed: "1".to_owned(),
        candidate: candidate.to_owned(),
        security: Some(security),
        ..PendingUpdate::default()
    };
    let updates = |version, pending: Vec<PendingUpdate>, unknown: Option<&str>| {
        let check = UpdateCheck {
            manager: Manager::Dpkg,
            tool: "apt".to_owned(),
            unknown: unknown.map(str::to_owned),
            ..UpdateCheck::default()
        };
        let body = UpdatesPart {
            checks: vec![check],
            pending: of_dpkg(pending),
        };
        part(UPDATES, version, &version.to_string(), &body)
    };
    let names = ["gone", "mended", "newer", "pulled"];
    let installed = names.map(|name| (name, "1"));
    let first = names
        .map(|name| update(name, "2", name != "pulled"))
        .to_vec();
    let packages = part(PACKAGES, 1, "one", &whole(&installed));
    send(&collector, &host, vec![packages, updates(2, first, None)]).await;
    collector.clock.advance(Duration::days(3));
    send(
        &collector,
        &host,
        vec![updates(3, vec![], Some("it is locked"))],
    )
    .await;
    let after = whole(&[("mended", "2"), ("newer", "1"), ("pulled", "1")]);
    let left = vec![update("newer", "3", true)];
    let packages = part(PACKAGES, 4, "four", &after);
    send(&collector, &host, vec![packages, updates(5, left, None)]).await;

    let pending = "select name || ' ' || candidate || ' ' ||
             (extract(epoch from $2 - security_since) / 86400)::int || ' days'
         from pending_updates where host_id = $1";
    let pending: Vec<String> = sqlx::query_scalar(pending)
        .bind(host.id.0)
        .bind(collector.clock.now())
        .fetch_all(&collector.pool)
        .await
        .unwrap();
    assert_eq!(pending, ["newer 3 3 days"]);
    let past = "select name || ' ' || outcome from past_updates where host_id = $1 order by 1";
    let past: Vec<String> = sqlx::query_scalar(past)
        .bind(host.id.0)
        .fetch_all(&collector.pool)
        .await
        .unwrap();
    assert_eq!(
        past,
        ["gone removed", "mended installed", "pulled withdrawn"]
    );
}
