//! `facts.kernel`: release, build and architecture.
//!
//! The command line is left out on purpose: it may hold secrets (autoinstall tokens, passwords).

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

#[derive(Serialize)]
struct Facts {
    release: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    arch: String,
}

/// The body of `facts.kernel`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let release = root
        .find("proc/sys/kernel/osrelease")
        .ok_or("/proc/sys/kernel/osrelease cannot be read")?;
    to_value(&Facts {
        release,
        version: root.find("proc/sys/kernel/version"),
        arch: arch(root),
    })
}

fn arch(root: &Root) -> String {
    // The file is there since Linux 6.1.
    root.find("proc/sys/kernel/arch")
        .or_else(|| {
            let name = nix::sys::utsname::uname().ok()?;
            Some(name.machine().to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn the_kernel_is_named_without_its_command_line() {
        let (_keep, root) = fixture::host(&[
            ("proc/sys/kernel/osrelease", "6.1.0-21-amd64\n"),
            (
                "proc/sys/kernel/version",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.1.90-1\n",
            ),
            ("proc/sys/kernel/arch", "x86_64\n"),
            ("proc/cmdline", "root=/dev/sda1 secret=1\n"),
        ]);
        let expected = serde_json::json!({
            "release": "6.1.0-21-amd64",
            "version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.90-1",
            "arch": "x86_64",
        });
        assert_eq!(fixture::json(&collect(&root).unwrap()), expected);
    }
}
