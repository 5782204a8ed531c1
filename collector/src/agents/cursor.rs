//! What a part adds to what is stored: a pure decision, made under the stream row's lock.

use infratrack_shared::codec;
use infratrack_shared::digest::Digest;
use infratrack_shared::wire::batch::{Body, Lost, Part, Record};

use crate::store::agent_streams::ClassCursor;

/// What to do with a part.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<'a> {
    /// Store these, note those as lost, move the cursor.
    Advance {
        records: &'a [Record],
        lost: Vec<Lost>,
        cursor: ClassCursor,
    },
    /// It begins above what is stored, and nothing says why: go back to this number.
    Expected(u64),
    /// The record at the cursor is another one than was stored: two copies share one stream.
    Forked,
}

/// Decides what `part`, whose shape was checked, adds to `cursor`.
pub fn decide(cursor: ClassCursor, part: &Part) -> Decision<'_> {
    if part.records.is_empty() && part.lost.is_empty() {
        return Decision::Advance {
            records: &[],
            lost: Vec::new(),
            cursor,
        };
    }
    if part.first_seq > cursor.seq.saturating_add(1) {
        return Decision::Expected(cursor.seq + 1);
    }
    let overlap = part.records.iter().find(|record| record.seq == cursor.seq);
    if let (Some(record), Some(stored)) = (overlap, cursor.hash)
        && record_hash(record) != stored
    {
        return Decision::Forked;
    }
    let first_fresh = part
        .records
        .partition_point(|record| record.seq <= cursor.seq);
    let records = part.records.get(first_fresh..).unwrap_or_default();
    let lost: Vec<Lost> = part
        .lost
        .iter()
        .filter(|lost| lost.to > cursor.seq)
        .map(|lost| Lost {
            from: lost.from.max(cursor.seq + 1),
            ..*lost
        })
        .collect();
    let last_lost = lost.last().map_or(0, |lost| lost.to);
    let cursor = match records.last() {
        Some(record) if record.seq > last_lost => ClassCursor {
            seq: record.seq,
            hash: Some(record_hash(record)),
        },
        _ if last_lost > cursor.seq => ClassCursor {
            seq: last_lost,
            hash: None,
        },
        _ => cursor,
    };
    Decision::Advance {
        records,
        lost,
        cursor,
    }
}

/// The last record of a part that ends before the cursor: the hash there does not tell whether it is the one
/// that was stored.
pub fn last_below(cursor: ClassCursor, part: &Part) -> Option<&Record> {
    part.records.last().filter(|last| last.seq < cursor.seq)
}

/// Tells one record from another at the same place. Holds across agent and collector releases: it is made
/// of what identifies a record, not of how it is encoded.
pub fn record_hash(record: &Record) -> Digest {
    let identity = match &record.body {
        Body::Heartbeat(beat) => codec::encode(&(record.seq, record.at, beat.stream, beat.n)),
        Body::Event(body) => codec::encode(&(record.seq, record.at, &record.kind, body)),
    };
    // Encoding what was decoded a moment ago can't fail; were it to, all such records look alike.
    Digest::of(&identity.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use infratrack_shared::time::UnixMillis;
    use infratrack_shared::wire::batch::{Class, LostReason};

    use super::*;

    fn record(seq: u64) -> Record {
        Record {
            seq,
            at: UnixMillis(0),
            mono_ms: 0,
            boot_id: None,
            kind: "test".to_owned(),
            body: Body::Event(rmpv::Value::from(seq)),
        }
    }

    fn part(first_seq: u64, lost: &[(u64, u64)], seqs: &[u64]) -> Part {
        let lost = lost
            .iter()
            .map(|(from, to)| Lost {
                from: *from,
                to: *to,
                reason: LostReason::Quota,
            })
            .collect();
        Part {
            class: Class::Critical,
            first_seq,
            lost,
            records: seqs.iter().map(|s| record(*s)).collect(),
        }
    }

    fn at(seq: u64) -> ClassCursor {
        ClassCursor {
            seq,
            hash: Some(record_hash(&record(seq))),
        }
    }

    #[test]
    fn fresh_records_move_the_cursor_and_known_ones_are_skipped() {
        let part = part(1, &[], &[1, 2, 3, 4]);
        let Decision::Advance {
            records,
            lost,
            cursor,
        } = decide(at(2), &part)
        else {
            panic!("must advance");
        };
        assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), [3, 4]);
        assert!(lost.is_empty());
        assert_eq!(cursor, at(4));
        let Decision::Advance {
            records, cursor, ..
        } = decide(at(9), &part)
        else {
            panic!("must advance");
        };
        assert!(records.is_empty());
        assert_eq!(cursor, at(9));
    }

    #[test]
    fn a_jump_is_expected_back_unless_a_lost_range_covers_it() {
        assert_eq!(decide(at(2), &part(5, &[], &[5])), Decision::Expected(3));
        let covered = part(3, &[(3, 4)], &[5]);
        let Decision::Advance { lost, cursor, .. } = decide(at(2), &covered) else {
            panic!("must advance");
        };
        assert_eq!((lost[0].from, lost[0].to), (3, 4));
        assert_eq!(cursor, at(5));
    }

    #[test]
    fn a_lost_range_is_clipped_to_what_is_not_stored() {
        let part = part(1, &[(1, 8)], &[]);
        let Decision::Advance { lost, cursor, .. } = decide(at(5), &part) else {
            panic!("must advance");
        };
        assert_eq!((lost[0].from, lost[0].to), (6, 8));
        assert_eq!(cursor, ClassCursor { seq: 8, hash: None });
    }

    #[test]
    fn another_record_at_the_cursor_is_a_fork() {
        let mut forked = part(2, &[], &[2, 3]);
        forked.records[0].body = Body::Event(rmpv::Value::from("another"));
        assert_eq!(decide(at(2), &forked), Decision::Forked);
        // Without the hash (the cursor stands on a lost range) nothing can be compared.
        let unknown = ClassCursor { seq: 2, hash: None };
        assert!(matches!(decide(unknown, &forked), Decision::Advance { .. }));
    }
}
