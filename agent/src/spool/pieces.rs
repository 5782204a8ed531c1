//! How a value lies in sled: whole where it is small, else in pieces under keys of their own.
//!
//! sled writes a page of more than a quarter of a segment, which is 17 values of a kilobyte, to a file
//! beside its log that it never syncs, and whose loss takes older values of the page with it. No
//! piece is big enough for that, so there is no such file. A test counts them.

use super::backend::Key;

/// 20 pieces, the most a page may hold for a moment, with their keys stay below 16 KiB.
pub(super) const PIECE_BYTES: usize = 752;
/// Keys of small values count against the same room.
pub(super) const NAME_BYTES: usize = 32;

const WHOLE: u8 = 0;
const FIRST: u8 = 1;

/// What a stored head says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    Whole(&'a [u8]),
    /// The first piece, and how many follow.
    First(u32, &'a [u8]),
}

/// The pieces of a value: the head first.
pub(super) fn split(value: &[u8]) -> Vec<Vec<u8>> {
    if value.len() <= PIECE_BYTES {
        return vec![[&[WHOLE][..], value].concat()];
    }
    let mut pieces: Vec<_> = value.chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect();
    let further = u32::try_from(pieces.len() - 1).unwrap_or(u32::MAX);
    pieces[0] = [&[FIRST][..], &further.to_be_bytes(), &pieces[0]].concat();
    pieces
}

/// `None` for anything that [`split`] does not make.
pub(super) fn head(stored: &[u8]) -> Option<Head<'_>> {
    match stored.split_first()? {
        (&WHOLE, value) => Some(Head::Whole(value)),
        (&FIRST, rest) => {
            let (further, first) = rest.split_first_chunk()?;
            Some(Head::First(u32::from_be_bytes(*further), first))
        }
        _ => None,
    }
}

/// The key of a piece that is not the first.
pub(super) fn key(of: &Key, index: u32) -> Vec<u8> {
    [&b"p"[..], of.as_bytes(), &index.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_sum_of_its_pieces() {
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 10_000] {
            let value: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let pieces = split(&value);
            let joined = match head(&pieces[0]).unwrap() {
                Head::Whole(value) => value.to_vec(),
                Head::First(further, first) => {
                    assert_eq!(further as usize, pieces.len() - 1);
                    [first, &pieces[1..].concat()].concat()
                }
            };
            assert_eq!(joined, value);
        }
    }

    #[test]
    fn what_is_no_head_is_told() {
        for stored in [&[][..], &[2, 0], &[FIRST, 0, 0]] {
            assert_eq!(head(stored), None);
        }
    }
}
