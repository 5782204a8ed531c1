//! The hash chain over the rows of the audit log: how a row becomes bytes, and these a hash.
//!
//! docs/formats/audit.md has the format and its test vector; a change here makes every chain that exists
//! worthless, so there is none without another version of it.

use sha2::{Digest, Sha256};

use crate::store::audit_chain::{LogRow, Seal};

/// A hash of the chain.
pub type Hash = [u8; 32];

/// Stands before the first row.
pub const GENESIS: Hash = [0; 32];
/// What is hashed of a row begins with this.
const CONTEXT: &[u8] = b"infratrack audit 1\n";

/// The hash of a row that follows one with the hash `previous`.
pub fn hash(previous: &Hash, row: &LogRow) -> Hash {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(encode(row));
    hash.finalize().into()
}

/// Seals rows after the head of the chain.
pub fn seal(seq: i64, head: Hash, rows: &[LogRow]) -> Vec<Seal> {
    let mut previous = head;
    let seal = |(seq, row): (i64, &LogRow)| {
        previous = hash(&previous, row);
        Seal {
            seq,
            audit_id: row.audit_id,
            hash: previous.to_vec(),
        }
    };
    (seq + 1..).zip(rows).map(seal).collect()
}

/// Each field says whether it is there and how long it is, so that no two rows have the same bytes.
fn encode(row: &LogRow) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    let mut field = |value: Option<&[u8]>| match value {
        None => bytes.push(0),
        Some(value) => {
            bytes.push(1);
            bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
            bytes.extend_from_slice(value);
        }
    };
    // Postgres keeps microseconds, and its years fit.
    let at_us = i64::try_from(row.at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    let address = row.actor_address.map(|address| address.to_string());
    field(Some(&row.audit_id.to_be_bytes()));
    field(Some(&at_us.to_be_bytes()));
    field(Some(row.actor_kind.as_bytes()));
    field(Some(row.actor_name.as_bytes()));
    field(row.actor_id.as_deref().map(str::as_bytes));
    field(address.as_deref().map(str::as_bytes));
    field(row.request_id.as_deref().map(str::as_bytes));
    field(Some(row.action.as_bytes()));
    field(Some(row.subject_kind.as_bytes()));
    field(Some(row.subject_id.as_bytes()));
    field(row.before.as_deref().map(str::as_bytes));
    field(row.after.as_deref().map(str::as_bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn full() -> LogRow {
        LogRow {
            audit_id: 7,
            at: datetime!(2026-11-21 12:00:00.000001 UTC),
            actor_kind: "user".to_owned(),
            actor_name: "ada".to_owned(),
            actor_id: Some("0b9c".to_owned()),
            actor_address: Some("192.0.2.1/32".parse().unwrap()),
            request_id: Some("r-1".to_owned()),
            action: "host.revoke".to_owned(),
            subject_kind: "host".to_owned(),
            subject_id: "h-1".to_owned(),
            before: Some(r#"{"revoked":0}"#.to_owned()),
            after: Some(r#"{"revoked":1}"#.to_owned()),
        }
    }

    fn bare() -> LogRow {
        LogRow {
            audit_id: 8,
            actor_id: None,
            actor_address: None,
            request_id: None,
            before: None,
            after: None,
            ..full()
        }
    }

    #[test]
    fn the_vector_of_the_documentation_holds() {
        let document = include_str!("../../../docs/formats/audit.md");
        let first = hash(&GENESIS, &full());
        let second = hash(&first, &bare());
        for one in [
            hex::encode(encode(&bare())),
            hex::encode(first),
            hex::encode(second),
        ] {
            assert!(document.replace("\n    ", "").contains(&one), "{one}");
        }
    }

    #[test]
    fn every_field_and_its_place_changes_the_hash() {
        let changes: [fn(&mut LogRow); 13] = [
            |row| row.audit_id += 1,
            |row| row.at += time::Duration::microseconds(1),
            |row| row.actor_kind.push('x'),
            |row| row.actor_name.push('x'),
            |row| row.actor_id = None,
            |row| row.actor_address = Some("192.0.2.1/24".parse().unwrap()),
            |row| row.request_id = Some(String::new()),
            |row| row.action.push('x'),
            |row| row.subject_kind.push('x'),
            |row| row.subject_id.push('x'),
            |row| row.before = None,
            |row| std::mem::swap(&mut row.before, &mut row.after),
            |row| {
                // The same text, cut elsewhere.
                row.subject_kind = "hos".to_owned();
                row.subject_id = "th-1".to_owned();
            },
        ];
        let mut seen = vec![hash(&GENESIS, &full())];
        for change in changes {
            let mut row = full();
            change(&mut row);
            let one = hash(&GENESIS, &row);
            assert!(!seen.contains(&one), "{row:?}");
            seen.push(one);
        }
    }
}
