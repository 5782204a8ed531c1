//! The version that each package would be upgraded to, by the columns of `check-update`, and what it is built from, by the
//! records of `repoquery` (dnf 4 and 5).

use std::collections::BTreeMap;

use crate::packages::rpm::{source_of, version_of};

/// Of fields of which none can hold the separators. dnf 4 ends a line after each record, dnf 5 does not.
pub(super) const FORMAT: &str =
    "%{name}\x1f%{epoch}\x1f%{version}\x1f%{release}\x1f%{arch}\x1f%{sourcerpm}\x1e";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) arch: String,
    pub(super) repository: String,
}

/// What each version is built from, where that has another name.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<(String, String, String), Option<String>>);

impl Sources {
    /// Of a version of a name and an architecture, where it was told.
    pub(super) fn get(&self, version: &str, name: &str, arch: &str) -> Option<&Option<String>> {
        let key = (name.to_owned(), version.to_owned(), arch.to_owned());
        self.0.get(&key)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|(name, ..)| name.as_str())
    }
}

/// The records of [`FORMAT`]. What stands around them is no record: plugins talk.
pub(super) fn sources(text: &str) -> Sources {
    Sources(text.split('\x1e').filter_map(record).collect())
}

fn record(text: &str) -> Option<((String, String, String), Option<String>)> {
    let fields: Vec<_> = text.split('\x1f').collect();
    let [name, epoch, version, release, arch, source] = fields.as_slice() else {
        return None;
    };
    let name = name.lines().last()?.trim();
    if name.is_empty() || version.is_empty() {
        return None;
    }
    let version = version_of(epoch.parse().ok(), version, release);
    let source = source_of(source.trim()).map(|(source, _)| source);
    let key = (name.to_owned(), version, (*arch).to_owned());
    Some((key, source.filter(|source| source != name)))
}

/// `NAME.ARCH VERSION REPOSITORY`, up to what replaces other packages. A long name stands on a line of its own.
pub(super) fn columns(text: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut before: Vec<&str> = Vec::new();
    for line in text.lines() {
        // dnf 5 writes it small.
        if line.to_ascii_lowercase().starts_with("obsoleting packages") {
            break;
        }
        let goes_on = line.starts_with(' ') && !before.is_empty();
        if !goes_on {
            before.clear();
        }
        before.extend(line.split_whitespace());
        match before.as_slice() {
            [name, version, repository] => {
                found.extend(column(name, version, repository));
                before.clear();
            }
            [_] | [_, _] => {}
            _ => before.clear(),
        }
    }
    found
}

fn column(name: &str, version: &str, repository: &str) -> Option<Candidate> {
    let (name, arch) = name.rsplit_once('.')?;
    // A sentence of three words is no package.
    let is_version =
        version.contains('-') && version.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_arch = !arch.is_empty()
        && arch
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_version && is_arch).then(|| Candidate {
        name: name.to_owned(),
        version: version.strip_prefix("0:").unwrap_or(version).to_owned(),
        arch: arch.to_owned(),
        repository: repository.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_among_what_plugins_say() {
        let text = "Not root, repositories not updated\n\
            foo\x1f0\x1f2.0\x1f1.el9\x1fx86_64\x1ffoo-2.0-1.el9.src.rpm\x1e\n\
            bar-libs\x1f1\x1f1.1\x1f1\x1fnoarch\x1fbar-1.1-1.src.rpm\x1e\n";
        let sources = sources(text);
        let get = |version, name: &str, arch: &str| sources.get(version, name, arch).cloned();
        assert_eq!(get("2.0-1.el9", "foo", "x86_64"), Some(None));
        assert_eq!(
            get("1:1.1-1", "bar-libs", "noarch"),
            Some(Some("bar".into()))
        );
        assert_eq!(get("1.1-1", "bar-libs", "noarch"), None);
    }

    #[test]
    fn columns_are_joined_where_a_long_name_has_a_line_of_its_own() {
        let text = "
bash.x86_64                    4.2.46-35.el7_9           updates
NetworkManager-config-server-with-a-long-name.noarch
                               1:1.18.8-2.el7_9          updates
This system is
Updating Subscription Management
Obsoleting Packages
grub2.x86_64                   1:2.02-0.87.el7           updates
    grub2-tools.x86_64         1:2.02-0.86.el7           @updates
";
        let told: Vec<_> = columns(text)
            .into_iter()
            .map(|one| format!("{} {} {}", one.name, one.version, one.arch))
            .collect();
        assert_eq!(
            told,
            [
                "bash 4.2.46-35.el7_9 x86_64",
                "NetworkManager-config-server-with-a-long-name 1:1.18.8-2.el7_9 noarch"
            ]
        );
    }
}
