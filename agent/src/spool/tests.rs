//! What the tests of the spool share: records, budgets, and the ways a run can end.

mod damage;
mod disk;
mod full;
mod model;
mod order;
mod space;

use std::path::Path;

use infratrack_shared::ids::{BootId, StreamId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::{Cursor, Expected};
use infratrack_shared::wire::batch::{Body, Class, Lost, LostReason, Part};

use super::{Budget, NewRecord, OpenReport, Outgoing, Spool, SpoolConfig};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const ALL: Budget = Budget {
    records: usize::MAX,
    bytes: usize::MAX,
    items: usize::MAX,
};

fn boot() -> BootId {
    BootId::default()
}

/// A record that says `text`.
fn said(text: &str) -> NewRecord {
    NewRecord {
        at: NOW,
        mono_ms: 7,
        boot_id: boot(),
        kind: "test".to_owned(),
        body: Body::Event(text.into()),
    }
}

fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<NewRecord> {
    numbers
        .into_iter()
        .map(|number| said(&number.to_string()))
        .collect()
}

fn texts(part: &Part) -> Vec<String> {
    let bodies = part.records.iter().map(|record| match &record.body {
        Body::Event(body) => body.as_str().unwrap_or_default().to_owned(),
        Body::Heartbeat(heartbeat) => heartbeat.n.to_string(),
    });
    bodies.collect()
}

fn seqs(part: &Part) -> Vec<u64> {
    part.records.iter().map(|record| record.seq).collect()
}

fn lost(from: u64, to: u64, reason: LostReason) -> Lost {
    Lost { from, to, reason }
}

async fn next(spool: &Spool) -> Option<Outgoing> {
    spool.next(ALL, boot()).await.expect("next works")
}

/// The one part of what is next.
async fn next_part(spool: &Spool) -> Part {
    let outgoing = next(spool).await.expect("something is next");
    let [part] = <[Part; 1]>::try_from(outgoing.parts).expect("one class is next");
    part
}

async fn acknowledge(spool: &Spool, class: Class, acked_seq: u64, now: UnixMillis) {
    let cursor = cursor(spool.stream(), class, acked_seq);
    let done = spool.acknowledge(&[cursor], now).await.expect("it works");
    assert!(done.forked.is_empty());
}

fn cursor(stream: StreamId, class: Class, acked_seq: u64) -> Cursor {
    Cursor {
        stream,
        class,
        acked_seq,
    }
}

fn expected(stream: StreamId, class: Class, seq: u64) -> Expected {
    Expected { stream, class, seq }
}

async fn open(dir: &Path) -> (Spool, OpenReport) {
    let opened = Spool::open(SpoolConfig::new(dir), NOW).await;
    opened.expect("a spool always opens")
}
