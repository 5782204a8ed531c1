//! A new CA in place of the old one, while the fleet goes on.

use std::process::{Command, Output, Stdio};

use http::{Method, StatusCode};
use infratrack_agent::identity::Identity;
use infratrack_agent::returning::come_back;
use infratrack_agent::uplink::UplinkError;
use infratrack_collector::agents::enroll::TokenOptions;
use infratrack_collector::ca::rotation;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::enroll::{RenewRequest, RenewResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use serde_bytes::ByteBuf;
use sqlx::ConnectOptions;
use time::Duration;

use crate::agents::returning::Agent;
use crate::harness::{Collector, Host, eventually, refusal, send};

/// The next generation, which signs when `after` has passed.
fn rotate(collector: &Collector, after: Duration) {
    let dir = collector.data_dir.path().join("ca");
    rotation::rotate(&dir, collector.clock.now(), after).unwrap();
}

/// Waits until the collector tells its agents of so many roots.
async fn told(collector: &Collector, roots: usize) {
    eventually("the collector to notice", || async {
        let policy = collector.server.app.policy.borrow();
        (policy.trust_bundle.len() == roots).then_some(())
    })
    .await;
}

/// Reports, and does what the answer's policy says of roots, as the agent does. `false`: no policy came.
async fn report(host: &Host, collector: &Collector, policy_version: u64) -> bool {
    let mut batch = host.batch(collector);
    batch.heartbeat = Some(host.heartbeat(collector));
    batch.policy_version = policy_version;
    let mut connection = host.connect(collector).await;
    let (_, mut answer) = send(&mut connection, &batch).await.unwrap();
    let mut taken = false;
    while let Some(frame) = answer.next_frame().await.unwrap() {
        if let Some(policy) = frame.policy {
            host.identity.store_roots(&policy.trust_bundle).unwrap();
            taken = true;
        }
    }
    taken
}

/// Renews and uses what came; the issuing CA it is from.
pub(crate) async fn renew(host: &Host, collector: &Collector) -> ByteBuf {
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr: ByteBuf::from(host.identity.request().unwrap()),
        instance: None,
    };
    let mut connection = host.connect(collector).await;
    let (_, renewed): (_, RenewResponse) = connection.call(path::RENEW, &request).await.unwrap();
    host.identity.store_roots(&renewed.trust_bundle).unwrap();
    host.identity.store_next(&renewed.chain).unwrap();
    host.identity.promote_next().unwrap();
    renewed.chain[1].clone()
}

/// The same host from before.
pub(crate) fn copy(host: &Host) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    let (from, to) = (
        host.dir.path().join("identity"),
        dir.path().join("identity"),
    );
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    Host::of(identity, dir)
}

/// The same machine, had it not renewed since.
fn unrenewed(host: &Host) -> Host {
    let mut before = copy(host);
    before.instance = host.instance;
    before
}

