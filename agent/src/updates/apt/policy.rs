//! What `apt-cache policy` says: without names which lists there are, with names which versions of each, newest first,
//! and what each has for and against it (apt-cache(8), `policy`; `apt-private/private-show.cc`).

use std::collections::HashMap;

/// Where lists come from, by how a version's line names the list.
pub(super) type Releases = HashMap<String, Release>;

/// What a list's Release file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) origin: String,
    pub(super) label: String,
    pub(super) version: String,
    pub(super) archive: String,
    pub(super) codename: String,
    pub(super) site: String,
}

impl Release {
    fn parse(text: &str) -> Self {
        let mut release = Self::default();
        let mut field = None;
        for part in text.split(',') {
            let named = part.split_once('=').and_then(|(name, value)| match name {
                "v" => Some((0, value)),
                "o" => Some((1, value)),
                "a" => Some((2, value)),
                "n" => Some((3, value)),
                "l" => Some((4, value)),
                "c" | "b" => Some((5, value)),
                _ => None,
            });
            let (index, value) = match (named, field) {
                (Some((index, value)), _) => (index, value.to_owned()),
                // A comma of the value itself.
                (None, Some(index)) => (index, format!(",{part}")),
                (None, None) => continue,
            };
            field = Some(index);
            match index {
                0 => release.version.push_str(&value),
                1 => release.origin.push_str(&value),
                2 => release.archive.push_str(&value),
                3 => release.codename.push_str(&value),
                4 => release.label.push_str(&value),
                _ => {}
            }
        }
        release
    }

    /// As apt itself prints it beside a version: `Debian-Security:12/stable-security`.
    pub(super) fn name(&self) -> String {
        let name = match (self.label.as_str(), self.origin.as_str()) {
            ("", "") => self.site.clone(),
            ("", origin) => origin.to_owned(),
            (label, _) => label.to_owned(),
        };
        let suite = if self.archive.is_empty() {
            &self.codename
        } else {
            &self.archive
        };
        match (self.version.as_str(), suite.as_str()) {
            ("", "") => name,
            ("", suite) => format!("{name}:{suite}"),
            (version, "") => format!("{name}:{version}"),
            (version, suite) => format!("{name}:{version}/{suite}"),
        }
    }

    /// Debian's archive of fixes, and suites that are named for them: Ubuntu's pockets, ESM's too.
    pub(super) fn is_security(&self) -> bool {
        let archives = [&self.label, &self.origin];
        archives.iter().any(|name| *name == "Debian-Security")
            || [&self.archive, &self.codename]
                .iter()
                .any(|suite| suite.ends_with("-security"))
    }

    /// Who publishes it: with lists of fixes of theirs, what is in none of these is known to be no fix.
    pub(super) fn vendor(&self) -> &str {
        let ends = ["-Security", "ESMApps", "ESM", " Backports"];
        let end = ends.iter().find_map(|end| self.origin.strip_suffix(end));
        end.unwrap_or(&self.origin)
    }
}

/// The lists of `apt-cache policy`.
pub(super) fn releases(text: &str) -> Releases {
    let mut releases = Releases::new();
    let mut list = None;
    let lines = text.lines().skip(1);
    for line in lines.take_while(|line| line.starts_with(' ')) {
        let text = line.trim_start();
        if let Some(release) = text.strip_prefix("release ") {
            if let Some(list) = &list {
                let known = releases.entry(String::clone(list)).or_default();
                let site = std::mem::take(&mut known.site);
                *known = Release {
                    site,
                    ..Release::parse(release)
                };
            }
        } else if let Some(site) = text.strip_prefix("origin ") {
            if let Some(list) = &list {
                let known = releases.entry(String::clone(list)).or_default();
                site.trim().clone_into(&mut known.site);
            }
        } else if let Some((_, name)) = text.split_once(' ') {
            list = Some(name.to_owned());
            releases.entry(name.to_owned()).or_default();
        }
    }
    releases
}

/// The versions of a package that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    /// None is the host's own.
    pub(super) arch: Option<String>,
    pub(super) candidate: String,
    /// The newest first.
    pub(super) versions: Vec<Version>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) number: String,
    pub(super) is_installed: bool,
    pub(super) priority: String,
    /// To how many of a hundred hosts it is given by now, where not to all.
    pub(super) phased: Option<u8>,
    /// The lists that have it; dpkg's status is one of them.
    pub(super) lists: Vec<String>,
}

