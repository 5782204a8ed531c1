//! Bodies that want to hurt: a 4xx that names the limit, nothing stored.

use http::StatusCode;
use infratrack_shared::codec;
use infratrack_shared::wire::batch::Batch;

use crate::harness::{Collector, part};

struct Case {
    name: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
    status: StatusCode,
    /// In the problem's detail.
    words: &'static str,
}

fn cases(good: &Batch, future: &Batch) -> Vec<Case> {
    let good = codec::encode(good).unwrap();
    let mut trailing = good.clone();
    trailing.push(0xc0);
    let mut items = vec![0xdd];
    items.extend(1_000_000_u32.to_be_bytes());
    items.resize(400_000, 0xc0);
    let zeros = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 3).unwrap();
    let huge = [0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0];
    let case = |name, encoding, body: &[u8], status, words| Case {
        name,
        encoding,
        body: body.to_vec(),
        status,
        words,
    };
    let (bad, large) = (StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE);
    let unsupported = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let future = codec::encode(future).unwrap();
    vec![
        case("depth", None, &vec![0x91; 500_000], bad, "deeper than 32"),
        case("lengths", None, &huge, bad, "ends in the middle"),
        case("items", None, &items, bad, "100000 items"),
        case("bomb", Some("zstd"), &zeros, large, "4194304 bytes"),
        case("trailing", None, &trailing, bad, "1 bytes trail"),
        case("too long", None, &vec![0; 600_000], large, "524288 bytes"),
        case("no zstd", Some("zstd"), &good, bad, "zstd"),
        case("gzip", Some("gzip"), &good, unsupported, "zstd"),
        case("future seq", None, &future, bad, "sequence number"),
        case("empty", None, &[], bad, "ends in the middle"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_is_refused_by_name_and_stores_nothing() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let good = Batch {
        parts: vec![part(&collector, &[1])],
        ..host.batch(&collector)
    };
    let future = Batch {
        parts: vec![part(&collector, &[u64::MAX])],
        ..good.clone()
    };
    for case in cases(&good, &future) {
        let headers: Vec<_> = case
            .encoding
            .map(|encoding| ("content-encoding", encoding))
            .into_iter()
            .collect();
        let (status, problem) = host.post(&collector, &headers, case.body).await;
        let detail = problem.detail.unwrap_or_default();
        assert_eq!(status, case.status, "{}: {detail}", case.name);
        assert!(detail.contains(case.words), "{}: {detail}", case.name);
    }
    for sql in [
        "select count(*) from events where host_id = $1",
        "select count(*) from agent_streams where host_id = $1",
        "select count(*) from dead_letters where host_id = $1",
    ] {
        assert_eq!(collector.count(sql, &host).await, 0, "{sql}");
    }
    let (status, _) = host
        .post(&collector, &[], codec::encode(&good).unwrap())
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_429_for_its_host_and_nobody_else() {
    let collector = Collector::start_with(|config| {
        config.ingest.host_batches_per_second = 1;
        config.ingest.host_batches_burst = 3;
    })
    .await;
    let (noisy, quiet) = (collector.host().await, collector.host().await);
    let mut refused = 0;
    for _ in 0..10 {
        let sent = noisy.send(&collector, &noisy.batch(&collector)).await;
        refused += i32::from(sent.is_err_and(|error| error.to_string().contains("429")));
    }
    assert!(refused >= 5, "{refused}");
    quiet
        .send(&collector, &quiet.batch(&collector))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_503_with_a_time_to_come_back() {
    let collector = Collector::start_with(|config| config.ingest.queue_bytes = 64).await;
    let host = collector.host().await;
    let sent = host.send(&collector, &host.batch(&collector)).await;
    let Err(infratrack_agent::uplink::UplinkError::Refused {
        status,
        retry_after,
        ..
    }) = sent
    else {
        panic!("must be refused: {sent:?}");
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(retry_after.is_some_and(|after| after.as_secs() >= 5));
}
