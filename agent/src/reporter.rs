//! Spool to collector: builds a batch, sends it, and does what the Ack says.
//!
//! At most one unacknowledged batch is under way. The live heartbeat of a batch that was not acknowledged
//! moves to the beat ring under its own number, so that the collector counts it once.

use std::time::Duration;

use http::StatusCode;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{BootId, CommandId, InstanceId, StreamId};
use infratrack_shared::limits;
use infratrack_shared::wire::answer::{Ack, Frame};
use infratrack_shared::wire::batch::{Batch, Body, Class, Part, StatePart};
use infratrack_shared::wire::heartbeat::Heartbeat;
use infratrack_shared::wire::problem::code;
use infratrack_shared::wire::{PROTOCOL, path};
use thiserror::Error;

use crate::clock::Clock;
use crate::collect;
use crate::failpoint::reach;
use crate::spool::{Budget, NewRecord, Outgoing, Spool, SpoolError};
use crate::uplink::{Answer, Connection, UplinkError};

// A batch with all of it, and a heartbeat, is within the limit even where nothing can be compressed.

/// Records in one batch, encoded, in bytes. One record of the largest size is always taken.
const RECORD_BYTES: usize = limits::BATCH_WIRE_BYTES / 2;
const RECORD_ITEMS: usize = limits::ITEMS / 2;
/// State in one batch, encoded, in bytes.
pub const STATE_BYTES: usize = limits::BATCH_WIRE_BYTES / 8 * 3;
/// State in one batch, in items.
pub const STATE_ITEMS: usize = limits::ITEMS / 4;

/// Why a report was not acknowledged.
#[derive(Debug, Error)]
pub enum ReportError {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("the spool does not do as asked")]
    Spool(#[from] SpoolError),
}

/// What goes up beside the spool's records.
#[derive(Debug, Default)]
pub struct Report {
    pub heartbeat: Option<Heartbeat>,
    /// Changed state, most urgent first; what finds no room comes with the next report.
    pub state: Vec<StatePart>,
    pub commands_seen: Vec<CommandId>,
    pub policy_version: u64,
    pub wait: Duration,
}

/// What came of a report.
#[derive(Debug)]
pub struct Reported {
    pub ack: Ack,
    /// The rest of the answer: policy, commands.
    pub answer: Answer,
    /// Records were sent; there may be more.
    pub had_records: bool,
    /// How many of the report's state parts found room.
    pub state_sent: usize,
}

/// Sends what the spool holds.
pub struct Reporter {
    pub spool: Spool,
    pub clock: Clock,
    pub instance: InstanceId,
    pub boot_id: BootId,
    /// The most records in a batch; at most [`limits::BATCH_RECORDS`].
    pub batch_records: usize,
    /// Fewer after a batch was refused as invalid: the one at fault is to be found.
    most_records: usize,
    /// Likewise; 0 while records are looked through.
    most_state: usize,
    /// State that the collector refused even alone: whoever sent it is to give it up.
    refused_state: Vec<(String, u64)>,
}

impl Reporter {
    /// A reporter for this run of the process.
    pub fn new(spool: Spool, clock: Clock, instance: InstanceId, boot_id: BootId) -> Self {
        Self {
            spool,
            clock,
            instance,
            boot_id,
            batch_records: limits::BATCH_RECORDS,
            most_records: limits::BATCH_RECORDS,
            most_state: limits::BATCH_STATE_PARTS,
            refused_state: Vec::new(),
        }
    }

    /// Sends one batch and reads its Ack. Whatever is not acknowledged is kept.
    pub async fn report(
        &mut self,
        connection: &mut Connection,
        report: Report,
    ) -> Result<Reported, ReportError> {
        let outgoing = match self.outgoing().await {
            Ok(outgoing) => outgoing,
            Err(error) => {
                self.keep(report.heartbeat).await;
                return Err(error.into());
            }
        };
        let wait = report.wait;
        let batch = self.batch(report, outgoing);
        reach("uplink::send");
        match send(connection, &batch, wait).await {
            Ok((ack, answer)) => {
                reach("uplink::acknowledged");
                self.most_records = limits::BATCH_RECORDS.min(self.most_records * 2);
                self.most_state = limits::BATCH_STATE_PARTS.min(self.most_state * 2 + 1);
                self.acknowledged(&ack).await?;
                reach("uplink::ack-stored");
                let had_records = !batch.parts.is_empty();
                Ok(Reported {
                    ack,
                    answer,
                    had_records,
                    state_sent: batch.state.len(),
                })
            }
            Err(error) => {
                self.failed(batch, &error).await?;
                Err(error.into())
            }
        }
    }

