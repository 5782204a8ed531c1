//! Certificates in use: renewal, revocation, and what no certificate may do.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use infratrack_agent::identity::Identity;
use infratrack_agent::uplink::{Connection, UplinkError};
use infratrack_shared::wire::enroll::{RenewRequest, RenewResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use infratrack_testkit::proxy::{Fault, Proxy};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Collector, Host, eventually, refusal, send};

async fn renew(host: &Host, collector: &Collector) -> RenewResponse {
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr: ByteBuf::from(host.identity.request().unwrap()),
        instance: Some(host.instance),
    };
    let mut connection = host.connect(collector).await;
    connection.call(path::RENEW, &request).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_renewal_is_answered_again_and_both_pairs_work_until_one_is_promoted() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let first = renew(&host, &collector).await;
    let again = renew(&host, &collector).await;
    assert_eq!(first.chain, again.chain);
    host.identity.store_next(&again.chain).unwrap();
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
    host.identity.promote_next().unwrap();
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
    let certs = collector
        .count("select count(*) from agent_certs where host_id = $1", &host)
        .await;
    assert_eq!(certs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_is_cut_on_the_wire_is_answered_again_with_the_same_certificate() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let proxy = Proxy::start(collector.server.addresses.agents)
        .await
        .unwrap();
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr: ByteBuf::from(host.identity.request().unwrap()),
        instance: None,
    };
    let certs = "select count(*) from agent_certs where host_id = $1";
    for _ in 0..10 {
        proxy.set(Fault::None);
        let endpoint = host.endpoint_at(proxy.address());
        let mut connection = Connection::open(&endpoint).await.unwrap();
        proxy.set(Fault::Truncate(0));
        let cut: Result<(_, RenewResponse), _> = connection.call(path::RENEW, &request).await;
        assert!(matches!(cut, Err(UplinkError::Broken(_))), "{cut:?}");
        let issued = eventually("the certificate", || async {
            let count = collector.count(certs, &host).await;
            (count > 1).then_some(count)
        });
        assert_eq!(issued.await, 2);
    }
    assert!(proxy.fired() >= 10);
    let renewed = renew(&host, &collector).await;
    host.identity.store_next(&renewed.chain).unwrap();
    host.identity.promote_next().unwrap();
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
    assert_eq!(collector.count(certs, &host).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_of_a_renewal_leaves_a_pair_that_works() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let dir = host.dir.path();
    let works = |identity: Identity| {
        let host = Host::of(identity, tempfile::tempdir().unwrap());
        let collector = &collector;
        async move { host.send(collector, &host.batch(collector)).await.unwrap() }
    };
    // The key is made; asked; stored; in place: after each, the process starts anew.
    host.identity.request().unwrap();
    works(Identity::open(dir).unwrap()).await;
    let renewed = renew(&host, &collector).await;
    works(Identity::open(dir).unwrap()).await;
    Identity::open(dir)
        .unwrap()
        .store_next(&renewed.chain)
        .unwrap();
    works(Identity::open(dir).unwrap()).await;
    Identity::open(dir).unwrap().promote_next().unwrap();
    works(Identity::open(dir).unwrap()).await;
    let leaf = renewed.chain[0].as_slice();
    assert_eq!(
        Identity::open(dir).unwrap().current().unwrap().chain[0].as_ref(),
        leaf
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_is_out_within_5_s_on_open_connections_of_every_collector() {
    let first = Collector::start().await;
    let second = first.second().await;
    let host = first.host().await;
    let mut batch = host.batch(&first);
    batch.heartbeat = Some(host.heartbeat(&first));
    batch.wait_ms = 60_000;
    let mut held = host.connect(&first).await;
    let (_, mut answer) = send(&mut held, &batch).await.unwrap();
    batch.wait_ms = 0;
    let mut idle = host.connect(&second).await;
    send(&mut idle, &batch)
        .await
        .unwrap()
        .1
        .next_frame()
        .await
        .unwrap();
    let (status, revoked) = first
        .api(
            http::Method::POST,
            &format!("/api/v1/hosts/{}/revoke", host.id),
            "",
        )
        .await;
    assert_eq!(
        (status, &revoked["revoked"]),
        (StatusCode::OK, &serde_json::json!(1))
    );
    let revoked_at = tokio::time::Instant::now();
    // The held answer ends by itself.
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        while let Ok(Some(_)) = answer.next_frame().await {}
    });
    ended
        .await
        .expect("the held answer of a revoked host ends within 5 s");
    for mut connection in [held, idle] {
        let refused = loop {
            match send(&mut connection, &batch).await {
                Ok((_, mut answer)) => {
                    assert!(
                        revoked_at.elapsed() < Duration::from_secs(5),
                        "still let in"
                    );
                    answer.next_frame().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => break refusal(Err(error)),
            }
        };
        assert_eq!(
            refused,
            (StatusCode::FORBIDDEN, "certificate_revoked".to_owned())
        );
    }
    for collector in [&first, &second] {
        let refused = refusal(host.send(collector, &batch).await);
        assert_eq!(refused.0, StatusCode::FORBIDDEN);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_in_the_list_is_refused() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    sqlx::query("delete from agent_certs")
        .execute(&collector.pool)
        .await
        .unwrap();
    let refused = refusal(host.send(&collector, &host.batch(&collector)).await);
    assert_eq!(
        refused,
        (StatusCode::UNAUTHORIZED, "certificate_unknown".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_host_cannot_be_renewed_into() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let csr = ByteBuf::from(host.identity.request().unwrap());
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr,
        instance: None,
    };
    let mut connection = host.connect(&collector).await;
    let _: (_, RenewResponse) = connection.call(path::RENEW, &request).await.unwrap();
    let mut connection = other.connect(&collector).await;
    let stolen: Result<(_, RenewResponse), _> = connection.call(path::RENEW, &request).await;
    let Err(UplinkError::Refused {
        status, problem, ..
    }) = stolen
    else {
        panic!("must be refused")
    };
    assert_eq!(
        (status, problem.code.as_str()),
        (StatusCode::BAD_REQUEST, "csr_invalid")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_listener_resumes_no_session_and_speaks_to_nobody_without_a_certificate() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let endpoint = host.endpoint(&collector);
    let mut config = (*endpoint.tls).clone();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _ in 0..2 {
        let stream = tokio::net::TcpStream::connect(&endpoint.address)
            .await
            .unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let mut stream = connector
            .connect(endpoint.name.clone(), stream)
            .await
            .unwrap();
        // A ticket would come with the first bytes.
        stream
            .write_all(b"POST /nothing HTTP/1.1\r\nhost: c\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 404");
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
    let mut stranger = Connection::open(&infratrack_agent::uplink::Endpoint {
        tls: Arc::new(infratrack_agent::tls::pinned(collector.pin()).unwrap().0),
        ..endpoint
    })
    .await;
    // TLS 1.3: the refusal may come with the first read.
    if let Ok(connection) = &mut stranger {
        let result = send(connection, &host.batch(&collector)).await;
        assert!(matches!(result, Err(UplinkError::Broken(_))), "{result:?}");
    }
}
