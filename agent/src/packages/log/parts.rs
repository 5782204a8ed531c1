//! A transaction in parts that a record has room for.

use infratrack_shared::wire::event::{PackageChange, PackageTransaction};

/// Of one part, about: well below what a record may have.
const PART_BYTES: usize = 64 * 1024;
/// Of a change, beside its texts.
const CHANGE_BYTES: usize = 64;
/// Well below the values that a batch may have.
const PART_CHANGES: usize = 1000;

/// The transaction, in as many parts as it takes: at least one.
pub fn split(mut whole: PackageTransaction) -> Vec<PackageTransaction> {
    let mut groups = vec![Vec::new()];
    let mut bytes = 0;
    for change in std::mem::take(&mut whole.changes) {
        let size = size(&change);
        let last = groups.last().map_or(0, Vec::len);
        if last > 0 && (last >= PART_CHANGES || bytes + size > PART_BYTES) {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = groups.last_mut() {
            last.push(change);
        }
    }
    let parts = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    let numbered = groups.into_iter().zip(0..);
    let split = numbered.map(|(changes, part)| PackageTransaction {
        changes,
        part,
        parts,
        ..whole.clone()
    });
    split.collect()
}

fn size(change: &PackageChange) -> usize {
    let texts = [&change.from, &change.to, &change.left];
    let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
    CHANGE_BYTES + change.name.len() + change.arch.len() + texts
}

#[cfg(test)]
mod tests {
    use infratrack_shared::{codec, limits};

    use super::*;
    use crate::packages::FIELD_BYTES;
    use crate::packages::log::COMMAND_BYTES;

    #[test]
    fn every_part_fits_into_a_record_and_together_they_are_the_whole() {
        let long = "x".repeat(FIELD_BYTES);
        let change = PackageChange {
            name: long.clone(),
            arch: long.clone(),
            from: Some(long.clone()),
            to: Some(long.clone()),
            left: Some(long),
            ..PackageChange::default()
        };
        let small = PackageChange {
            name: "a".to_owned(),
            ..PackageChange::default()
        };
        let changes = [vec![change; 300], vec![small; 2500]].concat();
        let whole = PackageTransaction {
            command: Some("c".repeat(COMMAND_BYTES)),
            changes: changes.clone(),
            ..PackageTransaction::default()
        };
        let parts = split(whole);
        assert!(parts.len() > 25);
        for (part, number) in parts.iter().zip(0..) {
            assert_eq!((part.part, part.parts as usize), (number, parts.len()));
            let bytes = codec::encode(part).unwrap();
            assert!(bytes.len() < limits::RECORD_BYTES / 2, "{}", bytes.len());
        }
        let together: Vec<_> = parts.into_iter().flat_map(|part| part.changes).collect();
        assert!(together == changes);
        assert_eq!(split(PackageTransaction::default()).len(), 1);
    }
}
