//! A sample host's facts, in the shapes in which an agent sends them (`agent/src/collect/`).

use std::net::IpAddr;

use infratrack_shared::digest::Digest;
use serde_json::{Map, Value, json};

use super::member::{Member, Role, Trouble};
use super::software;
use crate::store::facts::Fact;

/// The facts of a host, by key. Of `version` 1, before its last upgrade; of 2, as it is.
pub(super) fn facts(member: Member, version: u64) -> Vec<Fact> {
    let mut all = vec![
        ("facts.block_devices", block_devices(member)),
        ("facts.cpu", cpu(member)),
        ("facts.dns", dns(member)),
        ("facts.identity", identity(member)),
        ("facts.kernel", kernel(member, version)),
        ("facts.listening", listening(member)),
        ("facts.memory", memory(member)),
        ("facts.mounts", mounts(member)),
        ("facts.network", network(member)),
        ("facts.os", os(member)),
        ("facts.systemd", systemd(member)),
        ("facts.time", time(member)),
        ("facts.users", users(member)),
        (
            "facts.virtualization",
            json!({"kind": "vm", "hypervisor": "kvm"}),
        ),
    ];
    if member.system().id != "almalinux" {
        all.push(("facts.updates", updates(member)));
    }
    all.sort_unstable_by_key(|(key, _)| *key);
    let fact = |(key, body): (&str, Value)| Fact {
        host: member.host(),
        key: key.to_owned(),
        stream_ordinal: 1,
        version,
        hash: Digest::of(body.to_string().as_bytes()),
        body,
        instance: member.instance(0),
    };
    all.into_iter().map(fact).collect()
}

/// Where others reach it.
pub(super) fn address(member: Member) -> Option<IpAddr> {
    member.address().parse().ok()
}

fn identity(member: Member) -> Value {
    json!({
        "hostname": member.name(), "machine_id": member.machine_id(), "boot_id": member.boot(0),
    })
}

fn os(member: Member) -> Value {
    let system = member.system();
    json!({
        "id": system.id, "name": system.name, "version": system.version, "pretty_name": system.pretty_name,
    })
}

fn kernel(member: Member, version: u64) -> Value {
    let system = member.system();
    let is_old = version == 1 || member.trouble() == Some(Trouble::RebootRequired);
    let release = if is_old {
        system.old_kernel
    } else {
        system.kernel
    };
    json!({
        "release": release, "arch": "x86_64", "version": "#1 SMP PREEMPT_DYNAMIC",
    })
}

fn cpu(member: Member) -> Value {
    let (model, vendor) = match member.roll("cpu", 3) {
        0 => ("Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz", "GenuineIntel"),
        _ => ("AMD EPYC 7763 64-Core Processor", "AuthenticAMD"),
    };
    let threads = member.threads();
    json!({
        "model": model, "vendor": vendor, "sockets": 1, "cores": threads, "threads": threads,
    })
}

fn memory(member: Member) -> Value {
    json!({
        "total_bytes": member.memory_bytes(), "swap_total_bytes": 0, "swap_devices": {},
    })
}

fn block_devices(member: Member) -> Value {
    let disk = |gib: u64| json!({"size_bytes": gib << 30, "rotational": false, "removable": false, "read_only": false});
    let mut devices = Map::new();
    let mut system = disk(41);
    system["partitions"] =
        json!({"vda1": {"size_bytes": 40_u64 << 30}, "vda15": {"size_bytes": 1_u64 << 30}});
    devices.insert("vda".to_owned(), system);
    if member.data_mount().is_some() {
        devices.insert("vdb".to_owned(), disk(100 << member.roll("data", 3)));
    }
    json!({"devices": devices})
}

fn mounts(member: Member) -> Value {
    let mut mounts = Map::new();
    let mount = |source: &str, kind: &str, options: &str| json!({"source": source, "type": kind, "options": options});
    mounts.insert("/".to_owned(), mount("/dev/vda1", "ext4", "rw,relatime"));
    mounts.insert(
        "/boot".to_owned(),
        mount("/dev/vda15", "ext4", "rw,relatime"),
    );
    if let Some(point) = member.data_mount() {
        mounts.insert(point.to_owned(), mount("/dev/vdb", "xfs", "rw,noatime"));
    }
    json!({"mounts": mounts})
}

fn network(member: Member) -> Value {
    let [a, b, c] = ["a", "b", "c"].map(|part| member.roll(part, 256));
    json!({"interfaces": {
        "lo": {"mtu": 65536, "state": "unknown", "addresses": ["127.0.0.1/8", "::1/128"]},
        "ens3": {
            "mac": format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"), "mtu": 1500, "state": "up",
            "addresses": [format!("{}/16", member.address()), format!("2001:db8:{:x}::{:x}/64", a, member.0 + 16)],
        },
    }})
}

fn dns(member: Member) -> Value {
    json!({
        "manager": "systemd-resolved", "nameservers": ["127.0.0.53"],
        "search": [format!("{}.example.org", member.site())],
    })
}

fn time(member: Member) -> Value {
    let is_synchronized = member.trouble() != Some(Trouble::ClockSkew);
    json!({
        "timezone": "Etc/UTC",
        "synchronization": {"systemd-timesyncd": {
            "synchronized": is_synchronized, "configured_servers": ["ntp.example.org"],
        }},
    })
}

fn systemd(member: Member) -> Value {
    let (state, failed) = match member.trouble() {
        Some(Trouble::FailedUnits) => ("degraded", vec!["certbot.service", "logrotate.service"]),
        _ => ("running", Vec::new()),
    };
    json!({"version": "252.31", "state": state, "failed_units": failed})
}

fn users(member: Member) -> Value {
    let mut users = vec![
        json!({"name": "root", "uid": 0, "gid": 0, "home": "/root", "shell": "/bin/bash"}),
        json!({"name": "deploy", "uid": 1000, "gid": 1000, "home": "/home/deploy", "shell": "/bin/bash",
               "groups": ["sudo"]}),
    ];
    if member.role() == Role::Db {
        users.push(json!({
            "name": "postgres", "uid": 114, "gid": 120, "home": "/var/lib/postgresql", "shell": "/bin/bash",
        }));
    }
    json!({"users": users})
}

fn listening(member: Member) -> Value {
    let (process, unit, port) = member.role().service();
    let socket = |address: &str, port: u16, user: &str, process: &str, unit: &str| json!({"protocol": "tcp", "address": address, "port": port, "user": user, "process": process, "unit": unit});
    json!({
        "sockets": [
            socket("0.0.0.0", 22, "root", "sshd", "ssh.service"),
            socket("0.0.0.0", port, "root", process, unit),
            socket("127.0.0.53", 53, "systemd-resolve", "systemd-resolve", "systemd-resolved.service"),
        ],
        "udp_ports_left_out": "32768-60999",
    })
}

/// What apt would upgrade, in short.
fn updates(member: Member) -> Value {
    let (pending, security) = software::counts(member);
    json!({"manager": "apt", "pending": pending, "security": security, "blocked": 0})
}
