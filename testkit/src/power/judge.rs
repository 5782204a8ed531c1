//! Opens the real spool on what a crash left, and holds it to what was promised before.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use infratrack_agent::spool::{Budget, Spool};
use infratrack_shared::ids::{BootId, StreamId};
use infratrack_shared::wire::answer::{Cursor, Expected};
use infratrack_shared::wire::batch::{Class, Part};
use tokio::time::timeout;

use super::history::History;
use super::mark::{self, Mark, NOW, VALUE};
use super::workload::{Scenario, config};

/// A start may take so long.
const START: Duration = Duration::from_secs(30);

/// Fails where a promise in `history` is broken. `excused`: numbers that damage done on purpose may cost.
pub async fn judge(
    directory: &Path,
    scenario: Scenario,
    mut history: History,
    excused: &BTreeSet<(StreamId, u64)>,
) -> anyhow::Result<()> {
    let opening = Spool::open(config(scenario, directory, None), NOW);
    let (spool, report) = timeout(START, opening).await.context("opening")??;
    let damaged = !report.damaged.is_empty();
    let stream = spool.stream();
    history
        .step(&Mark::Opened { stream, damaged })
        .with_context(|| format!("{report:?}"))?;
    let number = spool.heartbeat_number().await?;
    history.step(&Mark::Heartbeat { number })?;
    let value = spool.get(VALUE).await?;
    let value = value
        .as_deref()
        .map(|bytes| <[u8; 8]>::try_from(bytes).map(u64::from_be_bytes));
    let value = value.transpose().context("a value that was never put")?;
    let is_known = match value {
        Some(value) => history.values.contains(&value),
        None => !history.has_value,
    };
    ensure!(
        is_known,
        "the value is {value:?}, not of {:?}",
        history.values
    );
    drain(&spool, &mut history).await?;
    let (class, from, count) = (Class::Critical, history.fresh, 3);
    history.step(&Mark::Append { class, from, count })?;
    let records = (from..from + count).map(mark::record).collect();
    let last = spool.append(class, records).await?;
    history.step(&Mark::Appended { stream, last })?;
    drain(&spool, &mut history).await?;
    history.settle(excused)?;
    spool.close().await?;
    Ok(())
}

/// Sends everything, to a collector that stands where the crash found it.
async fn drain(spool: &Spool, history: &mut History) -> anyhow::Result<()> {
    let budget = Budget {
        records: 500,
        bytes: 4 << 20,
        items: 100_000,
    };
    let mut rewound = 0;
    while let Some(outgoing) = spool.next(budget, BootId::default()).await? {
        let mut cursors = Vec::new();
        for part in &outgoing.parts {
            let stream = outgoing.stream;
            let known = history.cursor(stream, part.class);
            if part.first_seq > known + 1 {
                rewound += 1;
                ensure!(rewound < 10, "{stream} {:?} never goes back", part.class);
                let seq = known + 1;
                let class = part.class;
                let expected = [Expected { stream, class, seq }];
                ensure!(spool.rewind(&expected, NOW).await?.went_back, "it stays");
                cursors.clear();
                break;
            }
            history.step(&mark::sent(stream, part).context("a record is not its own")?)?;
            // A cursor that the crash lost: the collector skips what it has, and says how far it is.
            let to = end(part).max(known);
            let class = part.class;
            history.step(&Mark::Committed { stream, class, to })?;
            cursors.push(Cursor {
                stream,
                class,
                acked_seq: to,
            });
        }
        let done = spool.acknowledge(&cursors, NOW).await?;
        ensure!(done.forked.is_empty(), "it never numbered what it sent");
        ensure!(cursors.is_empty() || done.advanced, "it never gets on");
    }
    Ok(())
}

fn end(part: &Part) -> u64 {
    let lost = part.lost.iter().map(|lost| lost.to - lost.from + 1);
    part.first_seq + part.records.len() as u64 + lost.sum::<u64>() - 1
}
