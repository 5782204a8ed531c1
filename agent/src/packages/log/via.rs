//! What ran a package manager, where its command line says so. Nobody is guessed: options that a tool is known to use are
//! nobody's name.

/// `unattended-upgrades`, `packagekit`, `dnf-automatic`, `ansible`.
pub(super) fn of(command: &str) -> Option<&'static str> {
    let mut words = command.split_ascii_whitespace().map(|word| {
        let name = word.rsplit_once('/');
        name.map_or(word, |(_, name)| name)
    });
    let mut program = words.next()?;
    if program.starts_with("python") {
        program = words.next()?;
    }
    if ["unattended-upgrade", "unattended-upgrades"].contains(&program) {
        Some("unattended-upgrades")
    } else if program == "packagekit" {
        Some("packagekit")
    } else if program == "dnf-automatic"
        || (["dnf", "dnf5"].contains(&program) && words.next() == Some("automatic"))
    {
        Some("dnf-automatic")
    } else if command.contains("/.ansible/tmp/") || command.contains("AnsiballZ_") {
        Some("ansible")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_tells_what_ran_it() {
        let cases = [
            ("/usr/bin/unattended-upgrade", Some("unattended-upgrades")),
            (
                "/usr/bin/python3 /usr/bin/unattended-upgrade --debug",
                Some("unattended-upgrades"),
            ),
            ("apt-get install unattended-upgrades", None),
            ("packagekit role='update-packages'", Some("packagekit")),
            ("/usr/bin/dnf5 automatic --timer", Some("dnf-automatic")),
            ("dnf install automatic", None),
            (
                "/usr/bin/python3 /root/.ansible/tmp/ansible-tmp-1/AnsiballZ_apt.py",
                Some("ansible"),
            ),
            (
                "/usr/bin/apt-get -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install foo",
                None,
            ),
            ("", None),
        ];
        for (command, expected) in cases {
            assert_eq!(of(command), expected, "{command}");
        }
    }
}