impl Table {
    /// Where in its versions the installed one is.
    pub(super) fn installed(&self) -> Option<usize> {
        self.versions.iter().position(|one| one.is_installed)
    }

    pub(super) fn candidate(&self) -> Option<usize> {
        let mut versions = self.versions.iter();
        versions.position(|one| one.number == self.candidate)
    }
}

/// The tables of `apt-cache policy NAME…`.
pub(super) fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            let Some(name) = line.strip_suffix(':') else {
                continue;
            };
            let (name, arch) = match name.split_once(':') {
                Some((name, arch)) => (name, Some(arch.to_owned())),
                None => (name, None),
            };
            tables.push(Table {
                name: name.to_owned(),
                arch,
                ..Table::default()
            });
            continue;
        }
        let Some(table) = tables.last_mut() else {
            continue;
        };
        if let Some(candidate) = line.strip_prefix("  Candidate: ") {
            candidate.trim().clone_into(&mut table.candidate);
        } else if let Some(version) = version(line) {
            table.versions.push(version);
        } else if let (Some(version), Some((priority, list))) =
            (table.versions.last_mut(), line.trim_start().split_once(' '))
            && priority.parse::<i32>().is_ok()
        {
            version.lists.push(list.to_owned());
        }
    }
    tables
}

/// `     VERSION PRIORITY (phased N%)`, with stars where it is installed. A list's line is further in.
fn version(line: &str) -> Option<Version> {
    let rest = line.strip_prefix(" *** ").or(line.strip_prefix("     "))?;
    let is_installed = line.starts_with(" ***");
    let mut words = rest.split(' ');
    let (version, priority) = (words.next()?, words.next()?);
    if version.is_empty() {
        return None;
    }
    let phased = match (words.next(), words.next()) {
        (Some("(phased"), Some(share)) => share.trim_end_matches("%)").parse().ok(),
        _ => None,
    };
    Some(Version {
        number: version.to_owned(),
        is_installed,
        priority: priority.to_owned(),
        phased,
        lists: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_known_by_what_they_say_of_themselves() {
        let text = "Package files:
 100 /var/lib/dpkg/status
     release a=now
 500 http://deb.example/debian-security bookworm-security/main amd64 Packages
     release v=12,o=Debian,a=stable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64
     origin deb.example
 -10 http://x.example/a ./ Packages
     release o=Some, Inc.,l=Tools, and more,c=
     origin x.example
 500 http://y.example/a ./ Packages
     release c=
     origin y.example
Pinned packages:
     a -> 1 with priority 1001
";
        let releases = releases(text);
        assert_eq!(releases.len(), 4);
        let security =
            &releases["http://deb.example/debian-security bookworm-security/main amd64 Packages"];
        assert_eq!(security.name(), "Debian-Security:12/stable-security");
        assert!(security.is_security());
        assert_eq!(security.vendor(), "Debian");
        let other = &releases["http://x.example/a ./ Packages"];
        assert_eq!(
            (other.origin.as_str(), other.name().as_str()),
            ("Some, Inc.", "Tools, and more")
        );
        assert_eq!(
            releases["http://y.example/a ./ Packages"].name(),
            "y.example"
        );
    }

    #[test]
    fn versions_stand_with_their_lists() {
        let text = "libc6:i386:
  Installed: 1.0
  Candidate: 1.2
  Package pin: 1.2
  Version table:
     3 -1
         -1 file:/repo/bp ./ Packages
     1.2 1001 (phased 10%)
        500 file:/repo/deb ./ Packages
        500 file:/repo/sec ./ Packages
 *** 1.0 100
        100 /var/lib/dpkg/status
b:
  Installed: (none)
  Candidate: (none)
  Version table:
N: Unable to locate package c
";
        let tables = tables(text);
        let [libc, b] = tables.as_slice() else {
            panic!("{tables:?}");
        };
        assert_eq!(
            (libc.name.as_str(), libc.arch.as_deref()),
            ("libc6", Some("i386"))
        );
        assert_eq!((libc.candidate(), libc.installed()), (Some(1), Some(2)));
        let [newest, candidate, _] = libc.versions.as_slice() else {
            panic!("{libc:?}");
        };
        assert_eq!((newest.priority.as_str(), newest.phased), ("-1", None));
        assert_eq!(candidate.phased, Some(10));
        assert_eq!(candidate.lists.len(), 2);
        assert!(b.versions.is_empty() && b.candidate().is_none());
    }
}
