//! The decision, of what was read. Pure, so that a table of hosts can be held against it.
//!
//! True where one reason speaks for it. False where nothing does, and where the kernels could be compared or somebody writes a
//! marker. Unknown otherwise, and where the evidence is of a time that may lie before or after the boot.

use super::boot::Place;
use super::host::{Host, Marker};
use super::kernels::{self, Kernel};
use super::{Checked, Evidence};
use crate::collect::{Found, Reason};
use crate::packages::Manager;

/// Packages whose update only a reboot completes, as dnf's needs-restarting has them; kernels are compared by their names.
const NEED_REBOOT: &[&str] = &[
    "dbus",
    "dbus-broker",
    "dbus-daemon",
    "glibc",
    "linux-firmware",
    "systemd",
];
/// Packages with microcode, and the vendor of the CPUs it is for.
const MICROCODE: &[(&str, &str)] = &[
    ("intel-microcode", "GenuineIntel"),
    ("intel-ucode", "GenuineIntel"),
    ("microcode_ctl", "GenuineIntel"),
    ("ucode-intel", "GenuineIntel"),
    ("amd64-microcode", "AuthenticAMD"),
    ("amd-ucode", "AuthenticAMD"),
    ("ucode-amd", "AuthenticAMD"),
];

/// What came of it.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) required: Result<bool, Reason>,
    pub(super) reasons: Vec<Evidence>,
    pub(super) hints: Vec<Evidence>,
    pub(super) newest_kernel: Option<String>,
    pub(super) checked: Vec<Checked>,
    unclear: Vec<Reason>,
}

impl Decision {
    fn checked(&mut self, what: &'static str, result: impl Into<String>) {
        let result = result.into();
        self.checked.push(Checked { what, result });
    }

    fn reason(&mut self, kind: &'static str, detail: String, packages: Vec<String>) {
        self.reasons.push(evidence(kind, detail, packages));
    }

    fn hint(&mut self, kind: &'static str, detail: String) {
        self.hints.push(evidence(kind, detail, Vec::new()));
    }
}

/// Whether the host waits for a reboot.
pub(super) fn decide(host: &Host) -> Decision {
    let mut decision = Decision {
        required: Err(String::new()),
        reasons: Vec::new(),
        hints: Vec::new(),
        newest_kernel: None,
        checked: Vec::new(),
        unclear: Vec::new(),
    };
    if let Some(container) = &host.container {
        decision.checked("kernel", format!("not in a container ({container})"));
        decision.required = Err("a container does not boot".to_owned());
        return decision;
    }
    for marker in &host.markers {
        ask_marker(&mut decision, host, marker);
    }
    if host.markers.is_empty() {
        let said = match &host.marker_writer {
            Some(writer) => format!("none, and {writer} would write one"),
            None => NO_WRITER.to_owned(),
        };
        decision.checked("marker", said);
    }
    let kernel = ask_kernel(&mut decision, host);
    ask_packages(&mut decision, host);
    ask_live_patches(&mut decision, host);
    ask_microcode(&mut decision, host);
    let needrestart = if host.has_needrestart {
        "not asked: it keeps no result, and needs root to make one"
    } else {
        "not installed"
    };
    decision.checked("needrestart", needrestart);
    decision.required = verdict(&decision, host, kernel);
    decision
}

const NO_WRITER: &str = "no package that would write /run/reboot-required is installed";

fn verdict(decision: &Decision, host: &Host, kernel: Kernel) -> Result<bool, Reason> {
    if !decision.reasons.is_empty() {
        return Ok(true);
    }
    if let Some(unclear) = decision.unclear.first() {
        return Err(unclear.clone());
    }
    match kernel {
        Kernel::Odd(reason) => Err(reason),
        _ if host.marker_writer.is_some() => Ok(false),
        Kernel::Incomparable(reason) => Err(format!("{reason}; {NO_WRITER}")),
        Kernel::Newest | Kernel::Pinned(_) => match rpm_unknown(host) {
            Some(reason) => Err(reason),
            None => Ok(false),
        },
        Kernel::Newer(_) | Kernel::OtherBuild(..) => Ok(true),
    }
}

fn ask_marker(decision: &mut Decision, host: &Host, marker: &Marker) {
    let place = match (&host.boot, marker.written_at) {
        (Some(boot), Some(written_at)) if marker.outlives_boot => boot.place(written_at),
        (None, _) if marker.outlives_boot => Place::Unclear,
        // What is in /run was written since the boot, whatever the clock says.
        _ => Place::SinceBoot,
    };
    match place {
        Place::BeforeBoot => {
            let said = format!("{} is older than the boot and does not count", marker.path);
            decision.checked("marker", said);
        }
        Place::Unclear => {
            let reason = format!(
                "{} outlives boots, and was written too near to this one to say on which side of it",
                marker.path
            );
            decision.checked("marker", reason.clone());
            decision.unclear.push(reason);
        }
        Place::SinceBoot => {
            let detail = format!("{} is there", marker.path);
            decision.checked("marker", detail.clone());
            decision.reason("marker", detail, marker.packages.clone());
        }
    }
}

