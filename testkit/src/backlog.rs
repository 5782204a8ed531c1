//! What a long outage costs a host: a backlog is queued, then drained as a collector would; and what a long
//! life costs it: heartbeats without end.
//!
//! Runs in a process of its own, because memory is measured for the whole process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use infratrack_agent::collect::{HeartbeatSource, Root};
use infratrack_agent::spool::{Budget, NewRecord, Spool, SpoolConfig};
use infratrack_shared::ids::BootId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::Cursor;
use infratrack_shared::wire::batch::{Body, Class};
use infratrack_shared::wire::heartbeat::Heartbeat;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::bench::agent::usage::{Usage, measure};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// More than any backlog here: it is not the quota that is measured.
const QUOTA_BYTES: u64 = 4 << 30;
const APPENDED_AT_ONCE: u64 = 100;
/// The collector is away for so many heartbeats of so many.
const AWAY: u64 = 4_000;
const AWAY_OF: u64 = 20_000;
/// Between two looks at memory.
const LOOK: u64 = 500;
/// How long the store may be idle here, where a day passes in seconds.
const IDLE: Duration = Duration::from_secs(1);
/// How long it may take to close.
const REST: Duration = Duration::from_secs(30);
/// What the agent sends in one batch.
const BATCH: Budget = Budget {
    records: 500,
    bytes: 2 << 20,
    items: 50_000,
};

/// What it took. Memory is the process's resident set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Took {
    pub full_disk_bytes: u64,
    pub drained_disk_bytes: u64,
    pub full_rss_bytes: u64,
    pub drained_rss_bytes: u64,
    /// The most there ever was.
    pub peak_rss_bytes: u64,
}

/// Queues `records` of `bytes` each in `directory`, sends and acknowledges all of them.
pub async fn run(directory: &Path, records: u64, bytes: usize) -> anyhow::Result<Took> {
    let config = SpoolConfig {
        quota_bytes: QUOTA_BYTES,
        ..SpoolConfig::new(directory)
    };
    let (spool, _) = Spool::open(config, NOW).await?;
    let mut appended = 0;
    while appended < records {
        let count = APPENDED_AT_ONCE.min(records - appended);
        let batch = (0..count).map(|_| record(bytes)).collect();
        spool.append(Class::Critical, batch).await?;
        appended += count;
    }
    let full_disk_bytes = size_on_disk(directory)?;
    let full_rss_bytes = memory("VmRSS")?;
    let mut sent = 0;
    while let Some(count) = send(&spool).await? {
        sent += count;
    }
    ensure!(sent == records, "{sent} of {records} records were sent");
    Ok(Took {
        full_disk_bytes,
        drained_disk_bytes: size_on_disk(directory)?,
        full_rss_bytes,
        drained_rss_bytes: memory("VmRSS")?,
        peak_rss_bytes: memory("VmHWM")?,
    })
}

/// Memory in the course of a life: of this process while its store is idle, and the most of it with the store's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lived {
    pub heartbeats: u64,
    /// After a tenth of them, when all that is kept is there.
    pub early_rss_bytes: u64,
    pub late_rss_bytes: u64,
    pub early_pss_bytes: u64,
    pub late_pss_bytes: u64,
    pub peak_pss_bytes: u64,
    pub disk_bytes: u64,
}

/// Takes `count` heartbeats of this host as fast as it can. For a fifth of the time the collector is away,
/// longer than the ring holds; then it takes everything.
/// `program` has the store, as in the agent.
pub async fn live(directory: &Path, count: u64, program: PathBuf) -> anyhow::Result<Lived> {
    let config = SpoolConfig {
        program: Some(program),
        idle: IDLE,
        ..SpoolConfig::new(directory)
    };
    let (spool, _) = Spool::open(config, NOW).await?;
    let mut source = HeartbeatSource::new(Root::default());
    let mut early = Usage::default();
    let mut peak_pss_bytes = 0;
    for beat in 0..count {
        let base = Heartbeat {
            stream: spool.stream(),
            n: spool.heartbeat_number().await?,
            at: NOW,
            spool: spool.usage(),
            ..Heartbeat::default()
        };
        let heartbeat = source.collect(base).await;
        let is_away = beat % AWAY_OF < AWAY;
        if is_away {
            let kept = NewRecord {
                at: NOW,
                mono_ms: heartbeat.mono_ms,
                boot_id: BootId::default(),
                kind: Heartbeat::KIND.to_owned(),
                body: Body::Heartbeat(Box::new(heartbeat)),
            };
            spool.append(Class::Beat, vec![kept]).await?;
        } else {
            send(&spool).await?;
        }
        if beat == count / 10 {
            early = at_rest(&spool).await?;
        }
        if beat % LOOK == 0 {
            peak_pss_bytes = measure(std::process::id())?.pss_bytes.max(peak_pss_bytes);
        }
    }
    let late = at_rest(&spool).await?;
    Ok(Lived {
        heartbeats: count,
        early_rss_bytes: early.rss_bytes,
        late_rss_bytes: late.rss_bytes,
        early_pss_bytes: early.pss_bytes,
        late_pss_bytes: late.pss_bytes,
        peak_pss_bytes,
        disk_bytes: size_on_disk(directory)?,
    })
}

/// Waits until the store's process has ended. The spool looks for idleness when it is asked for something.
async fn at_rest(spool: &Spool) -> anyhow::Result<Usage> {
    let deadline = Instant::now() + REST;
    loop {
        spool.heartbeat_number().await?;
        let usage = measure(std::process::id())?;
        if usage.processes == 1 {
            return Ok(usage);
        }
        ensure!(Instant::now() < deadline, "the store does not rest");
        sleep(IDLE / 4).await;
    }
}

/// Sends one batch and acknowledges it; answers how many records it had, `None` where nothing is left.
async fn send(spool: &Spool) -> anyhow::Result<Option<u64>> {
    let Some(outgoing) = spool.next(BATCH, BootId::default()).await? else {
        return Ok(None);
    };
    let mut sent = 0;
    let mut cursors = Vec::new();
    for part in outgoing.parts {
        sent += part.records.len() as u64;
        let record = part.records.last().map(|record| record.seq);
        let lost = part.lost.last().map(|lost| lost.to);
        cursors.push(Cursor {
            stream: outgoing.stream,
            class: part.class,
            acked_seq: record.max(lost).context("an empty part")?,
        });
    }
    spool.acknowledge(&cursors, NOW).await?;
    Ok(Some(sent))
}

fn record(bytes: usize) -> NewRecord {
    NewRecord {
        at: NOW,
        mono_ms: 0,
        boot_id: BootId::default(),
        kind: "test".to_owned(),
        body: Body::Event("x".repeat(bytes).into()),
    }
}

/// A line of this process's status, in bytes.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: u64 = words.context("no such line")?.parse()?;
    Ok(kib * 1024)
}

fn size_on_disk(directory: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        size += metadata.blocks() * 512;
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            size += size_on_disk(&entry.path())?;
        }
    }
    Ok(size)
}
