//! Bodies that want to hurt: a 4xx that names the limit, hardly any CPU or memory, nothing stored.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use infratrack_agent::identity::Identity;
use infratrack_agent::uplink::UplinkError;
use infratrack_collector::clock::Clock;
use infratrack_collector::postgres::private_connect_options;
use infratrack_shared::codec;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::batch::Batch;
use infratrack_testkit::postgres::reachable_tempdir;
use serde_json::Value;

use crate::demo::{Demo, manifest};
use crate::harness::{Collector, Host, enroll_at, eventually, part, part_at};

/// What one body may cost a collector: CPU time, and memory in bytes at its peak.
const CPU: Duration = Duration::from_millis(100);
const MEMORY: u64 = 16 * 1024 * 1024;

struct Case {
    name: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
    status: StatusCode,
    /// In the problem's detail.
    words: &'static str,
}

fn cases(good: &Batch) -> Vec<Case> {
    let future = Batch {
        parts: vec![part_at(good.sent_at, &[u64::MAX])],
        ..good.clone()
    };
    let future = codec::encode(&future).unwrap();
    let good = codec::encode(good).unwrap();
    let mut trailing = good.clone();
    trailing.push(0xc0);
    let mut items = vec![0xdd];
    items.extend(1_000_000_u32.to_be_bytes());
    items.resize(400_000, 0xc0);
    let mut all_items = items.clone();
    all_items.resize(1_000_005, 0xc0);
    let all_items = zstd::bulk::compress(&all_items, 3).unwrap();
    let depth = zstd::bulk::compress(&vec![0x91; 1_000_000], 3).unwrap();
    let zeros = zeros(1024);
    let (map, text) = (
        [0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0],
        [0xdb, 0xff, 0xff, 0xff, 0xff, 0xc0],
    );
    let case = |name, encoding, body: &[u8], status, words| Case {
        name,
        encoding,
        body: body.to_vec(),
        status,
        words,
    };
    let (bad, large) = (StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE);
    let unsupported = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    vec![
        case("depth", None, &vec![0x91; 500_000], bad, "deeper than 32"),
        case("all depth", Some("zstd"), &depth, bad, "deeper than 32"),
        case("map of 4 GiB", None, &map, bad, "ends in the middle"),
        case("text of 4 GiB", None, &text, bad, "65536"),
        case("items", None, &items, bad, "100000 items"),
        case("all items", Some("zstd"), &all_items, bad, "100000 items"),
        case(
            "1 GiB of zeros",
            Some("zstd"),
            &zeros,
            large,
            "4194304 bytes",
        ),
        case("trailing", None, &trailing, bad, "1 bytes trail"),
        case("too long", None, &vec![0; 600_000], large, "524288 bytes"),
        case("no zstd", Some("zstd"), &good, bad, "zstd"),
        case("gzip", Some("gzip"), &good, unsupported, "zstd"),
        case("future seq", None, &future, bad, "sequence number"),
        case("empty", None, &[], bad, "ends in the middle"),
        case("replay", None, &good, StatusCode::OK, ""),
    ]
}

/// So many MiB of zeros, compressed.
fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let chunk = vec![0; 1024 * 1024];
    for _ in 0..mebibytes {
        encoder.write_all(&chunk).unwrap();
    }
    encoder.finish().unwrap()
}

/// A running process's CPU time and memory, as the kernel counts them (proc(5)).
struct Cost {
    pid: u32,
}

impl Cost {
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        let of = |task: std::fs::DirEntry| -> Option<u64> {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(tasks.flatten().filter_map(of).sum())
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Has the kernel forget the peak, so that the next one is what comes from here on.
    fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
    }
}

fn address(manifest: &Value, key: &str) -> SocketAddr {
    let url = manifest[key].as_str().unwrap();
    url.strip_prefix("https://").unwrap().parse().unwrap()
}