fn ask_kernel(decision: &mut Decision, host: &Host) -> Kernel {
    let (kernel, newest) = kernels::compare(host);
    let running = host.release.as_deref().unwrap_or("the running kernel");
    let said = match &kernel {
        Kernel::Newest => format!("{running} is the newest of its kind that is installed"),
        Kernel::Newer(newest) => {
            let detail = format!("{newest} is installed, {running} runs");
            decision.reason("kernel", detail.clone(), Vec::new());
            detail
        }
        Kernel::OtherBuild(runs, installed) => {
            let detail = format!("{running} of {installed} is installed, that of {runs} runs");
            decision.reason("kernel_build", detail.clone(), Vec::new());
            detail
        }
        Kernel::Pinned(target) => {
            let newest = newest.as_deref().unwrap_or("a newer kernel");
            format!("{newest} is installed, but the boot loader is told to boot {target}")
        }
        Kernel::Incomparable(reason) | Kernel::Odd(reason) => reason.clone(),
    };
    decision.checked("kernel", said);
    decision.newest_kernel = newest;
    for unread in &host.kernels.unread {
        decision.checked("kernel_files", unread.clone());
    }
    if let (Kernel::Newer(_), Some(unread)) = (&kernel, &host.boot_loader_unknown) {
        let said = format!("which kernel it is told to boot is not known: {unread}");
        decision.checked("boot_loader", said);
    }
    for (name, state) in kernels::incomplete(host) {
        let detail = format!("the package of kernel {name} is {state}: it does not count");
        decision.hint("kernel_incomplete", detail);
    }
    kernel
}

/// dnf's rule. Debian's packages ask by the marker.
fn ask_packages(decision: &mut Decision, host: &Host) {
    if !host.has_rpm {
        return;
    }
    if let Some(reason) = rpm_unknown(host) {
        decision.checked("packages", reason);
        return;
    }
    let Some(boot) = &host.boot else {
        let reason = "when the host booted is not known: /proc/stat has no btime";
        decision.checked("packages", reason);
        decision.unclear.push(reason.to_owned());
        return;
    };
    let mut since = Vec::new();
    for package in kernels::packages(host, Manager::Rpm) {
        let Some(installed_at) = package.installed_at_s.and_then(|at| i64::try_from(at).ok())
        else {
            continue;
        };
        let needs = NEED_REBOOT.contains(&package.name.as_str())
            || host.need_reboot.contains(&package.name);
        if !needs {
            continue;
        }
        match boot.place(installed_at) {
            Place::BeforeBoot => {}
            Place::SinceBoot if since.contains(&package.name) => {}
            Place::SinceBoot => since.push(package.name.clone()),
            Place::Unclear => decision.unclear.push(format!(
                "{} was installed too near to the boot, by a clock that may have been wrong, to say on which side of it",
                package.name
            )),
        }
    }
    let said = match (since.is_empty(), decision.unclear.last()) {
        (false, _) => format!("installed since the boot: {}", since.join(", ")),
        (true, Some(unclear)) => unclear.clone(),
        (true, None) => format!("none since the boot of {}", NEED_REBOOT.join(", ")),
    };
    decision.checked("packages", said.clone());
    if !since.is_empty() {
        decision.reason("packages", said, since);
    }
}

/// Why what rpm installed is not known, where it matters.
fn rpm_unknown(host: &Host) -> Option<Reason> {
    let is_rpm = |found: &&Found| match found {
        Found::Known(inventory) => inventory.manager == Manager::Rpm,
        Found::Unknown { manager, .. } => *manager == Manager::Rpm,
    };
    if !host.has_rpm {
        return None;
    }
    match host.databases.iter().find(is_rpm) {
        Some(Found::Known(_)) => None,
        Some(Found::Unknown { unknown, .. }) => Some(format!("rpm's database: {unknown}")),
        None => Some(
            "rpm's database is not read: whether glibc, systemd or dbus came since the boot is not known"
                .to_owned(),
        ),
    }
}

/// A live patch closes holes, and leaves the kernel what it is: told beside, it clears nothing.
fn ask_live_patches(decision: &mut Decision, host: &Host) {
    if !host.live_patches.is_empty() {
        let detail = format!("in force: {}", host.live_patches.join(", "));
        decision.hint("livepatch", detail);
    }
}

/// Weak: whether the package has anything for this CPU is not known, so it is a hint.
fn ask_microcode(decision: &mut Decision, host: &Host) {
    if host.is_vm {
        decision.checked("microcode", "a virtual machine's is its host's");
        return;
    }
    let (Some(vendor), Some(boot)) = (&host.cpu_vendor, &host.boot) else {
        decision.checked("microcode", "the CPU's vendor or the boot is not known");
        return;
    };
    let all = [Manager::Dpkg, Manager::Rpm, Manager::Apk]
        .into_iter()
        .flat_map(|manager| kernels::packages(host, manager));
    let fits = |name: &str| MICROCODE.contains(&(name, vendor.as_str()));
    let mut said = "no package for this CPU is known to have come since the boot".to_owned();
    for package in all.filter(|package| fits(&package.name)) {
        let installed_at = package.installed_at_s.and_then(|at| i64::try_from(at).ok());
        if installed_at.is_some_and(|at| boot.place(at) == Place::SinceBoot) {
            said = format!("{} {} came since the boot", package.name, package.version);
            decision.hint("microcode", said.clone());
        }
    }
    decision.checked("microcode", said);
}

fn evidence(kind: &'static str, detail: String, packages: Vec<String>) -> Evidence {
    Evidence {
        kind,
        detail,
        packages,
    }
}
