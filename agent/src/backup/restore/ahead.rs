//! Reading ahead: what is small lies beside what comes next, since both were packed as the walk found them. The more of a pack is
//! asked for in small pieces, the longer the pieces that are read.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use infratrack_shared::backup::{ChunkId, PackHash};
use infratrack_shared::ids::SnapshotId;
use infratrack_shared::wire::backup::Place;

use super::lanes::locked;
use super::source::{Source, SourceError};

/// The first read of a pack.
const SHORTEST_BYTES: u32 = 128 * 1024;
/// By how much more than that it is at most, as a power of two: 8 MiB.
const LONGEST: u32 = 6;
/// Bytes that are kept for what comes next.
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// Packs of which it is known how often they were read.
const PACKS: usize = 10_000;

/// A source, and what was read of it last.
pub(super) struct Ahead<'a> {
    source: &'a dyn Source,
    state: Mutex<State>,
    is_read: Condvar,
}

#[derive(Default)]
struct State {
    /// The one that was used last is the last.
    kept: VecDeque<Block>,
    kept_bytes: usize,
    under_way: Vec<(PackHash, Range<u32>)>,
    reads: HashMap<PackHash, u32>,
}

struct Block {
    pack: PackHash,
    range: Range<u32>,
    bytes: Arc<Vec<u8>>,
}

impl State {
    fn find(&mut self, pack: &PackHash, range: &Range<u32>) -> Option<(Arc<Vec<u8>>, usize)> {
        let is_it = |block: &Block| block.pack == *pack && covers(&block.range, range);
        let at = self.kept.iter().position(is_it)?;
        let block = self.kept.remove(at)?;
        let found = Arc::clone(&block.bytes);
        let from = usize::try_from(range.start - block.range.start).ok()?;
        self.kept.push_back(block);
        Some((found, from))
    }

    fn is_under_way(&self, pack: &PackHash, range: &Range<u32>) -> bool {
        let mut under_way = self.under_way.iter();
        under_way.any(|(of, read)| of == pack && covers(read, range))
    }

    /// How long the next read of a pack is.
    fn length(&mut self, pack: &PackHash) -> u32 {
        if self.reads.len() >= PACKS {
            self.reads.clear();
        }
        let reads = self.reads.entry(*pack).or_default();
        let length = SHORTEST_BYTES << reads.saturating_sub(1).min(LONGEST);
        *reads = reads.saturating_add(1);
        length
    }

    fn keep(&mut self, block: Block) {
        self.kept_bytes += block.bytes.len();
        self.kept.push_back(block);
        while self.kept_bytes > KEPT_BYTES
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.bytes.len();
        }
    }
}

fn covers(block: &Range<u32>, range: &Range<u32>) -> bool {
    block.start <= range.start && range.end <= block.end
}

impl<'a> Ahead<'a> {
    pub(super) fn new(source: &'a dyn Source) -> Self {
        Self {
            source,
            state: Mutex::default(),
            is_read: Condvar::new(),
        }
    }

    /// What is read where this is asked for: around it, of what the pack is known to have and is not kept already.
    fn widened(&self, state: &mut State, pack: &PackHash, range: &Range<u32>) -> Range<u32> {
        let length = state.length(pack);
        let is_short = range.end - range.start < length;
        let Some(there) = self.source.extent(pack).filter(|_| is_short) else {
            return range.clone();
        };
        let (mut start, mut end) = (there.start, there.end);
        for kept in state.kept.iter().filter(|block| block.pack == *pack) {
            if kept.range.start <= range.start {
                start = start.max(kept.range.end);
            } else if kept.range.end >= range.end {
                end = end.min(kept.range.start);
            }
        }
        let start = (range.start / length * length).max(start).min(range.start);
        start..start.saturating_add(length).min(end).max(range.end)
    }
}