async fn host(manifest: &Value) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    let token: EnrollToken = manifest["enroll_token"].as_str().unwrap().parse().unwrap();
    enroll_at(address(manifest, "enroll_url"), &identity, &token)
        .await
        .unwrap();
    Host::of(identity, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_is_refused_by_name_costs_little_and_stores_nothing() {
    let dir = reachable_tempdir().unwrap();
    let demo = Demo::start(dir.path(), [0; 3]);
    let manifest = manifest(dir.path()).await;
    let agents = address(&manifest, "agent_url");
    let host = host(&manifest).await;
    let at = Clock::system().unix_millis();
    let good = Batch {
        parts: vec![part_at(at, &[1])],
        ..host.batch_at(at)
    };
    let bytes = codec::encode(&good).unwrap();
    let (status, _) = host.post(agents, &[], bytes).await;
    assert_eq!(status, StatusCode::OK);
    let cost = Cost { pid: demo.pid() };
    for case in cases(&good) {
        let headers: Vec<_> = case
            .encoding
            .map(|encoding| ("content-encoding", encoding))
            .into_iter()
            .collect();
        cost.forget_peak();
        let (cpu, memory) = (cost.cpu(), cost.memory("VmRSS:"));
        let (status, problem) = host.post(agents, &headers, case.body).await;
        let (cpu, peak) = (cost.cpu().saturating_sub(cpu), cost.memory("VmHWM:"));
        let detail = problem.detail.unwrap_or_default();
        assert_eq!(status, case.status, "{}: {detail}", case.name);
        assert!(detail.contains(case.words), "{}: {detail}", case.name);
        assert!(cpu <= CPU, "{}: {cpu:?}", case.name);
        let more = peak.saturating_sub(memory);
        assert!(more <= MEMORY, "{}: {more} bytes more", case.name);
    }
    let options = private_connect_options(dir.path()).await.unwrap();
    let pool = sqlx::PgPool::connect_with(options).await.unwrap();
    for (sql, rows) in [
        (
            "select count(*) from events where host_id = $1 and seq is not null",
            1,
        ),
        ("select count(*) from agent_streams where host_id = $1", 1),
        ("select count(*) from dead_letters where host_id = $1", 0),
        ("select count(*) from gaps where host_id = $1", 0),
    ] {
        let count: i64 = sqlx::query_scalar(sql)
            .bind(host.id.0)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(count, rows, "{sql}");
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_names_another_host_says_nothing_about_it() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let batch = Batch {
        parts: vec![part(&collector, &[1])],
        ..host.batch(&collector)
    };
    let mut named = codec::to_value(&batch).unwrap();
    let rmpv::Value::Map(fields) = &mut named else {
        panic!("a batch is a map")
    };
    for field in ["host", "host_id"] {
        fields.push((field.into(), other.id.to_string().into()));
    }
    let bytes = codec::encode(&named).unwrap();
    let agents = collector.server.addresses.agents;
    assert_eq!(host.post(agents, &[], bytes).await.0, StatusCode::OK);
    let sql = "select count(*) from events where host_id = $1 and seq is not null";
    assert_eq!(collector.count(sql, &host).await, 1);
    assert_eq!(collector.count(sql, &other).await, 0);
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
    let Err(UplinkError::Refused {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_so_many_requests_refuses_the_next_and_stores_what_it_took() {
    let collector = Collector::start_with(|config| {
        config.ingest.writers = 1;
        config.ingest.queue_requests = 2;
        config.ingest.flush_rows = 1;
    })
    .await;
    let mut hosts = Vec::new();
    for _ in 0..8 {
        hosts.push(collector.host().await);
    }
    // The writer waits for this lock: what comes meanwhile has to wait in the queue.
    let mut locked = collector.pool.begin().await.unwrap();
    sqlx::query("lock table agent_streams in access exclusive mode")
        .execute(&mut *locked)
        .await
        .unwrap();
    let sends = hosts.iter().map(|host| async {
        let mut batch = host.batch(&collector);
        batch.parts = vec![part(&collector, &[1])];
        host.send(&collector, &batch).await
    });
    let unlock = async {
        eventually("the queue to be full", || async {
            let load = collector.server.app.writers.load();
            (load >= 1.0).then_some(())
        })
        .await;
        // Held on until the last one has come and found no room.
        let last = hosts.last().unwrap();
        eventually("a refusal", || async {
            let sent = last.send(&collector, &last.batch(&collector)).await;
            sent.is_err().then_some(())
        })
        .await;
        locked.rollback().await.unwrap();
    };
    let (sent, ()) = tokio::join!(futures_util::future::join_all(sends), unlock);
    let refused = sent.iter().filter(|sent| sent.is_err()).count();
    assert!((1..hosts.len()).contains(&refused), "{sent:?}");
    for (host, sent) in hosts.iter().zip(sent) {
        let stored = i64::from(sent.is_ok());
        if let Err(UplinkError::Refused { status, .. }) = &sent {
            assert_eq!(*status, StatusCode::SERVICE_UNAVAILABLE);
        }
        let sql = "select count(*) from events where host_id = $1 and seq is not null";
        assert_eq!(collector.count(sql, host).await, stored, "{sent:?}");
    }
}