fn retire(collector: &Collector, arguments: &[&str]) -> Output {
    let config = collector.data_dir.path().join("collector.toml");
    let text = format!("data_dir = \"{}\"", collector.data_dir.path().display());
    std::fs::write(&config, text).unwrap();
    let database = collector.database.as_ref().unwrap();
    Command::new(env!("CARGO_BIN_EXE_infratrack-collector"))
        .arg("--config")
        .arg(&config)
        .args(["ca", "retire"])
        .args(arguments)
        .env(
            "DATABASE_URL",
            database.connect_options().to_url_lossy().as_str(),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A host that came in with this token, as soon as the listener shows the root it pins.
async fn enrolled(collector: &Collector, token: &EnrollToken) -> Host {
    eventually("the token to be taken", || async {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        collector.enroll(&identity, token).await.ok()?;
        Some(Host::of(identity, dir))
    })
    .await
}

async fn unseen_for_long(host: &Host, collector: &Collector) {
    let sql = "update host_liveness set last_seen_at = last_seen_at - interval '31 days'
               where host_id = $1";
    sqlx::query(sql)
        .bind(host.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
}

/// After the retirement: the old certificate is refused in the handshake, the hosts are let in.
async fn only_the_new_is_accepted(collector: &Collector, old: &Host, hosts: &[&Host]) {
    told(collector, 1).await;
    let sent = old.send(collector, &old.batch(collector)).await;
    assert!(matches!(sent, Err(UplinkError::Broken(_))), "{sent:?}");
    for host in hosts {
        assert!(report(host, collector, 1).await);
        assert_eq!(host.identity.roots().unwrap().len(), 1);
    }
}

/// With nothing but the old root and certificate, a host returns by itself.
async fn slept_through_all_of_it(host: &Host, collector: &Collector) {
    let old = host.identity.current().unwrap();
    let enroll = collector.server.addresses.enroll.to_string();
    come_back(&host.identity, &old, &enroll, "infratrack")
        .await
        .unwrap();
    host.identity.promote_next().unwrap();
    report(host, collector, 1).await;
    assert_eq!(host.identity.current().unwrap().host, host.id);
}

/// Has the agent report at once.
async fn command(host: &Host, collector: &Collector, action: &str) {
    let path = format!("/api/v1/hosts/{}/commands", host.id);
    let body = format!(r#"{{"action": "{action}"}}"#);
    let (status, answer) = collector.api(Method::POST, &path, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_goes_through_a_whole_rotation_without_a_hand() {
    let first = Collector::start().await;
    let second = first.second().await;
    let both = [&first, &second];
    let (awake, asleep, laggard) = (first.host().await, first.host().await, first.host().await);
    for host in [&awake, &asleep, &laggard] {
        report(host, &first, 1).await;
    }
    let old_token = first.token(TokenOptions::default()).await;
    let unused_token = first.token(TokenOptions::default()).await;
    let old_pin = first.pin();
    rotate(&first, Duration::seconds(4));
    for collector in both {
        told(collector, 2).await;
        assert!(report(&awake, collector, 1).await, "a newer policy comes");
    }
    assert_eq!(awake.identity.roots().unwrap().len(), 2);
    assert!(retire(&first, &[]).status.code() == Some(1), "too early");
    let before = unrenewed(&awake);

    // The new generation signs, on both collectors, and their listeners show it.
    eventually("the new generation to sign", || async {
        (first.pin() != old_pin).then_some(())
    })
    .await;
    let ca = second.server.app.ca.load();
    let new_issuing = ca.signing(second.clock.now()).unwrap().issuing.to_vec();
    drop(ca);
    assert_eq!(renew(&awake, &second).await, new_issuing);
    let by_new = enrolled(&first, &first.token(TokenOptions::default()).await).await;
    // One made before the rotation still works, and brings both roots.
    let by_old = enrolled(&first, &old_token).await;
    for host in [&awake, &before, &by_new, &by_old] {
        assert_eq!(host.identity.roots().unwrap().len(), 2);
        for collector in both {
            report(host, collector, 1).await;
        }
    }
    let mut open = before.connect(&first).await;

    // Back from a sleep in which all this happened: it knows the old root alone.
    assert_eq!(asleep.identity.roots().unwrap().len(), 1);
    assert!(report(&asleep, &first, 1).await);
    assert_eq!(asleep.identity.roots().unwrap().len(), 2);
    let refused = said(&retire(&first, &[]));
    assert!(
        refused.contains("2 hosts seen in the last 30 days"),
        "{refused}"
    );
    assert_eq!(renew(&asleep, &first).await, new_issuing);
    unseen_for_long(&laggard, &first).await;
    let refused = said(&retire(&first, &[]));
    assert!(refused.contains("1 enrollment tokens"), "{refused}");
    sqlx::query("delete from enroll_tokens where token_id = $1")
        .bind(unused_token.id())
        .execute(&first.pool)
        .await
        .unwrap();
    let retired = retire(&first, &[]);
    assert!(retired.status.success(), "{}", said(&retired));

    for collector in both {
        only_the_new_is_accepted(collector, &before, &[&awake, &asleep, &by_new, &by_old]).await;
    }
    // And on a connection from before.
    let sent = send(&mut open, &before.batch(&first))
        .await
        .map(|(ack, _)| ack);
    assert_eq!(
        refusal(sent),
        (StatusCode::UNAUTHORIZED, "certificate_unknown".to_owned())
    );

    slept_through_all_of_it(&laggard, &second).await;
    let hosts: i64 = sqlx::query_scalar("select count(*) from hosts")
        .fetch_one(&first.pool)
        .await
        .unwrap();
    assert_eq!(hosts, 5, "nobody became somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_follows_a_rotation() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let addresses = collector.server.addresses;
    let endpoints = [addresses.agents, addresses.enroll].map(|address| address.to_string());
    let _agent = Agent::start(&host, endpoints);
    // Its heartbeats are half a minute apart; a command has it report at once.
    let trusts = async |roots: usize| {
        told(&collector, roots).await;
        command(&host, &collector, "refresh_facts").await;
        eventually("the agent to trust so many roots", || async {
            (host.identity.roots().unwrap().len() == roots).then_some(())
        })
        .await;
    };
    trusts(1).await;
    let old_pin = collector.pin();
    rotate(&collector, Duration::seconds(8));
    trusts(2).await;
    assert_eq!(collector.pin(), old_pin, "told before anything is signed");
    eventually("the new generation to sign", || async {
        (collector.pin() != old_pin).then_some(())
    })
    .await;
    command(&host, &collector, "renew").await;
    eventually("a certificate of the new generation in use", || async {
        let ca = collector.server.app.ca.load();
        let new = ca.signing(collector.clock.now()).unwrap();
        let pair = host.identity.current().unwrap();
        (pair.chain[1] == new.issuing).then_some(())
    })
    .await;
    let retired = retire(&collector, &[]);
    assert!(retired.status.success(), "{}", said(&retired));
    trusts(1).await;
    // Over a connection that trusts the new root alone, as a host that it alone vouches for.
    command(&host, &collector, "refresh_facts").await;
    let results = "select count(*) from events where host_id = $1 and kind = 'command_result'";
    eventually("the agent to go on", || async {
        (collector.count(results, &host).await == 5).then_some(())
    })
    .await;
    let gaps = "select count(*) from gaps where host_id = $1";
    assert_eq!(collector.count(gaps, &host).await, 0);
}

/// One in ten is off while it happens.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes; make soak"]
async fn a_rotation_with_500_hosts_leaves_none_behind() {
    let first = Collector::start().await;
    let second = first.second().await;
    let token = first.token(TokenOptions {
        max_uses: 500,
        ..TokenOptions::default()
    });
    let token = token.await;
    let mut hosts = Vec::new();
    for _ in 0..500 {
        hosts.push(enrolled(&first, &token).await);
    }
    let (asleep, awake) = hosts.split_at(50);
    for host in &hosts {
        report(host, &first, 1).await;
    }
    let old_pin = first.pin();
    rotate(&first, Duration::seconds(4));
    for collector in [&first, &second] {
        told(collector, 2).await;
    }
    for host in awake {
        assert!(report(host, &second, 1).await, "a newer policy comes");
    }
    eventually("the new generation to sign", || async {
        (first.pin() != old_pin).then_some(())
    })
    .await;
    for host in awake {
        renew(host, &first).await;
    }
    assert!(!retire(&first, &[]).status.success(), "50 would be left");
    for host in asleep {
        unseen_for_long(host, &first).await;
    }
    let retired = retire(&first, &[]);
    assert!(retired.status.success(), "{}", said(&retired));
    for collector in [&first, &second] {
        told(collector, 1).await;
    }
    for host in asleep {
        slept_through_all_of_it(host, &second).await;
    }
    for host in &hosts {
        report(host, &second, 1).await;
        assert_eq!(host.identity.roots().unwrap().len(), 1);
        assert_eq!(host.identity.current().unwrap().host, host.id);
    }
    let known: i64 = sqlx::query_scalar("select count(*) from hosts")
        .fetch_one(&first.pool)
        .await
        .unwrap();
    assert_eq!(known, 500, "nobody became somebody else");
}