    /// State versions that were refused even alone, since this was last asked.
    pub fn take_refused_state(&mut self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.refused_state)
    }

    /// Puts a heartbeat that could not be sent into the ring. It is one of 2,880: its loss is counted.
    pub async fn keep(&self, heartbeat: Option<Heartbeat>) {
        let Some(heartbeat) = heartbeat else { return };
        let record = NewRecord {
            at: heartbeat.at,
            mono_ms: heartbeat.mono_ms,
            boot_id: self.boot_id,
            kind: Heartbeat::KIND.to_owned(),
            body: Body::Heartbeat(Box::new(heartbeat)),
        };
        if let Err(error) = self.spool.append(Class::Beat, vec![record]).await {
            tracing::warn!(%error, "a heartbeat was not kept");
        }
    }

    async fn outgoing(&self) -> Result<Option<Outgoing>, SpoolError> {
        let budget = Budget {
            records: self.most_records.min(self.batch_records),
            bytes: RECORD_BYTES,
            items: RECORD_ITEMS,
        };
        self.spool.next(budget, self.boot_id).await
    }

    fn batch(&self, report: Report, outgoing: Option<Outgoing>) -> Batch {
        let own = self.spool.stream();
        let (stream, parts) = outgoing.map_or((own, Vec::new()), |outgoing| {
            (outgoing.stream, outgoing.parts)
        });
        // State is ordered by the stream it comes in: not in a salvaged one's.
        let state = if stream == own {
            that_fits(report.state, self.most_state)
        } else {
            Vec::new()
        };
        Batch {
            protocol: PROTOCOL,
            stream,
            instance: self.instance,
            boot_id: self.boot_id,
            sent_at: self.clock.now(),
            mono_ms: Some(collect::mono_ms()),
            policy_version: report.policy_version,
            wait_ms: u32::try_from(report.wait.as_millis())
                .unwrap_or(limits::WAIT_MS)
                .min(limits::WAIT_MS),
            commands_seen: report.commands_seen,
            heartbeat: report.heartbeat,
            parts,
            state,
        }
    }

    async fn acknowledged(&self, ack: &Ack) -> Result<(), SpoolError> {
        let now = self.clock.now();
        let acknowledged = self.spool.acknowledge(&ack.cursors, now).await?;
        let rewound = if ack.expected.is_empty() {
            Vec::new()
        } else {
            let rewound = self.spool.rewind(&ack.expected, now).await?;
            if rewound.went_back {
                tracing::warn!("the collector has lost commits; sending again");
            }
            rewound.forked
        };
        for stream in acknowledged.forked.into_iter().chain(rewound) {
            self.fork(stream).await?;
        }
        for rejected in &ack.rejected {
            tracing::warn!(?rejected, "the collector could not store something");
        }
        Ok(())
    }

    async fn failed(&mut self, batch: Batch, error: &UplinkError) -> Result<(), SpoolError> {
        let (status, word) = if let UplinkError::Refused {
            status, problem, ..
        } = error
        {
            (*status, problem.code.as_str())
        } else {
            (StatusCode::OK, "")
        };
        let invalid = matches!(
            status,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE
        );
        if status == StatusCode::CONFLICT
            && [code::STREAM_FORKED, code::CLONE_SET_APART].contains(&word)
        {
            self.keep(batch.heartbeat).await;
            return self.fork(batch.stream).await;
        }
        if !invalid || word == code::PROTOCOL_UNSUPPORTED {
            self.keep(batch.heartbeat).await;
            return Ok(());
        }
        // Something in it will never be taken. Records are looked through first, without state; then the
        // state; what is left is the heartbeat, which the next one replaces.
        match (one_record(&batch.parts), batch.state.as_slice()) {
            (Found::One(class, seq), []) => {
                self.most_records = limits::BATCH_RECORDS;
                self.most_state = limits::BATCH_STATE_PARTS;
                self.spool.refuse(batch.stream, class, seq).await?;
            }
            (Found::More(count), []) => self.most_records = (count / 2).max(1),
            (Found::One(..) | Found::More(_), _) => self.most_state = 0,
            (Found::None, [state]) => {
                self.most_state = limits::BATCH_STATE_PARTS;
                self.refused_state.push((state.key.clone(), state.version));
            }
            (Found::None, state) => self.most_state = (state.len() / 2).max(1),
        }
        Ok(())
    }

    async fn fork(&self, stream: StreamId) -> Result<(), SpoolError> {
        let fresh = self.spool.fork(stream, self.clock.now()).await?;
        tracing::warn!(%stream, ?fresh, "another copy of this host uses this stream; a new one begins");
        Ok(())
    }
}

enum Found {
    None,
    One(Class, u64),
    More(usize),
}

fn one_record(parts: &[Part]) -> Found {
    let mut records = parts
        .iter()
        .flat_map(|part| part.records.iter().map(|r| (part.class, r.seq)));
    match (records.next(), records.count()) {
        (None, _) => Found::None,
        (Some((class, seq)), 0) => Found::One(class, seq),
        (Some(_), more) => Found::More(more + 1),
    }
}

/// As many state parts as a batch has room for, in order.
fn that_fits(state: Vec<StatePart>, most: usize) -> Vec<StatePart> {
    let (mut bytes, mut items) = (0, 0);
    let mut fits = |part: &StatePart| {
        let encoded = codec::encode(part).unwrap_or_default();
        bytes += encoded.len();
        items += codec::check(&encoded, &Limits::default()).unwrap_or(STATE_ITEMS);
        bytes <= STATE_BYTES && items <= STATE_ITEMS
    };
    state
        .into_iter()
        .take(most)
        .take_while(|part| fits(part))
        .collect()
}

async fn send(
    connection: &mut Connection,
    batch: &Batch,
    wait: Duration,
) -> Result<(Ack, Answer), UplinkError> {
    let mut answer = connection.stream(path::BATCH, batch, wait).await?;
    reach("uplink::sent");
    // Frames this build does not know may come before it one day.
    while let Some(Frame { ack, .. }) = answer.next_frame().await? {
        if let Some(ack) = ack {
            return Ok((ack, answer));
        }
    }
    Err(UplinkError::Unacknowledged)
}
