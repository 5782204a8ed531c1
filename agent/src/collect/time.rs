//! `facts.time`: the time zone, and which service keeps the clock, from what servers.
//!
//! Services are known by the names of running processes. Whether the clock is right is told for
//! systemd-timesyncd alone: it leaves a file, others answer only on their own sockets, and asking
//! the kernel (`adjtimex`) is refused by the agent's sandbox. A container has no clock of its own.

mod servers;

use std::collections::BTreeMap;

use serde::Serialize;

use super::fact::{to_value, unknown};
use super::{Reason, Root, process, virtualization};

/// Process names, which the kernel cuts to 15 bytes, and the services they are.
const SERVICES: &[(&str, &str)] = &[
    ("chronyd", "chronyd"),
    ("ntpd", "ntpd"),
    ("systemd-timesyn", "systemd-timesyncd"),
];
/// There from the first answer of a server on, until the next boot (systemd-timesyncd.service(8)).
const TIMESYNCD_SYNCHRONIZED: &str = "run/systemd/timesync/synchronized";

#[derive(Serialize)]
struct Facts {
    /// `Europe/Berlin`.
    timezone: rmpv::Value,
    /// By service; more than one is a mistake worth seeing.
    synchronization: rmpv::Value,
}

#[derive(Serialize)]
struct Service {
    synchronized: rmpv::Value,
    /// Those of its configuration; more may come by DHCP or be built in.
    configured_servers: rmpv::Value,
    /// Asked where there are no others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    configured_fallback_servers: Vec<String>,
}

/// The body of `facts.time`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let timezone = timezone(root);
    let synchronization = synchronization(root);
    if let (Err(no_timezone), Err(no_synchronization)) = (&timezone, &synchronization) {
        return Err(format!("{no_timezone}; {no_synchronization}"));
    }
    to_value(&Facts {
        timezone: timezone.map_or_else(|reason| unknown(&reason), Into::into),
        synchronization: synchronization.unwrap_or_else(|reason| unknown(&reason)),
    })
}

/// The zone `/etc/localtime` links to (localtime(5)), else the one Debian names in a file.
fn timezone(root: &Root) -> Result<String, Reason> {
    let named = || Some(root.find("etc/timezone")?.lines().next()?.to_owned());
    let linked = root.link("etc/localtime").and_then(|link| {
        let (_, zone) = link.rsplit_once("zoneinfo/")?;
        (!zone.is_empty()).then(|| zone.to_owned())
    });
    linked.or_else(named).ok_or_else(|| {
        "/etc/localtime is no link to a zone, and /etc/timezone names none".to_owned()
    })
}

fn synchronization(root: &Root) -> Result<rmpv::Value, Reason> {
    if virtualization::container(root).is_some() {
        return Err("a container's clock is its host's".to_owned());
    }
    let running = process::names(root)?;
    let services: BTreeMap<_, _> = SERVICES
        .iter()
        .filter(|(process, _)| running.contains(*process))
        .map(|(_, name)| Ok((*name, service(root, name)?)))
        .collect::<Result<_, Reason>>()?;
    if services.is_empty() {
        let names: Vec<_> = SERVICES.iter().map(|(_, name)| *name).collect();
        return Err(format!("none of {} runs", names.join(", ")));
    }
    to_value(&services)
}

fn service(root: &Root, name: &str) -> Result<Service, Reason> {
    let (synchronized, configured) = match name {
        "systemd-timesyncd" => (
            root.exists(TIMESYNCD_SYNCHRONIZED).into(),
            servers::of_timesyncd(root),
        ),
        "chronyd" => (unknown(&untold(name)), servers::of_chrony(root)),
        _ => (unknown(&untold(name)), servers::of_ntpd(root)),
    };
    let (configured_servers, configured_fallback_servers) = match configured {
        Ok(found) => (to_value(&found.servers)?, found.fallback),
        Err(reason) => (unknown(&reason), Vec::new()),
    };
    Ok(Service {
        synchronized,
        configured_servers,
        configured_fallback_servers,
    })
}

fn untold(service: &str) -> Reason {
    format!("{service} tells it on its own socket only, which is not asked")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    const TIMESYNCD: &str = include_str!("../../tests/fixtures/timesyncd.conf-ubuntu");
    const CHRONY: &str = include_str!("../../tests/fixtures/chrony.conf-rhel");
    const INIT: (&str, &str) = ("proc/1/comm", "systemd\n");

    fn told(files: &[(&str, &str)]) -> serde_json::Value {
        let (_keep, root) = fixture::host(files);
        fixture::json(&collect(&root).unwrap())
    }

    #[test]
    fn ubuntus_timesyncd_says_whether_it_ever_had_an_answer() {
        let zone = ("etc/localtime", "->/usr/share/zoneinfo/Europe/Berlin");
        let process = ("proc/612/comm", "systemd-timesyn\n");
        let configuration = ("etc/systemd/timesyncd.conf", TIMESYNCD);
        let files = [INIT, zone, process, configuration];
        let expected = |synchronized: bool| {
            json!({
                "timezone": "Europe/Berlin",
                "synchronization": {"systemd-timesyncd": {
                    "synchronized": synchronized,
                    "configured_servers": [],
                    "configured_fallback_servers": ["ntp.ubuntu.com"],
                }},
            })
        };
        assert_eq!(told(&files), expected(false));
        let synchronized = (TIMESYNCD_SYNCHRONIZED, "");
        let files = [INIT, zone, process, configuration, synchronized];
        assert_eq!(told(&files), expected(true));
    }

    #[test]
    fn rhels_chronyd_has_its_servers_and_no_word_on_the_clock() {
        let body = told(&[
            INIT,
            ("etc/localtime", "->../usr/share/zoneinfo/UTC"),
            ("proc/801/comm", "chronyd\n"),
            ("etc/chrony.conf", CHRONY),
        ]);
        let service = &body["synchronization"]["chronyd"];
        assert_eq!(
            service["configured_servers"],
            json!(["2.rhel.pool.ntp.org"])
        );
        assert!(service["synchronized"]["unknown"].is_string());
        assert_eq!(body["timezone"], "UTC");
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_no_empty_list() {
        let body = told(&[INIT, ("proc/2/comm", "ntpd\n"), ("etc/timezone", "UTC\n")]);
        let servers = &body["synchronization"]["ntpd"]["configured_servers"];
        assert!(servers["unknown"].is_string(), "{servers}");
    }

    #[test]
    fn a_copied_localtime_leaves_debians_file_or_nothing() {
        let copied = ("etc/localtime", "TZif2");
        let named = ("etc/timezone", "America/New_York\n");
        assert_eq!(told(&[INIT, copied, named])["timezone"], "America/New_York");
        let (_keep, root) = fixture::host(&[copied]);
        assert!(timezone(&root).is_err());
        let (_keep, root) = fixture::host(&[("etc/localtime", "->/usr/share/zoneinfo/")]);
        assert!(timezone(&root).is_err());
    }

    #[test]
    fn a_container_has_its_time_zone_and_its_hosts_clock() {
        let body = told(&[
            INIT,
            ("run/.containerenv", ""),
            ("etc/timezone", "Etc/UTC\n"),
        ]);
        let expected = json!({
            "timezone": "Etc/UTC",
            "synchronization": {"unknown": "a container's clock is its host's"},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn that_nothing_known_keeps_the_clock_is_said_with_what_was_looked_for() {
        let body = told(&[INIT, ("etc/timezone", "Etc/UTC\n")]);
        let reason = "none of chronyd, ntpd, systemd-timesyncd runs";
        assert_eq!(body["synchronization"]["unknown"], reason);
    }
}
