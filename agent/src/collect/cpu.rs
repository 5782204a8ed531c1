//! `facts.cpu`: model, sockets, cores and threads, and a container's share of them.
//!
//! From `/proc/cpuinfo`, whose fields differ by architecture; clock rates change by the second and
//! are left out.

use std::collections::BTreeSet;

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root, cgroup, virtualization};

#[derive(Debug, Default, PartialEq, Serialize)]
struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    /// Left out where the architecture does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cores: Option<usize>,
    threads: usize,
    /// How many CPUs a container may keep busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<f64>,
}

/// The body of `facts.cpu`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let mut facts = parse(&root.text("proc/cpuinfo")?);
    if facts.threads == 0 {
        return Err("/proc/cpuinfo names no processor".to_owned());
    }
    facts.model = facts.model.or_else(|| root.find("proc/device-tree/model"));
    if virtualization::container(root).is_some() {
        facts.quota = cgroup::cpu_quota(root);
    }
    to_value(&facts)
}

/// The first processor's feature flags (x86 only).
pub(super) fn flags(cpuinfo: &str) -> Option<&str> {
    fields(cpuinfo).find_map(|(name, value)| (name == "flags").then_some(value))
}

/// Whose the CPU is, as `/proc/cpuinfo` says it.
pub(super) fn vendor(root: &Root) -> Option<String> {
    parse(&root.read("proc/cpuinfo").ok()?).vendor
}

fn parse(cpuinfo: &str) -> Facts {
    let mut facts = Facts::default();
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    let mut socket = "";
    let mut part = None;
    for (name, value) in fields(cpuinfo) {
        match name {
            "processor" => facts.threads += 1,
            "model name" | "cpu" | "cpu model" => keep_first(&mut facts.model, value),
            "vendor_id" => keep_first(&mut facts.vendor, value),
            "CPU implementer" => keep_first(&mut facts.vendor, implementer(value)),
            "CPU part" => part = part.or(Some(value)),
            "physical id" => {
                socket = value;
                sockets.insert(value);
            }
            "core id" => {
                cores.insert((socket, value));
            }
            _ => {}
        }
    }
    facts.model = facts
        .model
        .or_else(|| part.map(|part| format!("part {part}")));
    let counted = |count: usize| (count > 0).then_some(count);
    facts.sockets = counted(sockets.len());
    facts.cores = counted(cores.len());
    facts
}

fn fields(cpuinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    cpuinfo.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim_end(), value.trim()))
    })
}

fn keep_first(slot: &mut Option<String>, value: &str) {
    if slot.is_none() && !value.is_empty() {
        *slot = Some(value.to_owned());
    }
}

/// Who made an ARM core (the code of `MIDR_EL1`).
fn implementer(code: &str) -> &str {
    match code {
        "0x41" => "ARM",
        "0x42" => "Broadcom",
        "0x43" => "Cavium",
        "0x46" => "Fujitsu",
        "0x48" => "HiSilicon",
        "0x4e" => "NVIDIA",
        "0x51" => "Qualcomm",
        "0x61" => "Apple",
        "0xc0" => "Ampere",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = include_str!("../../tests/fixtures/cpuinfo-vm");
    const ARM: &str = include_str!("../../tests/fixtures/cpuinfo-arm");

    #[test]
    fn threads_of_one_core_are_one_core() {
        let expected = Facts {
            model: Some("AMD EPYC".to_owned()),
            vendor: Some("AuthenticAMD".to_owned()),
            sockets: Some(1),
            cores: Some(2),
            threads: 4,
            quota: None,
        };
        assert_eq!(parse(X86), expected);
        assert!(flags(X86).unwrap().contains("hypervisor"));
    }

    #[test]
    fn what_an_architecture_does_not_tell_is_left_out() {
        let expected = Facts {
            model: Some("part 0xd0c".to_owned()),
            vendor: Some("ARM".to_owned()),
            threads: 2,
            ..Facts::default()
        };
        assert_eq!(parse(ARM), expected);
        assert_eq!(flags(ARM), None);
    }
}
