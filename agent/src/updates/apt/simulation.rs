//! What `apt-get --simulate` says: the lines `Inst`, `Remv` and what it could not do (apt-get(8); `apt-pkg/algorithms.cc`).

use std::collections::BTreeMap;

use crate::updates::Reason;
use crate::updates::tool::Output;

/// A package as apt names it; of the host's own architecture where none is said.
pub(super) type Name = (String, Option<String>);

/// What an upgrade would do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Simulation {
    /// What would take the place of an installed version.
    pub(super) upgrades: BTreeMap<Name, String>,
    pub(super) removals: Vec<String>,
    /// What apt warns of.
    pub(super) warnings: Vec<String>,
}

/// Reads what apt has done, or why it has done nothing.
pub(super) fn read(output: &Output) -> Result<Simulation, Reason> {
    if output.code != 0 {
        return Err(refusal(output));
    }
    let mut simulation = Simulation::default();
    for line in output.text.lines() {
        if let Some(removed) = line.strip_prefix("Remv ") {
            let name = removed.split(' ').next().unwrap_or_default();
            simulation.removals.push(name.to_owned());
        } else if let Some((name, candidate)) = upgrade(line) {
            simulation.upgrades.insert(name, candidate);
        }
    }
    let warnings = output.complaint.lines();
    let warnings = warnings.filter_map(|line| line.strip_prefix("W: "));
    simulation.warnings = warnings.map(str::to_owned).collect();
    Ok(simulation)
}

/// `Inst NAME [INSTALLED] (CANDIDATE ORIGIN:VERSION/SUITE, … [ARCH])`; one without an installed version is a new
/// package, no update.
fn upgrade(line: &str) -> Option<(Name, String)> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (_, rest) = rest.strip_prefix('[')?.split_once("] (")?;
    let (candidate, _) = rest.split_once(' ')?;
    let name = match name.split_once(':') {
        Some((name, arch)) => (name.to_owned(), Some(arch.to_owned())),
        None => (name.to_owned(), None),
    };
    Some((name, candidate.to_owned()))
}

/// Its errors, and what its first error is about where it says so: dependencies that are not met.
pub(super) fn refusal(output: &Output) -> Reason {
    let errors = output.complaint.lines();
    let errors: Vec<_> = errors.filter_map(|line| line.strip_prefix("E: ")).collect();
    let mut reason = match errors.first() {
        Some(first) => format!("apt: {first}"),
        None => format!("apt ended with {}", output.code),
    };
    let mut lines = output.text.lines();
    if lines.any(|line| line.ends_with("unmet dependencies:")) {
        let unmet: Vec<_> = lines
            .take_while(|line| line.starts_with(' '))
            .take(3)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        reason = format!("{reason} ({})", unmet.join("; "));
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(code: i32, text: &str, complaint: &str) -> Output {
        Output {
            code,
            text: text.to_owned(),
            complaint: complaint.to_owned(),
        }
    }

    #[test]
    fn only_what_takes_the_place_of_an_installed_version_is_an_upgrade() {
        let text = "Reading package lists...
Remv old [1.0]
Inst libc6 [2.36-9+deb12u4] (2.36-9+deb12u9 Debian:12.8/stable [amd64])
Inst libc6:i386 [2.36-9+deb12u4] (2.36-9+deb12u9 Debian:12.8/stable [i386]) []
Inst linux-image-6.1.0-28-amd64 (6.1.119-1 Debian-Security:12/stable-security [amd64])
Inst tool [1:1.0] (1:1.1 packages.example [all]) [libssl3:amd64 ]
Conf libc6 (2.36-9+deb12u9 Debian:12.8/stable [amd64])
Inst broken [
";
        let simulation = read(&output(0, text, "W: doubtful\nN: a note\n")).unwrap();
        let upgrades: Vec<_> = simulation
            .upgrades
            .iter()
            .map(|((name, arch), to)| (name.as_str(), arch.as_deref(), to.as_str()))
            .collect();
        let expected = [
            ("libc6", None, "2.36-9+deb12u9"),
            ("libc6", Some("i386"), "2.36-9+deb12u9"),
            ("tool", None, "1:1.1"),
        ];
        assert_eq!(upgrades, expected);
        assert_eq!(simulation.removals, ["old"]);
        assert_eq!(simulation.warnings, ["doubtful"]);
    }

    #[test]
    fn a_refusal_says_what_is_broken() {
        let text = "Reading package lists...
The following packages have unmet dependencies:
 brk : Depends: missing but it is not installable
       Depends: other (>= 2)
";
        let complaint = "E: Unmet dependencies. Try it.\nE: more\n";
        assert_eq!(
            read(&output(100, text, complaint)).unwrap_err(),
            "apt: Unmet dependencies. Try it. (brk : Depends: missing but it is not installable; Depends: other (>= 2))"
        );
        assert_eq!(read(&output(1, "", "")).unwrap_err(), "apt ended with 1");
    }
}
