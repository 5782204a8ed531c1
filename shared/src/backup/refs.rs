//! Which chunks a snapshot needs, by the places in which they were sealed: what the collector keeps them for.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::chunk::Salt;

/// Counters of one origin, as ranges with both ends, apart and in order.
type Ranges = Vec<(u16, u16)>;

/// Chunks, by origin and counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs(BTreeMap<Salt, Ranges>);

/// Why bytes are no refs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefsError {
    #[error("an origin is there twice or out of order")]
    Origins,
    #[error("a range of counters is half, reversed, or not after the one before")]
    Ranges,
}

impl Refs {
    /// Adds a chunk. Quick where it is the next of its origin.
    pub fn insert(&mut self, salt: Salt, counter: u16) {
        let ranges = self.0.entry(salt).or_default();
        // The first range that ends at the counter's left neighbour or later.
        let at = ranges.partition_point(|(_, last)| last.saturating_add(1) < counter);
        match ranges.get_mut(at) {
            Some((first, last)) if *first <= counter && counter <= *last => {}
            Some((_, last)) if last.checked_add(1) == Some(counter) => {
                *last = counter;
                join(ranges, at);
            }
            Some((first, _)) if counter.checked_add(1) == Some(*first) => *first = counter,
            Some(_) | None => ranges.insert(at, (counter, counter)),
        }
    }

    pub fn contains(&self, salt: &Salt, counter: u16) -> bool {
        let Some(ranges) = self.0.get(salt) else {
            return false;
        };
        let at = ranges.partition_point(|(_, last)| *last < counter);
        ranges.get(at).is_some_and(|(first, _)| *first <= counter)
    }

    /// Each origin with its ranges, both ends in it.
    pub fn origins(&self) -> impl Iterator<Item = (&Salt, &[(u16, u16)])> {
        self.0
            .iter()
            .map(|(salt, ranges)| (salt, ranges.as_slice()))
    }

    /// Adds all chunks of another.
    pub fn unite(&mut self, other: &Self) {
        for (salt, theirs) in &other.0 {
            let ours = self.0.entry(*salt).or_default();
            // Of most origins two snapshots of a volume need the same.
            if ours == theirs {
                continue;
            }
            let mut all: Ranges = ours.iter().chain(theirs).copied().collect();
            all.sort_unstable();
            let mut united = Ranges::with_capacity(all.len());
            for (first, last) in all {
                match united.last_mut() {
                    Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                    Some(_) | None => united.push((first, last)),
                }
            }
            *ours = united;
        }
    }

    /// How many chunks there are.
    pub fn len(&self) -> u64 {
        let ranges = self.0.values().flatten();
        ranges
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Joins a range with the next where they touch.
fn join(ranges: &mut Ranges, at: usize) {
    let (Some((_, last)), Some((next, end))) = (ranges.get(at), ranges.get(at + 1)) else {
        return;
    };
    if last.checked_add(1) == Some(*next) {
        let end = *end;
        ranges.remove(at + 1);
        ranges[at].1 = end;
    }
}

impl Serialize for Refs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(salt, ranges)| {
            let counters: Vec<u16> = ranges.iter().flat_map(|(a, b)| [*a, *b]).collect();
            (salt, counters)
        }))
    }
}

impl<'de> Deserialize<'de> for Refs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Vec::<(Salt, Vec<u16>)>::deserialize(deserializer)?;
        of_rows(rows).map_err(serde::de::Error::custom)
    }
}

fn of_rows(rows: Vec<(Salt, Vec<u16>)>) -> Result<Refs, RefsError> {
    let mut origins = BTreeMap::new();
    for (salt, counters) in rows {
        let (pairs, []) = counters.as_chunks::<2>() else {
            return Err(RefsError::Ranges);
        };
        let ranges: Ranges = pairs.iter().map(|[first, last]| (*first, *last)).collect();
        let is_apart = ranges
            .windows(2)
            .all(|two| two[0].1.saturating_add(1) < two[1].0);
        let is_forward = ranges.iter().all(|(first, last)| first <= last);
        if ranges.is_empty() || !is_apart || !is_forward {
            return Err(RefsError::Ranges);
        }
        let is_after = origins
            .last_key_value()
            .is_none_or(|(last, _)| *last < salt);
        if !is_after {
            return Err(RefsError::Origins);
        }
        origins.insert(salt, ranges);
    }
    Ok(Refs(origins))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Limits, decode, encode};

    fn salt(number: u8) -> Salt {
        Salt::new([number; 16])
    }

    proptest! {
        #[test]
        fn they_are_a_set_whatever_the_order(
            chunks in proptest::collection::vec((0_u8..3, prop_oneof![0_u16..40, 65_500..=65_535_u16]), 0..200)
        ) {
            let mut refs = Refs::default();
            for (origin, counter) in &chunks {
                refs.insert(salt(*origin), *counter);
            }
            let set: BTreeSet<_> = chunks.iter().copied().collect();
            prop_assert_eq!(refs.len(), set.len() as u64);
            for origin in 0..3 {
                for counter in (0..42).chain(65_498..=65_535) {
                    prop_assert_eq!(refs.contains(&salt(origin), counter), set.contains(&(origin, counter)));
                }
            }
            let bytes = encode(&refs).unwrap();
            prop_assert_eq!(decode::<Refs>(&bytes, &Limits::default()).unwrap(), refs);
        }
    }

    proptest! {
        #[test]
        fn two_that_are_united_are_as_one_that_was_made_of_all(
            a in proptest::collection::vec((0_u8..3, prop_oneof![0_u16..40, 65_500..=65_535_u16]), 0..100),
            b in proptest::collection::vec((0_u8..3, prop_oneof![0_u16..40, 65_500..=65_535_u16]), 0..100),
        ) {
            let refs = |chunks: &[(u8, u16)]| {
                let mut refs = Refs::default();
                for (origin, counter) in chunks {
                    refs.insert(salt(*origin), *counter);
                }
                refs
            };
            let mut united = refs(&a);
            united.unite(&refs(&b));
            prop_assert_eq!(united, refs(&[a, b].concat()));
        }
    }

    #[test]
    fn a_full_pack_is_one_range_of_few_bytes() {
        let mut refs = Refs::default();
        for counter in 0..=65_535 {
            refs.insert(salt(1), counter);
        }
        assert_eq!(refs.origins().next().unwrap().1, [(0, 65_535)]);
        assert!(encode(&refs).unwrap().len() < 30);
    }

    #[test]
    fn what_is_not_in_order_is_refused() {
        let read = |rows: Vec<(Salt, Vec<u16>)>| of_rows(rows).unwrap_err();
        for counters in [
            vec![],
            vec![1],
            vec![2, 1],
            vec![0, 1, 2, 3],
            vec![5, 6, 0, 1],
        ] {
            assert_eq!(read(vec![(salt(1), counters)]), RefsError::Ranges);
        }
        let whole = || vec![0, 1];
        for (a, b) in [(1, 1), (2, 1)] {
            let rows = vec![(salt(a), whole()), (salt(b), whole())];
            assert_eq!(read(rows), RefsError::Origins);
        }
    }
}
