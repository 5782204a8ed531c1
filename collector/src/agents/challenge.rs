//! Nonces that prove that a return was signed just now: the time, and an HMAC of it (RFC 2104).
//!
//! Nothing is stored. Every collector of the fleet takes every other's, because the key comes from the
//! issuing CA's, which they share.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::{Duration, OffsetDateTime};

use crate::ca::Ca;
use crate::store::{timestamp, unix_millis};
use infratrack_shared::time::UnixMillis;

/// How long a nonce is good.
const VALID: Duration = Duration::seconds(60);
/// Clocks of collectors may differ by this much.
const SKEW: Duration = Duration::seconds(5);
const TIME_BYTES: usize = 8;
const RANDOM_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
/// What the MAC covers begins with this.
const CONTEXT: &[u8] = b"infratrack challenge 1\n";

/// A nonce: milliseconds since the Unix epoch (big-endian), random bytes, and the MAC of both.
pub fn nonce(ca: &Ca, now: OffsetDateTime) -> Vec<u8> {
    let random: [u8; RANDOM_BYTES] = rand::random();
    let head = [&unix_millis(now).0.to_be_bytes()[..], &random].concat();
    let keys = ca.derived_keys(CONTEXT);
    let mac = keys
        .first()
        .map(|key| mac(key, &head).finalize().into_bytes());
    // Without a key there is no CA to sign either; the nonce is refused.
    [&head[..], &mac.unwrap_or_default()].concat()
}

/// Whether `nonce` is one of this fleet, from the last 60 s.
pub fn is_fresh(ca: &Ca, nonce: &[u8], now: OffsetDateTime) -> bool {
    if nonce.len() != TIME_BYTES + RANDOM_BYTES + MAC_BYTES {
        return false;
    }
    let (head, tag) = nonce.split_at(TIME_BYTES + RANDOM_BYTES);
    let Some(millis) = head.first_chunk() else {
        return false;
    };
    let age = now - timestamp(UnixMillis(i64::from_be_bytes(*millis)));
    let keys = ca.derived_keys(CONTEXT);
    let made_by = |key| mac(key, head).verify_slice(tag).is_ok();
    (-SKEW..=VALID).contains(&age) && keys.iter().any(made_by)
}

fn mac(key: &[u8; 32], head: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.expect("HMAC takes a key of any length");
    mac.update(head);
    mac
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

    fn ca() -> (Ca, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
        (ca, dir)
    }

    #[test]
    fn a_nonce_is_good_for_a_minute_at_every_collector() {
        let (ca, dir) = ca();
        let nonce = nonce(&ca, NOW);
        let another = Ca::open(dir.path()).expect("opened");
        for (age, good) in [(-6, false), (-5, true), (0, true), (60, true), (61, false)] {
            let now = NOW + Duration::seconds(age);
            assert_eq!(is_fresh(&another, &nonce, now), good, "{age} s");
        }
    }

    #[test]
    fn a_changed_or_foreign_nonce_is_refused() {
        let (ca, _dir) = ca();
        let (other, _other_dir) = self::ca();
        let good = nonce(&ca, NOW);
        assert!(!is_fresh(&other, &good, NOW));
        for at in 0..good.len() {
            let mut turned = good.clone();
            turned[at] ^= 1;
            assert!(!is_fresh(&ca, &turned, NOW), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(!is_fresh(&ca, &good[..length], NOW));
        }
        assert!(!is_fresh(&ca, &[&good[..], &[0]].concat(), NOW));
    }
}
