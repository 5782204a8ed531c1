//! First contact: a token, a key, one host.

use std::sync::Arc;

use http::StatusCode;
use infratrack_agent::enroll::EnrollError;
use infratrack_agent::identity::Identity;
use infratrack_agent::tls;
use infratrack_agent::uplink::{Connection, Endpoint, UplinkError};
use infratrack_collector::agents::enroll::TokenOptions;
use infratrack_shared::ids::BootId;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::enroll::{EnrollRequest, EnrollResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use serde_bytes::ByteBuf;
use time::Duration;

use crate::harness::Collector;

fn identity() -> (Identity, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Identity::open(dir.path()).unwrap(), dir)
}

async fn hosts(collector: &Collector) -> i64 {
    sqlx::query_scalar("select count(*) from hosts")
        .fetch_one(&collector.pool)
        .await
        .unwrap()
}

fn refused(result: Result<infratrack_shared::ids::HostId, EnrollError>) -> String {
    match result {
        Err(EnrollError::Refused(detail)) => detail,
        other => panic!("must be refused: {other:?}"),
    }
}

/// One request as the agent sends it, without storing the answer: as if it were lost.
async fn ask(collector: &Collector, identity: &Identity, token: &EnrollToken) -> EnrollResponse {
    let (config, _) = tls::pinned(*token.pin()).unwrap();
    let endpoint = Endpoint {
        address: collector.server.addresses.enroll.to_string(),
        name: tls::server_name("infratrack").unwrap(),
        tls: Arc::new(config),
    };
    let request = EnrollRequest {
        protocol: PROTOCOL,
        token: token.reveal(),
        csr: ByteBuf::from(identity.request().unwrap()),
        hostname: "lost".to_owned(),
        boot_id: BootId::random(),
        agent_version: "test".to_owned(),
        machine_id: None,
    };
    let mut connection = Connection::open(&endpoint).await.unwrap();
    let (status, response) = connection.call(path::ENROLL, &request).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_burns_no_use_and_makes_no_second_host() {
    let collector = Collector::start().await;
    let token = collector.token(TokenOptions::default()).await;
    let (identity, _dir) = identity();
    let first = ask(&collector, &identity, &token).await;
    let again = ask(&collector, &identity, &token).await;
    assert_eq!(first.host_id, again.host_id);
    assert_eq!(first.chain, again.chain);
    let host = collector.enroll(&identity, &token).await.unwrap();
    assert_eq!(host, first.host_id);
    assert_eq!(hosts(&collector).await, 1);
    let uses: i32 = sqlx::query_scalar("select uses from enroll_tokens")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(uses, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_expired_or_misplaced_token_is_refused_with_one_answer() {
    let collector = Collector::start().await;
    let used = collector.token(TokenOptions::default()).await;
    let (first, _dir) = identity();
    collector.enroll(&first, &used).await.unwrap();
    let elsewhere = TokenOptions {
        cidr: Some("10.9.8.0/24".parse().unwrap()),
        ..TokenOptions::default()
    };
    let named = TokenOptions {
        hostname_pattern: Some("web-*".to_owned()),
        ..TokenOptions::default()
    };
    let short = TokenOptions {
        lifetime: Duration::seconds(5),
        ..TokenOptions::default()
    };
    let tokens = [
        used,
        collector.token(elsewhere).await,
        collector.token(named).await,
        collector.token(short).await,
        EnrollToken::new([7; 9], [7; 32], collector.pin()),
    ];
    collector.clock.advance(Duration::seconds(10));
    let mut answers = Vec::new();
    for token in &tokens {
        let (identity, _dir) = identity();
        answers.push(refused(collector.enroll(&identity, token).await));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(hosts(&collector).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_without_the_pinned_root_is_not_spoken_to() {
    let collector = Collector::start().await;
    let token = collector.token(TokenOptions::default()).await;
    let text = token.reveal();
    let mut parts: Vec<&str> = text.split('.').collect();
    let other = EnrollToken::new([0; 9], [0; 32], [9; 32]).reveal();
    parts[2] = other.split('.').next_back().unwrap();
    let wrong: EnrollToken = parts.join(".").parse().unwrap();
    let (identity, _dir) = identity();
    let result = collector.enroll(&identity, &wrong).await;
    let Err(EnrollError::Uplink { source, .. }) = result else {
        panic!("must fail: {result:?}")
    };
    assert!(matches!(*source, UplinkError::Tls { .. }), "{source:?}");
    let uses: i32 = sqlx::query_scalar("select uses from enroll_tokens")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(uses, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_several_hosts_counts_its_uses_under_a_rush() {
    let collector = Arc::new(Collector::start().await);
    let token = collector
        .token(TokenOptions {
            max_uses: 3,
            ..TokenOptions::default()
        })
        .await;
    let tries = (0..8).map(|_| {
        let (collector, token) = (Arc::clone(&collector), token.clone());
        tokio::spawn(async move {
            let (identity, _dir) = identity();
            collector.enroll(&identity, &token).await.is_ok()
        })
    });
    let mut enrolled = 0;
    for attempt in tries.collect::<Vec<_>>() {
        enrolled += i64::from(attempt.await.unwrap());
    }
    assert_eq!(enrolled, 3);
    assert_eq!(hosts(&collector).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_waited_for_and_the_same_request_then_succeeds() {
    let collector = Collector::start().await;
    let options = TokenOptions {
        approval_required: true,
        ..TokenOptions::default()
    };
    let token = collector.token(options).await;
    let (identity, _dir) = identity();
    let enrolling = collector.enroll(&identity, &token);
    let path = format!("/api/v1/enroll-tokens/{}/approve", token.id());
    let approving = crate::harness::eventually("a request to approve", || async {
        let (_, answer) = collector.api(http::Method::POST, &path, "").await;
        (answer["approved"] == 1).then_some(())
    });
    let (host, ()) = tokio::join!(enrolling, approving);
    assert_eq!(identity.current().unwrap().host, host.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolling_again_with_a_key_that_is_in_use_keeps_the_host() {
    let collector = Collector::start().await;
    let (identity, _dir) = identity();
    let first = ask(
        &collector,
        &identity,
        &collector.token(TokenOptions::default()).await,
    )
    .await;
    let second = ask(
        &collector,
        &identity,
        &collector.token(TokenOptions::default()).await,
    )
    .await;
    assert_eq!(first.host_id, second.host_id);
    assert_ne!(first.chain, second.chain);
    assert_eq!(hosts(&collector).await, 1);
}
