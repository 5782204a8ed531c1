//! Hosts that were off for longer than their certificate lasted.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use http::{Method, StatusCode};
use infratrack_agent::clock::Clock;
use infratrack_agent::reporter::{Report, ReportError, Reporter};
use infratrack_agent::returning::{ReturnError, come_back, sign};
use infratrack_agent::spool::{NewRecord, Spool, SpoolConfig};
use infratrack_agent::tls;
use infratrack_agent::uplink::{Connection, Endpoint, UplinkError};
use infratrack_collector::agents::enroll::TokenOptions;
use infratrack_collector::config::Interval;
use infratrack_collector::jobs::{partitions, run};
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::batch::{Body, Class};
use infratrack_shared::wire::enroll::{
    ChallengeRequest, ChallengeResponse, RenewResponse, ReturnRequest, return_message,
};
use infratrack_shared::wire::{PROTOCOL, path};
use infratrack_testkit::postgres::binary;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use time::Duration;

use crate::harness::{Collector, Host, eventually};

/// Certificates last 30 days.
fn after_expiry(days: i64) -> Duration {
    Duration::days(30 + days) + Duration::hours(1)
}

async fn returns(host: &Host, collector: &Collector) -> Result<(), ReturnError> {
    let endpoint = collector.server.addresses.enroll.to_string();
    let old = host.identity.current().unwrap();
    come_back(&host.identity, &old, &endpoint, "infratrack").await
}

fn refusal(result: Result<(), ReturnError>) -> (StatusCode, String, String) {
    match result {
        Err(ReturnError::Uplink { source, .. }) => refused(*source),
        other => panic!("must be refused: {other:?}"),
    }
}

fn refused(error: UplinkError) -> (StatusCode, String, String) {
    let UplinkError::Refused {
        status, problem, ..
    } = error
    else {
        panic!("must be refused: {error:?}");
    };
    (status, problem.code, problem.detail.unwrap_or_default())
}

async fn call<T: Serialize, R: DeserializeOwned>(
    host: &Host,
    collector: &Collector,
    path: &'static str,
    body: &T,
) -> Result<R, UplinkError> {
    let endpoint = Endpoint {
        address: collector.server.addresses.enroll.to_string(),
        name: tls::server_name("infratrack").unwrap(),
        tls: Arc::new(tls::server_only(&host.identity.roots().unwrap()).unwrap()),
    };
    let mut connection = Connection::open(&endpoint).await?;
    connection.call(path, body).await.map(|(_, answer)| answer)
}

async fn nonce(host: &Host, collector: &Collector) -> ByteBuf {
    let request = ChallengeRequest { protocol: PROTOCOL };
    let answer: ChallengeResponse = call(host, collector, path::CHALLENGE, &request)
        .await
        .unwrap();
    answer.nonce
}

/// A request as the agent makes it, with `nonce`.
fn request(host: &Host, nonce: ByteBuf) -> ReturnRequest {
    let old = host.identity.current().unwrap();
    let csr = host.identity.request().unwrap();
    ReturnRequest {
        protocol: PROTOCOL,
        certificate: ByteBuf::from(old.chain[0].to_vec()),
        signature: ByteBuf::from(sign(&old.key, &return_message(&nonce, &csr)).unwrap()),
        nonce,
        csr: ByteBuf::from(csr),
    }
}

async fn ask(
    host: &Host,
    collector: &Collector,
    request: &ReturnRequest,
) -> Result<RenewResponse, UplinkError> {
    call(host, collector, path::RETURN, request).await
}

