//! Who the host says it is: `facts.identity`, and the same for identity and uplink.
//!
//! The boot id orders records across reboots, so it is an error, not a guess, where it can't be
//! read.

use std::io;

use infratrack_shared::ids::BootId;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

#[derive(Serialize)]
struct Facts {
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_id: Option<String>,
}

/// The body of `facts.identity`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    to_value(&Facts {
        hostname: hostname(root).map_err(|error| format!("hostname: {error}"))?,
        machine_id: machine_id(root).ok(),
        boot_id: boot_id(root).ok().map(|id| id.to_string()),
    })
}

/// The kernel's host name.
pub fn hostname(root: &Root) -> io::Result<String> {
    one_line(root, "proc/sys/kernel/hostname")
}

/// `/etc/machine-id`: the same until the system is installed anew, and in each clone of its disk.
pub fn machine_id(root: &Root) -> io::Result<String> {
    let id =
        one_line(root, "etc/machine-id").or_else(|_| one_line(root, "var/lib/dbus/machine-id"))?;
    // An image that is yet to be booted says "uninitialized".
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(id)
    } else {
        Err(invalid("no machine id in /etc/machine-id"))
    }
}

/// The id of this boot.
pub fn boot_id(root: &Root) -> io::Result<BootId> {
    one_line(root, "proc/sys/kernel/random/boot_id")?
        .parse()
        .map_err(|_| invalid("no UUID in /proc/sys/kernel/random/boot_id"))
}

/// Milliseconds since boot, time asleep included (`CLOCK_BOOTTIME`).
pub fn mono_ms() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
}

fn one_line(root: &Root, path: &str) -> io::Result<String> {
    let text = root.read(path)?;
    match text.trim() {
        "" => Err(invalid(&format!("/{path} is empty"))),
        text => Ok(text.to_owned()),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn ids_are_read_and_what_is_none_is_refused() {
        let (_keep, root) = fixture::host(&[
            ("proc/sys/kernel/hostname", "web-1\n"),
            ("etc/machine-id", "uninitialized\n"),
            ("proc/sys/kernel/random/boot_id", "not a uuid\n"),
        ]);
        assert_eq!(hostname(&root).unwrap(), "web-1");
        assert!(machine_id(&root).is_err());
        assert!(boot_id(&root).is_err());
        let body = fixture::json(&collect(&root).unwrap());
        assert_eq!(body, serde_json::json!({"hostname": "web-1"}));
    }

    #[test]
    fn this_host_has_booted_and_its_clock_runs() {
        assert!(boot_id(&Root::default()).is_ok());
        let before = mono_ms();
        assert!(before > 0 && mono_ms() >= before);
    }
}
