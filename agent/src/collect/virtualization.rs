//! `facts.virtualization`: container, virtual machine or bare metal, and of what make.
//!
//! A container is told by what its manager leaves inside it, a VM by its firmware's names, the
//! hypervisor's files and the CPU's own flag. A container on a VM names both. No program is run
//! and nothing needs root. Memory asks `container` to know whose memory it sees.

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root, cpu, mounts};

/// The inode of the first PID namespace (linux/nsfs.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Firmware names and whose they are; the first match counts.
const FIRMWARE: &[(&str, &str)] = &[
    ("Amazon EC2", "nitro"),
    ("Google Compute Engine", "kvm"),
    ("DigitalOcean", "kvm"),
    ("Hetzner", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Alibaba Cloud", "kvm"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("innotek GmbH", "virtualbox"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "hyperv"),
    ("Virtual Machine", "hyperv"),
    ("Apple Virtualization", "apple"),
    ("KVM", "kvm"),
    ("QEMU", "qemu"),
];
const FIRMWARE_FILES: &[&str] = &[
    "product_name",
    "sys_vendor",
    "board_vendor",
    "bios_vendor",
    "product_version",
];

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Facts {
    /// `container`, `vm` or `bare_metal`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypervisor: Option<String>,
}

/// The body of `facts.virtualization`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let container = container(root);
    let hypervisor = hypervisor(root);
    let kind = match (&container, &hypervisor) {
        (Some(_), _) => "container",
        (None, Some(_)) => "vm",
        (None, None) if is_hardware_known(root) => "bare_metal",
        (None, None) => return Err("neither firmware nor CPU flags can be read".to_owned()),
    };
    to_value(&Facts {
        kind,
        container,
        hypervisor,
    })
}

/// The container manager the agent runs under; `None` on a host.
pub(super) fn container(root: &Root) -> Option<String> {
    let found = kubernetes(root)
        .or_else(|| named_by_manager(root))
        .or_else(|| left_by_engine(root))
        .or_else(|| seen_in_mounts(root))
        .or_else(|| seen_in_namespace(root))?;
    // WSL calls itself a container; its kernel and memory are its own.
    (found != "wsl").then_some(found)
}

fn kubernetes(root: &Root) -> Option<String> {
    let init_group = root.read("proc/1/cgroup").unwrap_or_default();
    let found = root.exists("run/secrets/kubernetes.io")
        || root.exists("var/run/secrets/kubernetes.io")
        || init_group.contains("/kubepods");
    found.then(|| "kubernetes".to_owned())
}

