//! The agent's own reporter against a collector that refuses: nothing good is given up for what is bad.

use std::time::Duration;

use infratrack_agent::clock::Clock;
use infratrack_agent::reporter::{Report, Reporter};
use infratrack_agent::spool::{NewRecord, Spool};
use infratrack_shared::digest::Digest;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Body, Class, StatePart};

use crate::harness::{Collector, Host};

fn reporter(host: &Host, collector: &Collector) -> Reporter {
    let clock = collector.clock.clock();
    let clock = Clock::from_fn(move || clock.unix_millis());
    let spool = Spool::in_memory(clock.now());
    Reporter::new(spool, clock, host.instance, host.boot_id)
}

fn record(host: &Host, kind: String, at: UnixMillis) -> NewRecord {
    NewRecord {
        at,
        mono_ms: 0,
        boot_id: host.boot_id,
        kind,
        body: Body::Event(1.into()),
    }
}

fn state(key: String) -> StatePart {
    let new_hash = Digest::of(key.as_bytes());
    StatePart {
        key,
        version: 7,
        base_hash: None,
        new_hash,
        part: 0,
        parts: 1,
        body: 1.into(),
    }
}

/// Reports as the run loop does until the spool is empty and each state is stored or refused.
async fn drain(
    reporter: &mut Reporter,
    host: &Host,
    collector: &Collector,
    mut open: Vec<StatePart>,
) -> Vec<String> {
    let mut all_refused = Vec::new();
    for _ in 0..40 {
        let heartbeat = Some(host.heartbeat(collector));
        let report = Report {
            state: open.clone(),
            heartbeat,
            wait: Duration::ZERO,
            ..Report::default()
        };
        let mut connection = host.connect(collector).await;
        let sent = reporter.report(&mut connection, report).await;
        let stored = sent.map(|reported| reported.ack.state).unwrap_or_default();
        let refused = reporter.take_refused_state();
        all_refused.extend(refused.into_iter().map(|(key, _)| key));
        open.retain(|part| {
            !all_refused.contains(&part.key) && stored.iter().all(|s| s.key != part.key)
        });
        if open.is_empty() && reporter.spool.usage().critical_records == 0 {
            return all_refused;
        }
    }
    panic!("not drained: {open:?}, {:?}", reporter.spool.usage());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_fact_costs_no_record_and_no_other_fact() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut reporter = reporter(&host, &collector);
    let at = reporter.clock.now();
    let kinds = ["a", "b", "c", "d", "e"].map(str::to_owned);
    let good = kinds
        .iter()
        .map(|kind| record(&host, kind.clone(), at))
        .collect();
    reporter.spool.append(Class::Critical, good).await.unwrap();
    // A name over the limit: the whole batch is refused, without a word on which part of it.
    let states = vec![state("facts.good".to_owned()), state("k".repeat(200))];
    let refused = drain(&mut reporter, &host, &collector, states).await;
    assert_eq!(refused, ["k".repeat(200)]);
    let sql = "select count(*) from events where host_id = $1 and seq is not null";
    assert_eq!(collector.count(sql, &host).await, 5);
    let gaps = "select count(*) from gaps where host_id = $1";
    assert_eq!(collector.count(gaps, &host).await, 0);
    let facts = collector
        .get(&format!("/api/v1/hosts/{}/facts", host.id))
        .await;
    assert_eq!(facts["items"][0]["key"], "facts.good");
}
