//! Versions of Debian packages: `[epoch:]upstream[-revision]`, ordered as deb-version(7) says.

use thiserror::Error;

use super::{push_number, split_while};

/// In a key: the end of a part, and of a run of what is no digit. `~` is before it, everything else after it.
const TILDE: u8 = 1;
const END: u8 = 2;
/// The first letter; all other bytes follow the letters.
const LETTERS: u8 = 3;

/// Why a text is no version (deb-version(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error("is empty")]
    Empty,
    #[error("has an epoch that is no number up to 2147483647")]
    Epoch,
    #[error("has nothing between its epoch and its revision")]
    NoUpstream,
    #[error("has nothing after its last -")]
    NoRevision,
    #[error("has {0:?}, which is no letter, digit or one of . + - ~ :")]
    Character(char),
}

/// The parts of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// Digits; empty where none is given, which is 0.
    epoch: &'a str,
    upstream: &'a str,
    /// Empty where none is given, which is `0`.
    revision: &'a str,
}

impl<'a> Version<'a> {
    /// Reads what dpkg accepts.
    pub fn parse(text: &'a str) -> Result<Self, Invalid> {
        let version = Self::split(text);
        if text.is_empty() {
            return Err(Invalid::Empty);
        }
        let is_epoch = |digits: &str| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<i32>().is_ok()
        };
        if text.contains(':') && !is_epoch(version.epoch) {
            return Err(Invalid::Epoch);
        }
        if version.upstream.is_empty() {
            return Err(Invalid::NoUpstream);
        }
        if text.ends_with('-') {
            return Err(Invalid::NoRevision);
        }
        let fits = |char: char| char.is_ascii_alphanumeric() || ".+-~:".contains(char);
        match text.chars().find(|char| !fits(*char)) {
            Some(char) => Err(Invalid::Character(char)),
            None => Ok(version),
        }
    }

    /// Splits any text as a version: what a host's own database holds has a place in the order, whatever it is.
    pub fn split(text: &'a str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self {
            epoch,
            upstream,
            revision,
        }
    }

    /// Bytes that sort as the versions do; equal for versions that are equal, as `1.0` and `1.0-0`.
    pub fn sort_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(2 * (self.upstream.len() + self.revision.len()) + 4);
        for part in [self.epoch, self.upstream, self.revision] {
            push_part(&mut key, part.as_bytes());
        }
        key
    }
}

/// Runs of what is no digit and of digits in turns, as dpkg's `verrevcmp` compares them. Whatever is not there counts as
/// nothing and as 0: `1.` is `1.0`.
fn push_part(key: &mut Vec<u8>, part: &[u8]) {
    let mut rest = part;
    loop {
        let (others, from_digits) = split_while(rest, |byte| !byte.is_ascii_digit());
        key.extend(others.iter().map(|byte| weight(*byte)));
        key.push(END);
        let (digits, after) = split_while(from_digits, |byte| byte.is_ascii_digit());
        push_number(key, digits);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    key.push(END);
}

/// `~`, then the end of the run ([`END`]), then letters, then all others, each in the order of ASCII.
fn weight(byte: u8) -> u8 {
    match byte {
        b'~' => TILDE,
        b'A'..=b'Z' => LETTERS + (byte - b'A'),
        b'a'..=b'z' => LETTERS + 26 + (byte - b'a'),
        // No digit comes here; the sixty-odd bytes that are none of the above leave room for all.
        other => {
            let letters_and_tilde_below = match other {
                0..b'A' => 0,
                b'['..b'a' => 26,
                b'{'..b'~' => 52,
                _ => 53,
            };
            let digits_below = if other > b'9' { 10 } else { 0 };
            LETTERS + 52 + (other - letters_and_tilde_below - digits_below)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Vec<u8> {
        Version::split(text).sort_key()
    }

    /// Each before the next.
    const ORDERED: [&str; 24] = [
        "0~~",
        "0~~a",
        "0~",
        "0",
        "0a",
        "0+",
        "0.1~rc1",
        "0.1",
        "0.1-0.1",
        "0.1-1~bpo12+1",
        "0.1-1",
        "0.1-1+b1",
        "0.1-1.1",
        "0.1-2",
        "0.1a",
        "0.1+git1",
        "0.1.1",
        "0.2",
        "0.10",
        "1",
        "1:0~",
        "1:0",
        "2:0",
        "10:0",
    ];

    #[test]
    fn versions_sort_as_the_manual_says() {
        for (place, before) in ORDERED.iter().enumerate() {
            for after in &ORDERED[place + 1..] {
                assert!(key(before) < key(after), "{before} {after}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_nothing_and_zero() {
        for (one, other) in [
            ("1.0", "1.0-0"),
            ("0:1", "1"),
            ("1.", "1.0"),
            ("1.00", "1.0"),
            ("1.01", "1.1"),
            ("00:1-00", "1"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
    }

    #[test]
    fn long_numbers_do_not_overflow() {
        let (nines, more) = ("9".repeat(300), format!("1{}", "0".repeat(300)));
        assert!(key(&nines) < key(&more));
        assert!(key("18446744073709551615") < key("18446744073709551616"));
        assert_eq!(key(&format!("{}7", "0".repeat(300))), key("7"));
    }

    #[test]
    fn all_bytes_have_a_weight_of_their_own() {
        let mut weights: Vec<u8> = (0..=u8::MAX)
            .filter(|byte| !byte.is_ascii_digit())
            .map(weight)
            .collect();
        assert!(weights.iter().all(|weight| *weight != END));
        weights.sort_unstable();
        weights.dedup();
        assert_eq!(weights.len(), 246);
    }

    #[test]
    fn what_dpkg_refuses_is_refused() {
        for (text, why) in [
            ("", Invalid::Empty),
            (":1", Invalid::Epoch),
            ("a:1", Invalid::Epoch),
            ("-1:1", Invalid::Epoch),
            ("2147483648:1", Invalid::Epoch),
            ("1:", Invalid::NoUpstream),
            ("-1", Invalid::NoUpstream),
            ("1-", Invalid::NoRevision),
            ("1.0 ", Invalid::Character(' ')),
            ("1_0", Invalid::Character('_')),
        ] {
            assert_eq!(Version::parse(text), Err(why), "{text:?}");
        }
        for text in ORDERED {
            assert!(Version::parse(text).is_ok(), "{text}");
        }
    }
}
