use std::fs;
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::collect::fixture;

#[tokio::test]
async fn a_missing_marker_means_no_only_where_somebody_would_write_it() {
    let writer = ("etc/kernel/postinst.d/unattended-upgrades", "");
    let marker = ("run/reboot-required", "");
    let container = ("run/systemd/container", "lxc\n");
    for (files, expected) in [
        (vec![marker], Some(true)),
        (vec![writer], Some(false)),
        (vec![], None),
        (vec![marker, writer, container], None),
    ] {
        let (_keep, root) = fixture::host(&files);
        let told = Watch::default().is_required(&root).await;
        assert_eq!(told.ok(), expected, "{files:?}");
    }
}

#[tokio::test]
async fn the_flag_is_decided_again_only_when_something_changed_or_ten_minutes_passed() {
    let (_keep, root) = fixture::host(&[
        ("etc/kernel/postinst.d/unattended-upgrades", ""),
        ("proc/sys/kernel/osrelease", "6.1.0-27-amd64\n"),
        ("run/other", ""),
        ("boot/vmlinuz-6.1.0-27-amd64", ""),
    ]);
    let mut watch = Watch::default();
    assert_eq!(watch.is_required(&root).await, Ok(false));
    // Not looked at for each heartbeat.
    fs::write(root.path("boot/vmlinuz-6.1.0-28-amd64"), "").unwrap();
    for _ in 0..BEATS {
        assert_eq!(watch.is_required(&root).await, Ok(false));
    }
    assert_eq!(watch.is_required(&root).await, Ok(true));
    fs::remove_file(root.path("boot/vmlinuz-6.1.0-28-amd64")).unwrap();
    assert_eq!(watch.is_required(&root).await, Ok(true));
    fs::write(root.path("run/reboot-needed"), "").unwrap();
    assert_eq!(watch.is_required(&root).await, Ok(true));
    fs::remove_file(root.path("run/reboot-needed")).unwrap();
    assert_eq!(watch.is_required(&root).await, Ok(false));
}

#[test]
fn the_body_says_everything_that_was_found() {
    let (_keep, root) = fixture::host(&[
        ("proc/sys/kernel/osrelease", "6.1.0-27-amd64\n"),
        ("proc/stat", "cpu 0\nbtime 1700000000\n"),
        ("boot/vmlinuz-6.1.0-28-amd64", ""),
        ("lib/modules/other", ""),
        ("run/reboot-required", "*** System restart required ***\n"),
        ("run/reboot-required.pkgs", "libc6\nlibc6\n"),
        ("proc/1/comm", "systemd\n"),
        ("proc/9/cgroup", "0::/system.slice/ssh.service\n"),
        (
            "proc/9/maps",
            "1-2 r-xp 00000000 fe:01 1  /usr/lib/libssl.so.3 (deleted)\n",
        ),
        ("proc/9/exe", "->/usr/sbin/sshd (deleted)"),
        ("proc/10/cgroup", "0::/\n"),
        ("proc/10/comm", "crond\n"),
        ("proc/10/maps", ""),
        ("proc/10/exe", "->/usr/sbin/crond (deleted)"),
    ]);
    let expected = serde_json::json!({
        "required": true,
        "reasons": [
            {"kind": "marker", "detail": "/run/reboot-required is there", "packages": ["libc6"]},
            {"kind": "kernel", "detail": "6.1.0-28-amd64 is installed, 6.1.0-27-amd64 runs"},
        ],
        "hints": [],
        "running_kernel": "6.1.0-27-amd64",
        "newest_kernel": "6.1.0-28-amd64",
        "services": [
            {"process": "crond", "why": "runs /usr/sbin/crond, replaced since it started"},
            {"unit": "ssh.service", "why": "runs /usr/lib/libssl.so.3, /usr/sbin/sshd, replaced since it started"},
        ],
        "booted_at": 1_700_000_000,
        "checked": [
            {"what": "marker", "result": "/run/reboot-required is there"},
            {"what": "kernel", "result": "6.1.0-28-amd64 is installed, 6.1.0-27-amd64 runs"},
            {"what": "microcode", "result": "the CPU's vendor or the boot is not known"},
            {"what": "needrestart", "result": "not installed"},
        ],
    });
    assert_eq!(fixture::json(&collect(&root).unwrap()), expected);
}

/// A library that this process maps is replaced: the way from the kernel's own text to the list.
#[test]
fn this_machines_processes_are_looked_at() {
    let found = services::read(&Root::default());
    let body = to_value(&found.services).unwrap();
    assert!(body.is_array(), "{:?}", found.unknown);
}

/// `cargo test -p infratrack-agent --release -- --ignored --nocapture what_a_check_costs`
#[test]
#[ignore = "a measurement, not a check"]
#[expect(clippy::print_stderr, reason = "it is there to print")]
fn what_a_check_costs() {
    const ROUNDS: u32 = 20;
    let cpu_us = || {
        let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
        time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000
    };
    let root = Root::default();
    let measured = |what: &str, work: &dyn Fn()| {
        let (wall, cpu) = (Instant::now(), cpu_us());
        for _ in 0..ROUNDS {
            work();
        }
        let cpu = (cpu_us() - cpu) / i64::from(ROUNDS);
        eprintln!("{what}: wall {:?}, cpu {cpu} us", wall.elapsed() / ROUNDS);
    };
    measured("decision", &|| drop(decide::decide(&Host::read(&root))));
    measured("services", &|| drop(services::read(&root)));
    measured("inputs of a heartbeat", &|| {
        drop(
            INPUTS
                .iter()
                .map(|path| changed(&root, path))
                .collect::<Vec<_>>(),
        );
    });
}
