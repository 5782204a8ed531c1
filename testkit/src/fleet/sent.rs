//! From an Ack to the ledger: which of the things that were sent are stored.

use infratrack_shared::ids::{HostId, StreamId};
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::Class;

use crate::ledger::Item;

/// What a report carried, as far as it can be acknowledged.
pub(super) struct Sent {
    pub(super) live: Option<(StreamId, u64)>,
    /// Queued heartbeats: their record's number and their own identity.
    pub(super) beats: Vec<(u64, StreamId, u64)>,
}

impl Sent {
    /// What `ack` says of it, for the ledger.
    pub(super) fn acknowledged(&self, host: HostId, ack: &Ack) -> Vec<Item> {
        let mut items = Vec::new();
        let rejected = |n| ack.rejected.iter().any(|one| one.heartbeat == Some(n));
        if let Some((stream, n)) = self.live.filter(|(_, n)| !rejected(*n)) {
            items.push(Item::HeartbeatAcknowledged { host, stream, n });
        }
        for cursor in &ack.cursors {
            if cursor.class == Class::Critical {
                items.push(Item::RecordsAcknowledged {
                    host,
                    stream: cursor.stream,
                    class: cursor.class,
                    to: cursor.acked_seq,
                });
                let refused = ack
                    .rejected
                    .iter()
                    .filter(|one| one.class == Some(cursor.class));
                items.extend(refused.filter_map(|one| {
                    Some(Item::RecordRejected {
                        host,
                        stream: cursor.stream,
                        seq: one.seq?,
                    })
                }));
                continue;
            }
            let stored = self
                .beats
                .iter()
                .filter(|(seq, ..)| *seq <= cursor.acked_seq);
            items.extend(stored.map(|&(_, stream, n)| Item::HeartbeatAcknowledged {
                host,
                stream,
                n,
            }));
        }
        items
    }
}
