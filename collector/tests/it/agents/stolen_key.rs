//! A host's key in other hands, and a certificate that was revoked: what they can do, and who hears of it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use infratrack_agent::tls;
use infratrack_agent::uplink::{Connection, Endpoint};
use infratrack_shared::wire::batch::Batch;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::agents::rotation::{copy, renew};
use crate::harness::{Collector, Host, eventually, refusal, send};

/// The order of P-256's group.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// ecdsa-with-SHA256, as an algorithm identifier.
const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

async fn beat(
    host: &Host,
    collector: &Collector,
) -> Result<(), infratrack_agent::uplink::UplinkError> {
    let mut batch = host.batch(collector);
    batch.heartbeat = Some(host.heartbeat(collector));
    host.send(collector, &batch).await.map(drop)
}

/// Refused as revoked, within the time that it takes where nobody was told.
async fn refused_soon(endpoint: &Endpoint, batch: &Batch) {
    let since = Instant::now();
    let refused = loop {
        let mut connection = Connection::open(endpoint).await.unwrap();
        match send(&mut connection, batch).await {
            Ok((_, mut answer)) => drop(answer.next_frame().await.unwrap()),
            Err(error) => break refusal(Err(error)),
        }
        assert!(since.elapsed() < Duration::from_secs(10), "still let in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        refused,
        (StatusCode::FORBIDDEN, "certificate_revoked".to_owned())
    );
}

async fn conflicts(collector: &Collector, host: &Host) -> i64 {
    let sql = "select count(*) from events where host_id = $1 and kind = 'identity_conflict'";
    collector.count(sql, host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_key_that_renews_is_a_conflict_of_its_host_and_of_no_other() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    beat(&host, &collector).await.unwrap();
    beat(&other, &collector).await.unwrap();
    let stolen = copy(&host);
    assert_ne!(stolen.instance, host.instance);
    renew(&stolen, &collector).await;
    beat(&stolen, &collector).await.unwrap();
    assert_eq!(
        conflicts(&collector, &host).await,
        0,
        "it may have restarted"
    );
    // The rightful one speaks again: there are two.
    let _ = beat(&host, &collector).await;
    eventually("the conflict", || async {
        (conflicts(&collector, &host).await == 1).then_some(())
    })
    .await;
    beat(&other, &collector).await.unwrap();
    assert_eq!(conflicts(&collector, &other).await, 0);
    let certificates = "select count(*) from agent_certs where host_id = $1";
    assert_eq!(collector.count(certificates, &other).await, 1);
    assert_eq!(collector.count(certificates, &host).await, 2);
    // And both certificates of the host can be told apart and taken back.
    let path = format!("/api/v1/hosts/{}/revoke", host.id);
    let (status, revoked) = collector.api(http::Method::POST, &path, "").await;
    assert_eq!((status, &revoked["revoked"]), (StatusCode::OK, &2.into()));
    for either in [&stolen, &host] {
        refused_soon(&either.endpoint(&collector), &either.batch(&collector)).await;
    }
    beat(&other, &collector).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_whose_notification_is_lost_holds_within_10_s() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut open = host.connect(&collector).await;
    let batch = host.batch(&collector);
    send(&mut open, &batch)
        .await
        .unwrap()
        .1
        .next_frame()
        .await
        .unwrap();
    // As another collector does it, without telling.
    sqlx::query("update agent_certs set revoked_at = $2 where host_id = $1")
        .bind(host.id.0)
        .bind(collector.clock.now())
        .execute(&collector.pool)
        .await
        .unwrap();
    refused_soon(&host.endpoint(&collector), &batch).await;
    let refused = refusal(send(&mut open, &batch).await.map(|(ack, _)| ack));
    assert_eq!(refused.1, "certificate_revoked");
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => {
            out.push(0x82);
            out.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// A positive number.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let significant = bytes.iter().position(|byte| *byte != 0).unwrap();
    let mut content = bytes[significant..].to_vec();
    if content[0] >= 0x80 {
        content.insert(0, 0);
    }
    der(0x02, &content)
}

/// Big-endian, of 32 bytes.
fn order_less(number: &[u8]) -> [u8; 32] {
    let mut left = ORDER;
    let mut borrow = 0;
    for (place, digit) in left
        .iter_mut()
        .rev()
        .zip(number.iter().rev().chain(std::iter::repeat(&0)))
    {
        let difference = i16::from(*place) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        *place = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    left
}

/// The same certificate with other bytes: where (r, s) is a signature, (r, n - s) is one too.
fn altered(certificate: &[u8]) -> CertificateDer<'static> {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let signature = &parsed.signature_value.data;
    let r_end = 4 + usize::from(signature[3]);
    let (r, s) = (&signature[4..r_end], &signature[r_end + 2..]);
    let s: Vec<u8> = s.iter().copied().skip_while(|byte| *byte == 0).collect();
    let numbers = [integer(r), integer(&order_less(&s))].concat();
    let bits = [vec![0], der(0x30, &numbers)].concat();
    let parts = [
        parsed.tbs_certificate.as_ref(),
        &ECDSA_SHA256,
        &der(0x03, &bits),
    ];
    let altered = der(0x30, &parts.concat());
    assert_ne!(altered, certificate);
    altered.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_with_another_valid_signature_is_revoked_too() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut pair = host.identity.current().unwrap();
    pair.chain[0] = altered(&pair.chain[0]);
    let endpoint = Endpoint {
        tls: Arc::new(tls::mutual(&host.identity.roots().unwrap(), pair).unwrap()),
        ..host.endpoint(&collector)
    };
    let batch = host.batch(&collector);
    let mut connection = Connection::open(&endpoint).await.unwrap();
    let (_, mut answer) = send(&mut connection, &batch)
        .await
        .expect("it is a valid one");
    answer.next_frame().await.unwrap();
    let path = format!("/api/v1/hosts/{}/revoke", host.id);
    collector.api(http::Method::POST, &path, "").await;
    refused_soon(&endpoint, &batch).await;
}
