//! What has the shape of an id or an address, and so is no secret that somebody put in its place: for documents in which nothing
//! says what is sensitive.

use std::net::IpAddr;

use uuid::Uuid;

use super::Mark;

/// A sensitive value that is as long is looked for, so that one that is the same is found.
const SHORTEST: usize = 6;

/// Whether a value looks like what it is said to be. Names do not: anything may be one.
pub(in super::super) fn has_shape(mark: Mark, text: &str) -> bool {
    match mark {
        Mark::Host => is_host(text),
        Mark::InstanceId | Mark::Uuid | Mark::Serial => is_id(text),
        Mark::MachineId => text.len() == 32 && is_hex(text),
        Mark::Mac => {
            let parts: Vec<_> = text.split([':', '-']).collect();
            parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && is_hex(part))
        }
        Mark::PublicAddress | Mark::PrivateAddress => is_address(text),
        Mark::Fqdn | Mark::Name => false,
    }
}

/// A host's id or name, in a tag that is called so.
fn is_host(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
}

/// As clouds give them: Amazon's and Oracle's with their beginnings, numbers, UUIDs, those of Scaleway after their zone.
fn is_id(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix("i-") {
        return (8..=17).contains(&rest.len()) && is_hex(rest);
    }
    if let Some(rest) = text.strip_prefix("ocid1.instance.") {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        return (20..=200).contains(&rest.len()) && rest.chars().all(is_part);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        return (SHORTEST..=20).contains(&text.len());
    }
    let uuid = match text.split_once('/') {
        Some((zone, uuid)) if is_zone(zone) => uuid,
        Some(_) => return false,
        None => text,
    };
    uuid.len() == 36 && Uuid::try_parse(uuid).is_ok()
}

/// `fr-par-1`
fn is_zone(text: &str) -> bool {
    let is = |part: &str, length, of: fn(&char) -> bool| {
        part.len() == length && part.chars().all(|letter| of(&letter))
    };
    match text.split('-').collect::<Vec<_>>()[..] {
        [country, place, number] => {
            is(country, 2, char::is_ascii_lowercase)
                && is(place, 3, char::is_ascii_lowercase)
                && is(number, 1, char::is_ascii_digit)
        }
        _ => false,
    }
}

/// With or without the length of its network's prefix.
fn is_address(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    address.len() >= SHORTEST && address.parse::<IpAddr>().is_ok() && length.parse::<u8>().is_ok()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_have_a_shape_and_what_could_be_anything_has_none() {
        for (mark, is, is_not) in [
            (
                Mark::InstanceId,
                &[
                    "i-0123412341234abcd",
                    "389012345",
                    "c3a1e2f4-0b1d-4e5a-9a8b-112233445566",
                    "fr-par-1/c3a1e2f4-0b1d-4e5a-9a8b-112233445566",
                    "ocid1.instance.oc1.phx.anyhqljrexample",
                ][..],
                &[
                    "i-hunter2hunter2",
                    "12345",
                    "hunter2-not-a-real-secret",
                    "hunter2/c3a1e2f4-0b1d-4e5a-9a8b-112233445566",
                    "0123456789abcdef0123456789abcdef",
                    "",
                ][..],
            ),
            (
                Mark::PublicAddress,
                &["192.0.2.1", "2001:db8::1", "192.0.2.1/24"],
                &["fe80::1%hunter2", "192.0.2.1/hunter2", "::1", "hunter2"],
            ),
            (
                Mark::Mac,
                &["52:54:00:ab:cd:ef", "52-54-00-AB-CD-EF"],
                &["52:54:00:ab:cd:eg", "525400abcdef", "5254:00:ab:cd:ef:0"],
            ),
            (Mark::Host, &["web-1.example.net"], &["see the wiki", ".x"]),
            (Mark::Name, &[], &["web-1"]),
            (Mark::Fqdn, &[], &["web-1.example.net"]),
        ] {
            for text in is {
                assert!(has_shape(mark, text), "{} {text}", mark.name());
            }
            for text in is_not {
                assert!(!has_shape(mark, text), "{} {text}", mark.name());
            }
        }
    }
}