async fn certificates(host: &Host, collector: &Collector) -> i64 {
    let sql = "select count(*) from agent_certs where host_id = $1";
    collector.count(sql, host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn five_days_after_its_certificate_expired_a_host_returns_as_itself() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut open = host.connect(&collector).await;
    collector.clock.advance(after_expiry(5));
    // The handshake says so, and so does an answer on a connection from before.
    let batch = host.batch(&collector);
    let error = host.send(&collector, &batch).await.expect_err("expired");
    assert!(matches!(error, UplinkError::Broken(_)), "{error:?}");
    assert!(error.is_expired(), "{error:?}");
    let error = crate::harness::send(&mut open, &batch)
        .await
        .expect_err("expired");
    assert!(error.is_expired(), "{error:?}");
    let old = host.identity.current().unwrap();
    returns(&host, &collector).await.unwrap();
    host.identity.promote_next().unwrap();
    let new = host.identity.current().unwrap();
    assert_eq!(new.host, old.host);
    assert_ne!(new.key, old.key);
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
    assert_eq!(certificates(&host, &collector).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_one_days_after_only_a_token_made_for_the_host_helps() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    collector.clock.advance(after_expiry(29));
    let request = request(&host, nonce(&host, &collector).await);
    ask(&host, &collector, &request).await.unwrap();
    collector.clock.advance(Duration::days(2));
    let (status, code, detail) = refusal(returns(&host, &collector).await);
    assert_eq!(
        (status, code.as_str()),
        (StatusCode::FORBIDDEN, "return_too_late")
    );
    assert!(detail.contains(&host.id.to_string()), "{detail}");
    let body = format!(r#"{{"host_id": "{}"}}"#, host.id);
    let (status, created) = collector
        .api(Method::POST, "/api/v1/enroll-tokens", &body)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let token: EnrollToken = created["token"].as_str().unwrap().parse().unwrap();
    let id = collector.enroll(&host.identity, &token).await.unwrap();
    assert_eq!(id, host.id);
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
}

/// Two months off: it needs a token, and what it had queued is still its own.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_one_days_after_a_host_gets_in_by_token_with_its_spool_intact() {
    // Once the job has run at the start, partitions are made when this test says so, however slow it is.
    let seldom = (
        "partitions".to_owned(),
        Interval(std::time::Duration::from_hours(1)),
    );
    let collector = Collector::start_with(|config| config.jobs.intervals.extend([seldom])).await;
    collector.job_has_run("partitions").await;
    let host = collector.host().await;
    let queued_at = collector.clock.clock().unix_millis();
    let spool = || {
        let config = SpoolConfig::new(host.dir.path().join("spool"));
        Spool::open(config, queued_at)
    };
    let (queue, _) = spool().await.unwrap();
    let records = (0..100).map(|number| NewRecord {
        at: queued_at,
        mono_ms: 0,
        boot_id: host.boot_id,
        kind: "test".to_owned(),
        body: Body::Event(number.into()),
    });
    let records = records.collect();
    queue.append(Class::Critical, records).await.unwrap();
    queue.close().await.unwrap();
    collector.clock.advance(after_expiry(61));
    let (status, code, _) = refusal(returns(&host, &collector).await);
    assert_eq!(
        (status, code.as_str()),
        (StatusCode::FORBIDDEN, "return_too_late")
    );
    let options = TokenOptions {
        host: Some(host.id),
        ..TokenOptions::default()
    };
    let token = collector.token(options).await;
    let id = collector.enroll(&host.identity, &token).await.unwrap();
    assert_eq!(id, host.id);
    let (queue, _) = spool().await.unwrap();
    let clock = collector.clock.clock();
    let clock = Clock::from_fn(move || clock.unix_millis());
    let mut reporter = Reporter::new(queue, clock, host.instance, host.boot_id);
    let mut connection = host.connect(&collector).await;
    // So long a jump of the clock is over the last partition: nothing is stored, and nothing set aside.
    let early = reporter.report(&mut connection, Report::default()).await;
    let Err(ReportError::Uplink(UplinkError::Refused { status, .. })) = early else {
        panic!("{early:?}");
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let app = Arc::clone(&collector.server.app);
    run::once(&app, "partitions", partitions::run)
        .await
        .unwrap();
    let reported = reporter.report(&mut connection, Report::default()).await;
    reported.unwrap();
    assert_eq!(reporter.spool.usage().critical_records, 0);
    let stored = "select count(*) from events where host_id = $1 and kind = 'test'";
    assert_eq!(collector.count(stored, &host).await, 100);
    let gaps = "select count(*) from gaps where host_id = $1";
    assert_eq!(collector.count(gaps, &host).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_host_names_one_that_exists_and_is_used_once() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    for (body, expected) in [
        (
            format!(r#"{{"host_id": "{}", "max_uses": 2}}"#, host.id),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            r#"{"host_id": "01890000-0000-7000-8000-000000000000"}"#.to_owned(),
            StatusCode::NOT_FOUND,
        ),
        (
            r#"{"tags": ["web", "a\u0000b"]}"#.to_owned(),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            r#"{"hostname_pattern": "web\u0000*"}"#.to_owned(),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        let path = "/api/v1/enroll-tokens";
        let (status, answer) = collector.api(Method::POST, path, &body).await;
        assert_eq!(status, expected, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_and_a_retired_host_never_return() {
    let collector = Collector::start().await;
    let (revoked, retired) = (collector.host().await, collector.host().await);
    let path = format!("/api/v1/hosts/{}/revoke", revoked.id);
    let (status, _) = collector.api(Method::POST, &path, "").await;
    assert_eq!(status, StatusCode::OK);
    sqlx::query("update hosts set retired_at = now() where host_id = $1")
        .bind(retired.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
    collector.clock.advance(after_expiry(5));
    for host in [&revoked, &retired] {
        let (status, code, _) = refusal(returns(host, &collector).await);
        assert_eq!(
            (status, code.as_str()),
            (StatusCode::FORBIDDEN, "certificate_revoked")
        );
        assert_eq!(certificates(host, &collector).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_a_borrowed_signature_and_an_unknown_certificate_are_one_refusal() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    collector.clock.advance(after_expiry(5));
    let good = request(&host, nonce(&host, &collector).await);
    let theirs = request(&other, nonce(&host, &collector).await);
    let mut damaged = good.certificate.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let wrong = [
        // Another host's certificate, our key.
        ReturnRequest {
            certificate: theirs.certificate.clone(),
            ..good.clone()
        },
        // A signature for another key, and for another nonce.
        ReturnRequest {
            csr: theirs.csr.clone(),
            ..good.clone()
        },
        ReturnRequest {
            nonce: theirs.nonce.clone(),
            ..good.clone()
        },
        ReturnRequest {
            signature: ByteBuf::new(),
            ..good.clone()
        },
        // The serial is ours, the certificate is not quite.
        ReturnRequest {
            certificate: damaged,
            ..good.clone()
        },
        ReturnRequest {
            certificate: ByteBuf::from(b"nonsense".to_vec()),
            ..good.clone()
        },
    ];
    for request in wrong {
        let error = ask(&host, &collector, &request).await.expect_err("refused");
        let (status, code, _) = refused(error);
        assert_eq!(
            (status, code.as_str()),
            (StatusCode::UNAUTHORIZED, "certificate_unknown"),
            "{request:?}"
        );
    }
    for host in [&host, &other] {
        assert_eq!(certificates(host, &collector).await, 1);
    }
    ask(&host, &collector, &good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_good_for_a_minute_at_every_collector_of_the_fleet() {
    let collector = Collector::start().await;
    let second = collector.second().await;
    let host = collector.host().await;
    collector.clock.advance(after_expiry(5));
    let request = request(&host, nonce(&host, &collector).await);
    collector.clock.advance(Duration::seconds(50));
    ask(&host, &second, &request).await.unwrap();
    collector.clock.advance(Duration::seconds(11));
    for collector in [&collector, &second] {
        let error = ask(&host, collector, &request).await.expect_err("stale");
        let (status, code, _) = refused(error);
        assert_eq!(
            (status, code.as_str()),
            (StatusCode::BAD_REQUEST, "challenge_stale")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_replayed_request_make_no_second_certificate() {
    let collector = Arc::new(Collector::start().await);
    let host = Arc::new(collector.host().await);
    collector.clock.advance(after_expiry(5));
    let request = request(&host, nonce(&host, &collector).await);
    let asking = (0..8).map(|_| {
        let (collector, host, request) =
            (Arc::clone(&collector), Arc::clone(&host), request.clone());
        tokio::spawn(async move { ask(&host, &collector, &request).await.unwrap() })
    });
    let mut chains = Vec::new();
    for answered in asking.collect::<Vec<_>>() {
        chains.push(answered.await.unwrap().chain);
    }
    assert!(chains.iter().all(|chain| *chain == chains[0]));
    assert_eq!(certificates(&host, &collector).await, 2);
    // And the agent's own second attempt, with another nonce.
    returns(&host, &collector).await.unwrap();
    let stored = host.identity.next().unwrap().unwrap();
    assert_eq!(stored.chain[0].as_ref(), chains[0][0].as_slice());
    assert_eq!(certificates(&host, &collector).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expired_before_its_answer_came_through_is_replaced() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    collector.clock.advance(after_expiry(0));
    let first = request(&host, nonce(&host, &collector).await);
    let lost = ask(&host, &collector, &first).await.unwrap();
    // The answer never came; the key that it was for waits still.
    collector.clock.advance(Duration::days(29));
    sqlx::query("update agent_certs set not_after = $2 where host_id = $1 and certificate = $3")
        .bind(host.id.0)
        .bind(collector.clock.now() - Duration::days(1))
        .bind(lost.chain[0].as_slice())
        .execute(&collector.pool)
        .await
        .unwrap();
    returns(&host, &collector).await.unwrap();
    let stored = host.identity.next().unwrap().unwrap();
    assert_ne!(stored.chain[0].as_ref(), lost.chain[0].as_slice());
    host.identity.promote_next().unwrap();
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
}

/// The agent as systemd runs it, ended when dropped.
pub(crate) struct Agent(Child);

impl Agent {
    /// Endpoints of agents and of enrollment.
    pub(crate) fn start(host: &Host, endpoints: [String; 2]) -> Self {
        let [agents, enroll] = endpoints;
        let dir = host.dir.path();
        let config = dir.join("agent.toml");
        let text = format!(
            "state_dir = \"{dir}\"\nfacts_dir = \"{dir}/facts.d\"\n\
             endpoints = [\"{agents}\"]\nenroll_endpoint = \"{enroll}\"\n",
            dir = dir.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(binary("infratrack-agent").unwrap())
            .arg("--config")
            .arg(&config)
            .arg("run")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(dir.join("agent.log")).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A host whose certificate lasts for so long, by every clock.
async fn short_lived(seconds: u64) -> (Collector, Host) {
    let collector = Collector::start_with(|config| {
        config.certificates.lifetime = std::time::Duration::from_secs(seconds);
    })
    .await;
    let token = collector.token(TokenOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let identity = infratrack_agent::identity::Identity::open(dir.path()).unwrap();
    collector.enroll(&identity, &token).await.unwrap();
    (collector, Host::of(identity, dir))
}

async fn expired(collector: &Collector, host: &Host) {
    let pair = host.identity.current().unwrap();
    eventually("the certificate to expire", || async {
        (collector.clock.clock().unix_millis() > pair.not_after).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_with_an_expired_certificate_is_back_by_itself() {
    let (collector, host) = short_lived(2).await;
    expired(&collector, &host).await;
    // Another collector of the fleet, which issues for longer.
    let second = collector.second().await;
    let addresses = second.server.addresses;
    let endpoints = [addresses.agents, addresses.enroll].map(|address| address.to_string());
    let _agent = Agent::start(&host, endpoints);
    eventually("the agent to report", || async {
        let shown = second.get(&format!("/api/v1/hosts/{}", host.id)).await;
        (shown["liveness"] == "online").then_some(())
    })
    .await;
    // What it had queued before came through, and it says how it came back.
    eventually("the event", || async {
        let path = format!("/api/v1/hosts/{}/events", host.id);
        let events = second.get(&path).await;
        let kinds = events["items"].as_array()?.iter();
        kinds
            .map(|event| event["kind"].as_str())
            .any(|kind| kind == Some("certificate_renewed"))
            .then_some(())
    })
    .await;
    let kept = "select count(*) from events where host_id = $1 and kind = 'agent_start'";
    assert_eq!(second.count(kept, &host).await, 1);
    let gaps = "select count(*) from gaps where host_id = $1";
    assert_eq!(second.count(gaps, &host).await, 0);
    assert_eq!(certificates(&host, &second).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_certificate_expires_while_it_runs_returns_with_it() {
    let (collector, host) = short_lived(4).await;
    let second = collector.second().await;
    // Nobody listens there any more: reports and renewals fail until the certificate has expired.
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let enroll = second.server.addresses.enroll.to_string();
    let _agent = Agent::start(&host, [nobody, enroll]);
    let old = host.identity.current().unwrap();
    let new = eventually("a new certificate", || async {
        host.identity.next().ok().flatten()
    })
    .await;
    assert_eq!(new.host, old.host);
    assert!(new.not_after.0 > old.not_after.0 + 86_400_000);
}
