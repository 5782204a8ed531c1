//! Whether a decoded batch holds to the protocol's limits and counts without a hole.

use infratrack_shared::limits;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::batch::{Batch, Part, StatePart};
use thiserror::Error;

/// What is wrong with a batch, and where.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    #[error("protocol {got}: this collector speaks {PROTOCOL}")]
    Protocol { got: u16 },
    #[error("{what}: {got} is over the limit of {limit}")]
    TooMany {
        what: &'static str,
        got: usize,
        limit: usize,
    },
    #[error("{what} of {got} bytes is over the limit of {limit} bytes")]
    TooLong {
        what: &'static str,
        got: usize,
        limit: usize,
    },
    #[error("parts/{part}: sequence number {got} where {expected} is next")]
    Hole {
        part: usize,
        expected: u64,
        got: u64,
    },
    #[error("parts/{part}/lost/{lost}: from {from} to {to} is no range")]
    Range {
        part: usize,
        lost: usize,
        from: u64,
        to: u64,
    },
    #[error("parts/{part}: class is in the batch twice")]
    ClassTwice { part: usize },
    #[error("state/{state}: part {part} of {parts}")]
    StatePart { state: usize, part: u32, parts: u32 },
    #[error("heartbeat: its number is out of range")]
    HeartbeatNumber,
}

/// Checks everything but the bodies of records.
pub fn check(batch: &Batch) -> Result<(), Invalid> {
    if batch.protocol.abs_diff(PROTOCOL) > 1 || batch.protocol == 0 {
        return Err(Invalid::Protocol {
            got: batch.protocol,
        });
    }
    let records = batch.parts.iter().map(|part| part.records.len()).sum();
    let lost = batch.parts.iter().map(|part| part.lost.len()).sum();
    count("parts", batch.parts.len(), limits::BATCH_PARTS)?;
    count("records", records, limits::BATCH_RECORDS)?;
    count("lost ranges", lost, limits::BATCH_LOST_RANGES)?;
    count(
        "commands_seen",
        batch.commands_seen.len(),
        limits::BATCH_COMMANDS_SEEN,
    )?;
    count("state", batch.state.len(), limits::BATCH_STATE_PARTS)?;
    if let Some(heartbeat) = &batch.heartbeat {
        count(
            "heartbeat/filesystems",
            heartbeat.filesystems.len(),
            limits::HEARTBEAT_FILESYSTEMS,
        )?;
        if i64::try_from(heartbeat.n).is_err() {
            return Err(Invalid::HeartbeatNumber);
        }
    }
    for (index, part) in batch.parts.iter().enumerate() {
        if batch
            .parts
            .iter()
            .take(index)
            .any(|earlier| earlier.class == part.class)
        {
            return Err(Invalid::ClassTwice { part: index });
        }
        check_part(index, part)?;
    }
    batch
        .state
        .iter()
        .enumerate()
        .try_for_each(|(index, state)| check_state(index, state))
}

/// Every number from `first_seq` on must be a record or in a lost range, once.
fn check_part(index: usize, part: &Part) -> Result<(), Invalid> {
    for (number, lost) in part.lost.iter().enumerate() {
        if lost.from > lost.to || i64::try_from(lost.to).is_err() {
            return Err(Invalid::Range {
                part: index,
                lost: number,
                from: lost.from,
                to: lost.to,
            });
        }
    }
    let mut lost = part.lost.iter().peekable();
    let mut next = part.first_seq;
    let hole = |expected, got| Invalid::Hole {
        part: index,
        expected,
        got,
    };
    if next == 0 || i64::try_from(next).is_err() {
        return Err(hole(1, next));
    }
    for record in &part.records {
        length("record kind", record.kind.len(), limits::NAME_BYTES)?;
        while let Some(range) = lost.next_if(|range| range.from == next) {
            next = range.to + 1;
        }
        if record.seq != next {
            return Err(hole(next, record.seq));
        }
        next += 1;
    }
    for range in lost {
        if range.from != next {
            return Err(hole(next, range.from));
        }
        next = range.to + 1;
    }
    if i64::try_from(next).is_err() {
        return Err(hole(1, next));
    }
    Ok(())
}

fn check_state(index: usize, state: &StatePart) -> Result<(), Invalid> {
    length("state key", state.key.len(), limits::NAME_BYTES)?;
    let whole = state.parts >= 1 && state.parts <= limits::STATE_PARTS && state.part < state.parts;
    if !whole || i64::try_from(state.version).is_err() {
        return Err(Invalid::StatePart {
            state: index,
            part: state.part,
            parts: state.parts,
        });
    }
    Ok(())
}

fn count(what: &'static str, got: usize, limit: usize) -> Result<(), Invalid> {
    if got > limit {
        Err(Invalid::TooMany { what, got, limit })
    } else {
        Ok(())
    }
}

fn length(what: &'static str, got: usize, limit: usize) -> Result<(), Invalid> {
    if got > limit {
        Err(Invalid::TooLong { what, got, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use infratrack_shared::time::UnixMillis;
    use infratrack_shared::wire::batch::{Body, Class, Lost, LostReason, Record};

    use super::*;

    fn part(first_seq: u64, lost: &[(u64, u64)], seqs: &[u64]) -> Part {
        let record = |seq: &u64| Record {
            seq: *seq,
            at: UnixMillis(0),
            mono_ms: 0,
            boot_id: None,
            kind: "test".to_owned(),
            body: Body::Event(rmpv::Value::Nil),
        };
        let range = |(from, to): &(u64, u64)| Lost {
            from: *from,
            to: *to,
            reason: LostReason::Quota,
        };
        Part {
            class: Class::Critical,
            first_seq,
            lost: lost.iter().map(range).collect(),
            records: seqs.iter().map(record).collect(),
        }
    }

    #[test]
    fn a_part_accounts_for_every_number() {
        assert_eq!(check_part(0, &part(1, &[], &[1, 2, 3])), Ok(()));
        assert_eq!(check_part(0, &part(1, &[(1, 4), (6, 9)], &[5, 10])), Ok(()));
        assert_eq!(check_part(0, &part(5, &[(5, 6), (7, 9)], &[])), Ok(()));
        let hole = |expected, got| {
            Err(Invalid::Hole {
                part: 0,
                expected,
                got,
            })
        };
        assert_eq!(check_part(0, &part(1, &[], &[1, 3])), hole(2, 3));
        assert_eq!(check_part(0, &part(1, &[], &[2])), hole(1, 2));
        assert_eq!(check_part(0, &part(1, &[(3, 4)], &[1])), hole(2, 3));
        assert_eq!(check_part(0, &part(1, &[], &[1, 1])), hole(2, 1));
        assert_eq!(check_part(0, &part(0, &[], &[0])), hole(1, 0));
        let range = Invalid::Range {
            part: 0,
            lost: 0,
            from: 4,
            to: 3,
        };
        assert_eq!(check_part(0, &part(4, &[(4, 3)], &[])), Err(range));
        assert!(check_part(0, &part(1, &[(1, u64::MAX)], &[])).is_err());
    }
}
