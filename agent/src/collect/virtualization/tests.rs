//! Each kind of machine by the files it is told by.

use serde_json::{Value, json};

use super::*;
use crate::collect::fixture;

const DOCKER: &str = include_str!("../../../tests/fixtures/mountinfo-docker");
const LXC: &str = include_str!("../../../tests/fixtures/mountinfo-lxc");
const HOST: &str = include_str!("../../../tests/fixtures/mountinfo-debian");
const GUEST_CPU: &str = include_str!("../../../tests/fixtures/cpuinfo-vm");
const HOST_NAMESPACE: (&str, &str) = ("proc/self/ns/pid", "->pid:[4026531836]");
const OWN_NAMESPACE: (&str, &str) = ("proc/self/ns/pid", "->pid:[4026532701]");

fn told(files: &[(&str, &str)]) -> Value {
    let (_keep, root) = fixture::host(files);
    match collect(&root) {
        Ok(body) => fixture::json(&body),
        Err(reason) => json!({ "unknown": reason }),
    }
}

#[test]
fn docker_on_a_virtual_machine_names_both() {
    let told = told(&[
        OWN_NAMESPACE,
        (".dockerenv", ""),
        ("proc/self/mountinfo", DOCKER),
        ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
    ]);
    assert_eq!(
        told,
        json!({"kind": "container", "container": "docker", "hypervisor": "qemu"})
    );
}

#[test]
fn a_virtual_machine_made_from_a_container_image_is_no_container() {
    let told = told(&[
        HOST_NAMESPACE,
        (".dockerenv", ""),
        ("proc/self/mountinfo", HOST),
        ("proc/cpuinfo", GUEST_CPU),
        (
            "sys/devices/system/clocksource/clocksource0/available_clocksource",
            "tsc kvm-clock\n",
        ),
    ]);
    assert_eq!(told, json!({"kind": "vm", "hypervisor": "kvm"}));
}

#[test]
fn each_manager_is_known_by_what_it_leaves() {
    for (files, expected) in [
        (
            vec![("run/.containerenv", "engine=\"podman-4.9\"")],
            "podman",
        ),
        (vec![("run/systemd/container", "lxc\n")], "lxc"),
        (
            vec![("run/host/container-manager", "systemd-nspawn\n")],
            "systemd-nspawn",
        ),
        (
            vec![("proc/1/environ", "TERM=xterm\0container=lxc\0")],
            "lxc",
        ),
        (vec![("proc/self/mountinfo", LXC)], "lxc"),
        (vec![("proc/self/mountinfo", DOCKER)], "docker"),
        (
            vec![("run/secrets/kubernetes.io/token", ""), (".dockerenv", "")],
            "kubernetes",
        ),
        (
            vec![("proc/1/cgroup", "0::/kubepods.slice/kubepods-pod1.slice/x")],
            "kubernetes",
        ),
        (
            vec![("proc/1/cgroup", "4:memory:/lxc.payload.web\n")],
            "lxc",
        ),
        (vec![OWN_NAMESPACE], "other"),
    ] {
        assert_eq!(told(&files)["container"], expected, "{files:?}");
    }
}

#[test]
fn each_hypervisor_is_known_by_its_firmware_or_files() {
    for (file, text, expected) in [
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n", "nitro"),
        (
            "sys/class/dmi/id/product_name",
            "VMware Virtual Platform\n",
            "vmware",
        ),
        (
            "sys/class/dmi/id/product_name",
            "VirtualBox\n",
            "virtualbox",
        ),
        (
            "sys/class/dmi/id/product_name",
            "Virtual Machine\n",
            "hyperv",
        ),
        (
            "sys/class/dmi/id/product_name",
            "Google Compute Engine\n",
            "kvm",
        ),
        ("sys/class/dmi/id/sys_vendor", "Hetzner\n", "kvm"),
        ("sys/hypervisor/type", "xen\n", "xen"),
        (
            "proc/device-tree/hypervisor/compatible",
            "linux,kvm\0",
            "kvm",
        ),
        (
            "proc/sys/kernel/osrelease",
            "5.15.133.1-microsoft-standard-WSL2\n",
            "wsl",
        ),
    ] {
        let told = told(&[HOST_NAMESPACE, (file, text)]);
        assert_eq!(
            told,
            json!({"kind": "vm", "hypervisor": expected}),
            "{file} {text}"
        );
    }
}

#[test]
fn hardware_is_bare_metal_also_where_it_is_rented_or_carries_xen() {
    for files in [
        vec![("sys/class/dmi/id/sys_vendor", "Dell Inc.\n")],
        vec![("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")],
        vec![
            ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"),
            ("sys/class/dmi/id/product_name", "m5.metal\n"),
        ],
        vec![
            ("sys/class/dmi/id/sys_vendor", "Supermicro\n"),
            ("sys/hypervisor/type", "xen\n"),
            ("proc/xen/capabilities", "control_d\n"),
        ],
    ] {
        assert_eq!(told(&files), json!({"kind": "bare_metal"}), "{files:?}");
    }
}

#[test]
fn without_any_hint_it_is_unknown() {
    let reason = "neither firmware nor CPU flags can be read";
    assert_eq!(told(&[]), json!({ "unknown": reason }));
}
