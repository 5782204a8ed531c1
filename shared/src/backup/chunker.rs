//! Where content is cut: `FastCDC` (Xia et al., IEEE TPDS 2020) over a table that only who has the volume's key knows. The masks
//! stand here and the cut points in recorded vectors, so that a dependency can't move them: a boundary that moves silently
//! uploads everything again.

use fastcdc::v2020::cut_gear;

use super::VolumeKey;

/// Lengths of chunks, in bytes, and the masks that give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub min: usize,
    pub average: usize,
    pub max: usize,
    strict: u64,
    loose: u64,
}

impl Sizes {
    /// Of most content.
    pub const USUAL: Self = Self {
        min: 128 * 1024,
        average: 512 * 1024,
        max: super::MAX_CHUNK_BYTES,
        strict: 0x0000_d917_4753_7000,
        loose: 0x0000_d907_0753_7000,
    };
    /// Of databases, which change a little in many places.
    pub const DATABASE: Self = Self {
        min: 64 * 1024,
        average: 256 * 1024,
        max: 1024 * 1024,
        strict: 0x0000_d917_0753_7000,
        loose: 0x0000_d907_0353_7000,
    };
}

/// Cuts content of one volume.
#[derive(Clone)]
pub struct Chunker {
    sizes: Sizes,
    gear: Box<[u64; 256]>,
    /// The same, shifted left by one: two bytes are taken at a time.
    gear_twice: Box<[u64; 256]>,
}

impl Chunker {
    pub fn new(key: &VolumeKey, sizes: Sizes) -> Self {
        let gear = key.gear();
        let mut gear_twice = gear.clone();
        for number in gear_twice.iter_mut() {
            *number <<= 1;
        }
        Self {
            sizes,
            gear,
            gear_twice,
        }
    }

    /// The length of the first chunk of `content`, which is cut off at its own end where it has fewer than the maximum of
    /// bytes: so there have to be that many, unless there are no more. 0 where there is nothing.
    pub fn cut(&self, content: &[u8]) -> usize {
        let (strict, loose) = (self.sizes.strict, self.sizes.loose);
        let (_, length) = cut_gear(
            content,
            self.sizes.min,
            self.sizes.average,
            self.sizes.max,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &*self.gear,
            &*self.gear_twice,
        );
        length
    }
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunker({:?})", self.sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(chunker: &Chunker, mut content: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !content.is_empty() {
            let length = chunker.cut(content);
            lengths.push(length);
            content = &content[length..];
        }
        lengths
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// By the text of docs/formats/backup.md, byte by byte.
    fn as_described(key: &VolumeKey, sizes: Sizes, content: &[u8]) -> usize {
        if content.len() <= sizes.min {
            return content.len();
        }
        let (gear, end) = (key.gear(), content.len().min(sizes.max));
        let mut hash = 0_u64;
        for (at, byte) in content.iter().enumerate().take(end).skip(sizes.min) {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            let mask = if at < sizes.average {
                sizes.strict
            } else {
                sizes.loose
            };
            if hash & mask == 0 {
                return at;
            }
        }
        end
    }

    #[test]
    fn cuts_are_where_the_format_says() {
        let key = VolumeKey::new([7; 32]);
        let content = noise(24 << 20);
        for sizes in [Sizes::USUAL, Sizes::DATABASE] {
            let chunker = Chunker::new(&key, sizes);
            let mut rest = content.as_slice();
            while !rest.is_empty() {
                let length = chunker.cut(rest);
                assert_eq!(length, as_described(&key, sizes, rest));
                rest = &rest[length..];
            }
        }
    }

    #[test]
    fn what_is_inserted_moves_few_boundaries() {
        let chunker = Chunker::new(&VolumeKey::new([7; 32]), Sizes::USUAL);
        let content = noise(24 << 20);
        let mut changed = content.clone();
        changed.splice(10_000_000..10_000_000, *b"inserted");
        let ends = |lengths: Vec<usize>| {
            let end = |at: &mut usize, length| {
                *at += length;
                Some(*at)
            };
            lengths.into_iter().scan(0, end).collect::<Vec<_>>()
        };
        let before = ends(lengths(&chunker, &content));
        let after = ends(lengths(&chunker, &changed));
        let shifted = before
            .iter()
            .map(|end| end + usize::from(*end > 10_000_000) * 8);
        let moved = shifted.filter(|end| !after.contains(end)).count();
        assert!(moved <= 3, "{moved} of {}", before.len());
    }

    #[test]
    fn lengths_are_within_their_bounds_and_another_key_cuts_elsewhere() {
        let content = noise(24 << 20);
        let chunker = Chunker::new(&VolumeKey::new([7; 32]), Sizes::USUAL);
        let all = lengths(&chunker, &content);
        let (last, whole) = all.split_last().unwrap();
        assert!(*last <= Sizes::USUAL.max);
        assert!(
            whole
                .iter()
                .all(|length| (Sizes::USUAL.min..=Sizes::USUAL.max).contains(length))
        );
        let average = content.len() / all.len();
        assert!((400_000..800_000).contains(&average), "{average}");
        let other = Chunker::new(&VolumeKey::new([8; 32]), Sizes::USUAL);
        assert_ne!(lengths(&other, &content), all);
        assert_eq!(lengths(&chunker, &vec![0; 5 << 20]).len(), 3);
        assert_eq!((chunker.cut(&[]), chunker.cut(b"few")), (0, 3));
    }
}
