//! Whether the host waits for a reboot, by the marker file of Debian and its kin.
//!
//! That the marker is missing means something only where a package is installed that would write
//! it; and a container does not boot at all. Called by the heartbeat.

use super::{Reason, Root};

const MARKERS: &[&str] = &["run/reboot-required", "var/run/reboot-required"];
/// What writes the marker when a package asks for it.
const WRITERS: &[&str] = &[
    "usr/share/update-notifier/notify-reboot-required",
    "etc/kernel/postinst.d/unattended-upgrades",
    "etc/kernel/postinst.d/update-notifier",
];

/// Whether a reboot is asked for; a reason where nobody would say.
pub(super) fn is_required(root: &Root, in_container: bool) -> Result<bool, Reason> {
    if in_container {
        return Err("a container does not boot".to_owned());
    }
    let any = |paths: &[&str]| paths.iter().any(|path| root.exists(path));
    if any(MARKERS) {
        return Ok(true);
    }
    if any(WRITERS) {
        return Ok(false);
    }
    Err("no package that would write /run/reboot-required is installed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn a_missing_marker_means_no_only_where_somebody_would_write_it() {
        let writer = ("etc/kernel/postinst.d/unattended-upgrades", "");
        let marker = ("run/reboot-required", "");
        let told = |files: &[(&str, &str)], in_container| {
            let (_keep, root) = fixture::host(files);
            is_required(&root, in_container).ok()
        };
        assert_eq!(told(&[marker], false), Some(true));
        assert_eq!(told(&[writer], false), Some(false));
        assert_eq!(told(&[], false), None);
        assert_eq!(told(&[marker], true), None);
    }
}
