//! Versions of RPM packages: epoch, version and release, each ordered as `rpmvercmp` does (rpm-version(7), and
//! `rpmio/rpmvercmp.cc` of rpm 4.15 and later, which knows `^`).

use super::{push_number, split_while};

/// In a key, in their order: `~` is before the end, everything else after it.
const TILDE: u8 = 1;
const END: u8 = 2;
const CARET: u8 = 3;
const LETTERS: u8 = 4;
const DIGITS: u8 = 5;

/// Bytes that sort as `rpmvercmp` orders, part by part; an epoch that is not given is 0.
pub fn sort_key(epoch: Option<u32>, version: &str, release: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 * (version.len() + release.len()) + 8);
    key.extend(epoch.unwrap_or_default().to_be_bytes());
    push_part(&mut key, version.as_bytes());
    push_part(&mut key, release.as_bytes());
    key
}

/// Splits `[epoch:]version[-release]` as rpm prints it. What is before the `:` is an epoch where it is a number.
pub fn split(evr: &str) -> (Option<u32>, &str, &str) {
    let with_epoch = evr.split_once(':');
    let with_epoch = with_epoch.and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest)));
    let (epoch, rest) = with_epoch.map_or((None, evr), |(epoch, rest)| (Some(epoch), rest));
    let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, version, release)
}

/// Runs of letters and of digits; what is between them only separates.
fn push_part(key: &mut Vec<u8>, part: &[u8]) {
    let mut rest = part;
    loop {
        let separates = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'~' && byte != b'^';
        (_, rest) = split_while(rest, separates);
        match rest.first() {
            None => break,
            Some(b'~') => {
                key.push(TILDE);
                rest = &rest[1..];
            }
            Some(b'^') => {
                key.push(CARET);
                rest = &rest[1..];
            }
            Some(byte) if byte.is_ascii_digit() => {
                let (digits, after) = split_while(rest, |byte| byte.is_ascii_digit());
                key.push(DIGITS);
                push_number(key, digits);
                rest = after;
            }
            Some(_) => {
                let (letters, after) = split_while(rest, |byte| byte.is_ascii_alphabetic());
                key.push(LETTERS);
                key.extend(letters);
                // Before any letter: the shorter run is before a longer one that begins with it.
                key.push(0);
                rest = after;
            }
        }
    }
    key.push(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(version: &str) -> Vec<u8> {
        sort_key(None, version, "")
    }

    /// Each before the next; from rpm's own tests (`tests/rpmvercmp.at`).
    const ORDERED: [&str; 17] = [
        "1.0~~a",
        "1.0~rc1",
        "1.0~rc1^git1",
        "1.0",
        "1.0^",
        "1.0^git1~pre",
        "1.0^git1",
        "1.0^git2",
        "1.0a",
        "1.0.1~rc1",
        "1.0.1",
        "2.0",
        "2.0.1a",
        "5.5p1",
        "5.5p2",
        "5.5p10",
        "20101121",
    ];

    #[test]
    fn versions_sort_as_rpm_says() {
        for (place, before) in ORDERED.iter().enumerate() {
            for after in &ORDERED[place + 1..] {
                assert!(key(before) < key(after), "{before} {after}");
            }
        }
        assert!(key("xyz10") < key("10xyz"));
        assert!(key("xyz.4") < key("8"));
        assert!(sort_key(Some(1), "1", "1") > sort_key(None, "2", "1"));
        assert!(sort_key(None, "1", "2.el9") > sort_key(None, "1", "1.el9_4"));
    }

    #[test]
    fn what_only_separates_does_not_count() {
        for (one, other) in [
            ("2_0", "2.0"),
            ("a+b", "a.b"),
            ("1..0.", "1.0"),
            ("1.010", "1.10"),
            ("1.a", "1a"),
            ("1.1.\u{3b1}", "1.1.\u{3b2}"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
    }

    #[test]
    fn what_rpm_prints_is_split() {
        assert_eq!(split("1:3.2.2-6.el9_5"), (Some(1), "3.2.2", "6.el9_5"));
        assert_eq!(split("3.2.2-6"), (None, "3.2.2", "6"));
        assert_eq!(split("3.2.2"), (None, "3.2.2", ""));
        assert_eq!(split("a:1-2"), (None, "a:1", "2"));
    }
}
