//! What of a run asks the collector: which chunks are held, and to store packs. One thread; what fails is asked again, elsewhere and
//! later, until nothing got through for too long.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use infratrack_shared::backup::{ChunkId, Salt};
use infratrack_shared::limits::BACKUP_MISSING_IDS;
use infratrack_shared::wire::backup::reason;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::{CHUNK_BYTES, Chunk, Control, Failure, Lane, Made, Pace, Place, Shared};
use crate::backoff::{self, Backoff};
use crate::backup::remote::Verdict;
use crate::uplink::UplinkError;

/// A question waits so long for more chunks.
const LINGER: Duration = Duration::from_millis(100);
/// So many bytes are enough of a question, so that others are compressed meanwhile.
const ENOUGH_BYTES: usize = CHUNK_BYTES / 2;
/// The longest wait before something is tried again: a collector that is back is found soon.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// In an answer, for each id.
const HELD_BYTES: usize = 19;

/// The thread.
pub(super) fn main(
    shared: &Shared,
    lane: impl Lane,
    pace: &Pace,
    asked: mpsc::UnboundedReceiver<Chunk>,
    work: Sender<Chunk>,
    made: mpsc::UnboundedReceiver<Made>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return shared.control.stop(Failure::of(reason::INTERNAL, error)),
    };
    let made = Mutex::new(made);
    let lanes = (lane.clone(), lane.clone(), lane);
    let all = async {
        tokio::try_join!(
            Box::pin(resolve(shared, lanes.0, asked, work)),
            Box::pin(send(shared, lanes.1, pace, &made)),
            Box::pin(send(shared, lanes.2, pace, &made)),
        )
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = shared.control.stopped() => {}
            done = all => if let Err(failure) = done {
                shared.control.stop(failure);
            },
        }
    });
}

/// Asks which chunks are held, and hands on the others.
async fn resolve(
    shared: &Shared,
    mut lane: impl Lane,
    mut asked: mpsc::UnboundedReceiver<Chunk>,
    work: Sender<Chunk>,
) -> Result<(), Failure> {
    while let Some(batch) = batch(&mut asked).await {
        shared.control.unpaused().await;
        let ids: Vec<_> = batch.iter().map(|chunk| chunk.id).collect();
        let held = persist(&shared.control, async || lane.missing(&ids).await).await?;
        let held = places(&ids, &held.held)
            .ok_or_else(|| Failure::new(reason::REFUSED, "what is held is not understood"))?;
        let known = ids.iter().zip(&held);
        let known = known.filter_map(|(id, place)| Some((*id, (*place)?)));
        shared.note(&known.collect::<Vec<_>>());
        for (chunk, place) in batch.into_iter().zip(held) {
            let Some(place) = place else {
                // Workers that are gone have said why.
                work.send(chunk).ok();
                continue;
            };
            shared.places().insert(chunk.id, place);
            shared.control.give_bytes(Chunk::cost(chunk.plain.len()));
        }
    }
    Ok(())
}

/// The next chunks to ask of; `None` at the end.
async fn batch(asked: &mut mpsc::UnboundedReceiver<Chunk>) -> Option<Vec<Chunk>> {
    let first = asked.recv().await?;
    let until = Instant::now() + LINGER;
    let mut bytes = Chunk::cost(first.plain.len());
    let mut batch = vec![first];
    while batch.len() < BACKUP_MISSING_IDS && bytes < ENOUGH_BYTES {
        let Ok(Some(chunk)) = timeout_at(until, asked.recv()).await else {
            break;
        };
        bytes += Chunk::cost(chunk.plain.len());
        batch.push(chunk);
    }
    Some(batch)
}

/// For each id, where it is held. `None` where the answer is none.
fn places(ids: &[ChunkId], held: &[u8]) -> Option<Vec<Option<Place>>> {
    let (rows, []) = held.as_chunks::<HELD_BYTES>() else {
        return None;
    };
    if rows.len() != ids.len() {
        return None;
    }
    let place = |row: &[u8; HELD_BYTES]| match row {
        [0, rest @ ..] => rest.iter().all(|byte| *byte == 0).then_some(None),
        [1, salt @ .., high, low] => {
            let salt = Salt::new(*salt);
            Some(Some((salt, u16::from_be_bytes([*high, *low]))))
        }
        [_, ..] => None,
    };
    rows.iter().map(place).collect()
}

/// Sends packs, one after another.
async fn send(
    shared: &Shared,
    mut lane: impl Lane,
    pace: &Pace,
    made: &Mutex<mpsc::UnboundedReceiver<Made>>,
) -> Result<(), Failure> {
    loop {
        let next = made.lock().await.recv().await;
        let Some(Made {
            hash,
            bytes,
            chunks,
        }) = next
        else {
            return Ok(());
        };
        persist(&shared.control, async || {
            lane.put_pack(hash, bytes.clone(), pace).await
        })
        .await?;
        shared.note(&chunks);
        let meter = &shared.meter;
        meter.packs.fetch_add(1, Ordering::Relaxed);
        meter
            .sent_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        shared.control.give_pack();
    }
}

/// Asks until there is an answer, or nothing got through for longer than the run may wait.
pub(in crate::backup) async fn persist<T>(
    control: &Control,
    mut ask: impl AsyncFnMut() -> Result<T, UplinkError>,
) -> Result<T, Failure> {
    let mut backoff = Backoff::default();
    loop {
        let error = match ask().await {
            Ok(answer) => {
                control.progress();
                return Ok(answer);
            }
            Err(error) => error,
        };
        let (reason, asked) = match Verdict::on(&error) {
            Verdict::Again(reason, asked) => (reason, asked),
            Verdict::Never(reason) => return Err(Failure::of(reason, error)),
        };
        if control.is_hopeless() {
            return Err(Failure::of(reason, error));
        }
        tracing::info!(%error, "it is tried again");
        let wait = match asked {
            Some(asked) => backoff::retry_after(asked),
            None => backoff.after_failure(),
        };
        sleep(wait.min(LONGEST_WAIT)).await;
        control.unpaused().await;
    }
}