impl Source for Ahead<'_> {
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError> {
        self.source.snapshot(id)
    }

    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
        self.source.places(ids)
    }

    fn extent(&self, pack: &PackHash) -> Option<Range<u32>> {
        self.source.extent(pack)
    }

    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
        let mut state = locked(&self.state);
        let wide = loop {
            if let Some((bytes, from)) = state.find(pack, &range) {
                drop(state);
                return Ok(bytes[from..from + range.len()].to_vec());
            }
            if !state.is_under_way(pack, &range) {
                break self.widened(&mut state, pack, &range);
            }
            let waited = self.is_read.wait(state);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        };
        if wide == range {
            drop(state);
            return self.source.read(pack, range);
        }
        state.under_way.push((*pack, wide.clone()));
        drop(state);
        let read = self.source.read(pack, wide.clone());
        let mut state = locked(&self.state);
        state.under_way.retain(|one| *one != (*pack, wide.clone()));
        self.is_read.notify_all();
        let Ok(bytes) = read else {
            drop(state);
            // A hole beside it is not one in it.
            return self.source.read(pack, range);
        };
        let from = usize::try_from(range.start - wide.start).unwrap_or(usize::MAX);
        let wanted = bytes.get(from..).and_then(|rest| rest.get(..range.len()));
        let wanted = wanted.map(<[u8]>::to_vec);
        state.keep(Block {
            pack: *pack,
            range: wide,
            bytes: Arc::new(bytes),
        });
        drop(state);
        wanted.map_or_else(|| self.source.read(pack, range), Ok)
    }

    fn read_bytes(&self) -> u64 {
        self.source.read_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const PACK_BYTES: u32 = 16 << 20;

    /// One pack, whose bytes are their own places; how often it was read, and how much of it.
    #[derive(Default)]
    struct Pack {
        reads: AtomicU64,
        bytes: AtomicU64,
        hole: Option<u32>,
    }

    impl Source for Pack {
        fn snapshot(&self, _: SnapshotId) -> Result<Vec<u8>, SourceError> {
            Ok(Vec::new())
        }

        fn places(&self, _: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
            Ok(Vec::new())
        }

        fn extent(&self, _: &PackHash) -> Option<Range<u32>> {
            Some(64..PACK_BYTES)
        }

        fn read(&self, _: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
            assert!(range.start >= 64 && range.end <= PACK_BYTES, "{range:?}");
            if self.hole.is_some_and(|hole| range.contains(&hole)) {
                let source = std::io::ErrorKind::InvalidData.into();
                let what = "a hole".to_owned();
                return Err(SourceError::Unreadable { what, source });
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(range.len() as u64, Ordering::Relaxed);
            Ok(range.map(|at| at.to_le_bytes()[1]).collect())
        }

        fn read_bytes(&self) -> u64 {
            self.bytes.load(Ordering::Relaxed)
        }
    }

    fn wanted(range: Range<u32>) -> Vec<u8> {
        range.map(|at| at.to_le_bytes()[1]).collect()
    }

    #[test]
    fn a_pack_that_is_asked_for_in_pieces_is_read_in_a_few_long_ones_and_once() {
        let pack = Pack::default();
        let ahead = Ahead::new(&pack);
        let hash = PackHash::new([1; 32]);
        for start in (64..PACK_BYTES - 3000).step_by(3000) {
            let read = ahead.read(&hash, start..start + 3000).unwrap();
            assert!(read == wanted(start..start + 3000), "{start}");
        }
        assert!(pack.reads.load(Ordering::Relaxed) <= 40);
        let twice = u64::from(PACK_BYTES) * 5 / 4;
        assert!(pack.read_bytes() <= twice, "{}", pack.read_bytes());
    }

    #[test]
    fn one_small_piece_costs_little_and_a_long_one_no_more_than_itself() {
        let pack = Pack::default();
        let ahead = Ahead::new(&pack);
        ahead
            .read(&PackHash::new([1; 32]), 9_000_000..9_000_100)
            .unwrap();
        assert!(pack.read_bytes() <= u64::from(SHORTEST_BYTES));
        let long = 1_000_000..9_000_000;
        let read = ahead.read(&PackHash::new([2; 32]), long.clone()).unwrap();
        assert!(read == wanted(long));
        assert!(pack.read_bytes() <= u64::from(SHORTEST_BYTES) + 8_000_000);
    }

    #[test]
    fn a_hole_is_not_one_in_its_neighbours() {
        let pack = Pack {
            hole: Some(1000),
            ..Pack::default()
        };
        let ahead = Ahead::new(&pack);
        let hash = PackHash::new([1; 32]);
        assert!(ahead.read(&hash, 900..1100).is_err());
        assert!(ahead.read(&hash, 2000..2100).is_ok());
    }

    #[test]
    fn threads_that_want_the_same_read_it_once() {
        let pack = Pack::default();
        let ahead = Ahead::new(&pack);
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                let ahead = &ahead;
                scope.spawn(move || {
                    let start = 1000 + thread * 1000;
                    let hash = PackHash::new([1; 32]);
                    ahead.read(&hash, start..start + 100).unwrap();
                });
            }
        });
        assert_eq!(pack.reads.load(Ordering::Relaxed), 1);
    }
}
