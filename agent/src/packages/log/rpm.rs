//! Packages as dnf's logs name them: `name-[epoch:]version-release.arch`.

use infratrack_shared::version::rpm::{sort_key, split};
use infratrack_shared::wire::event::PackageAction;

use super::super::field;

/// A package and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nevra {
    pub name: String,
    pub arch: String,
    /// As rpm prints it: without an epoch of 0.
    pub version: String,
}

impl Nevra {
    pub(super) fn read(text: &str) -> Option<Self> {
        let (rest, arch) = text.trim().rsplit_once('.')?;
        let (rest, release) = rest.rsplit_once('-')?;
        let (name, version) = rest.rsplit_once('-')?;
        let version = version.strip_prefix("0:").unwrap_or(version);
        let parts = [name, arch, version, release];
        let is_one = parts
            .iter()
            .all(|part| !part.trim().is_empty() && !part.contains(' '));
        is_one.then(|| Self {
            name: field(name),
            arch: field(arch),
            version: field(&format!("{version}-{release}")),
        })
    }
}

/// What became of a package by its versions before and after.
pub(super) fn replaced(from: &str, to: &str) -> PackageAction {
    let key = |text| {
        let (epoch, version, release) = split(text);
        sort_key(epoch, version, release)
    };
    match key(from).cmp(&key(to)) {
        std::cmp::Ordering::Less => PackageAction::Upgraded,
        std::cmp::Ordering::Equal => PackageAction::Reinstalled,
        std::cmp::Ordering::Greater => PackageAction::Downgraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_its_end() {
        let cases = [
            ("one-1.0-1.noarch", Some(("one", "noarch", "1.0-1"))),
            (
                "gcc-c++-1:13.2-3.fc39.x86_64",
                Some(("gcc-c++", "x86_64", "1:13.2-3.fc39")),
            ),
            (
                "acpi-0:1.7-21.fc39.x86_64",
                Some(("acpi", "x86_64", "1.7-21.fc39")),
            ),
            ("one", None),
            ("one-1.noarch", None),
            ("a b-1-1.noarch", None),
            ("-1-1.noarch", None),
        ];
        for (text, expected) in cases {
            let read = Nevra::read(text);
            let read = read
                .as_ref()
                .map(|it| (it.name.as_str(), it.arch.as_str(), it.version.as_str()));
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(replaced("1:1-1", "2-1"), PackageAction::Downgraded);
        assert_eq!(replaced("1.9-1", "1.10-1"), PackageAction::Upgraded);
    }
}