/// What the manager wrote about itself, by the conventions systemd set.
fn named_by_manager(root: &Root) -> Option<String> {
    let environment = || {
        // Readable by root only.
        let environment = root.find("proc/1/environ")?;
        let value = environment
            .split('\0')
            .find_map(|v| v.strip_prefix("container="));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    root.find("run/systemd/container")
        .or_else(|| root.find("run/host/container-manager"))
        .or_else(environment)
}

fn left_by_engine(root: &Root) -> Option<String> {
    if root.exists("run/.containerenv") {
        return Some("podman".to_owned());
    }
    if root.exists("proc/vz") && !root.exists("proc/bc") {
        return Some("openvz".to_owned());
    }
    // The file also stays behind in disk images that were made out of a container's.
    let alone = !in_first_pid_namespace(root) || root_is_overlay(root);
    (alone && root.exists(".dockerenv")).then(|| "docker".to_owned())
}

fn seen_in_mounts(root: &Root) -> Option<String> {
    let mounts = mounts::read(root).ok()?;
    if mounts
        .iter()
        .any(|m| m.kind == "fuse.lxcfs" && m.point.starts_with("/proc/"))
    {
        return Some("lxc".to_owned());
    }
    let layers = mounts
        .iter()
        .find(|m| m.point == "/" && m.kind == "overlay")?;
    [
        ("/docker/", "docker"),
        ("/containers/storage/", "podman"),
        ("/containerd", "containerd"),
    ]
    .into_iter()
    .find(|(path, _)| layers.super_options.contains(path))
    .map(|(_, name)| name.to_owned())
}

/// The last resort: a PID namespace of its own makes it a container of unknown make.
fn seen_in_namespace(root: &Root) -> Option<String> {
    let group = root.read("proc/1/cgroup").unwrap_or_default();
    for (part, name) in [
        ("/docker", "docker"),
        ("/libpod", "podman"),
        ("/lxc", "lxc"),
        ("/machine.slice/machine-", "systemd-nspawn"),
    ] {
        if group.contains(part) {
            return Some(name.to_owned());
        }
    }
    let namespace = root.link("proc/self/ns/pid")?;
    (namespace != FIRST_PID_NAMESPACE).then(|| "other".to_owned())
}

fn in_first_pid_namespace(root: &Root) -> bool {
    root.link("proc/self/ns/pid").as_deref() == Some(FIRST_PID_NAMESPACE)
}

fn root_is_overlay(root: &Root) -> bool {
    let mounts = mounts::read(root).unwrap_or_default();
    mounts.iter().any(|m| m.point == "/" && m.kind == "overlay")
}

/// What the machine runs on; `None` where nothing hints at a hypervisor.
pub(super) fn hypervisor(root: &Root) -> Option<String> {
    let release = root.find("proc/sys/kernel/osrelease").unwrap_or_default();
    if release.contains("microsoft-standard-WSL") || release.contains("Microsoft") {
        return Some("wsl".to_owned());
    }
    // The first domain of Xen runs on the hardware, whatever the files below say.
    let is_first_domain = root
        .find("proc/xen/capabilities")
        .is_some_and(|capabilities| capabilities.contains("control_d"));
    if is_first_domain {
        return None;
    }
    firmware(root)
        // QEMU's firmware does not say whether KVM runs it.
        .map(|name| {
            if name == "qemu" && clocks(root).contains("kvm") {
                "kvm".to_owned()
            } else {
                name
            }
        })
        .or_else(|| root.find("sys/hypervisor/type"))
        .or_else(|| device_tree(root))
        .or_else(|| cpu_flag(root))
}

fn firmware(root: &Root) -> Option<String> {
    let field = |file: &&str| root.find(&format!("sys/class/dmi/id/{file}"));
    let product = field(&"product_name").unwrap_or_default();
    // Amazon's firmware is the same on instances that are whole machines.
    if product.contains(".metal") {
        return None;
    }
    let texts: Vec<_> = FIRMWARE_FILES.iter().filter_map(field).collect();
    FIRMWARE
        .iter()
        .find(|(name, _)| texts.iter().any(|text| text.contains(name)))
        .map(|(_, hypervisor)| (*hypervisor).to_owned())
}

fn device_tree(root: &Root) -> Option<String> {
    let compatible = root.find("proc/device-tree/hypervisor/compatible");
    if let Some(compatible) = compatible {
        let name = if compatible.contains("xen") {
            "xen"
        } else {
            "kvm"
        };
        return Some(name.to_owned());
    }
    root.exists("proc/device-tree/fw-cfg")
        .then(|| "qemu".to_owned())
}

/// The CPU says that there is a hypervisor; the guest's clock says which.
fn cpu_flag(root: &Root) -> Option<String> {
    let cpuinfo = root.read("proc/cpuinfo").ok()?;
    let flags = cpu::flags(&cpuinfo)?;
    if !flags.split(' ').any(|flag| flag == "hypervisor") {
        return None;
    }
    let clocks = clocks(root);
    let name = [("kvm", "kvm"), ("hyperv", "hyperv"), ("xen", "xen")]
        .into_iter()
        .find(|(clock, _)| clocks.contains(clock))
        .map_or("other", |(_, name)| name);
    Some(name.to_owned())
}

fn clocks(root: &Root) -> String {
    root.find("sys/devices/system/clocksource/clocksource0/available_clocksource")
        .unwrap_or_default()
}

fn is_hardware_known(root: &Root) -> bool {
    let cpuinfo = root.read("proc/cpuinfo").unwrap_or_default();
    root.exists("sys/class/dmi/id/sys_vendor")
        || root.exists("proc/device-tree/model")
        || cpu::flags(&cpuinfo).is_some()
}

#[cfg(test)]
mod tests;
