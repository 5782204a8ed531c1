//! The repositories that are enabled, and what root's runs have brought of each: since when it stands, and whether it has
//! advisories, without which nothing says that an update is not one for security.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::updates::Reason;
use crate::updates::tool::Check;

const INDEX: &str = "repomd.xml";
const INDEX_BYTES: u64 = 4 * 1024 * 1024;

/// What is known of a repository by its id.
#[derive(Debug, Default)]
pub(super) struct Repositories(BTreeMap<String, Repository>);

#[derive(Clone, Debug, Default)]
struct Repository {
    brought_at_s: u64,
    has_advisories: bool,
}

impl Repositories {
    /// Of those listed as enabled. Warns of those without metadata; fails where none has any.
    pub(super) fn read(
        check: &Check<'_>,
        listed: &str,
        cache: &Path,
    ) -> Result<(Self, Vec<String>), Reason> {
        let mut found = Self::default();
        let mut warnings = Vec::new();
        let cache = cache.to_string_lossy();
        let indices = indices(check, &cache);
        for id in ids(listed) {
            let of = indices.iter().filter(|(name, _)| is_of(name, &id));
            let newest = of
                .map(|(_, repository)| repository)
                .max_by_key(|one| one.brought_at_s);
            match newest {
                Some(repository) => drop(found.0.insert(id, repository.clone())),
                None => warnings.push(format!("no metadata of {id}")),
            }
        }
        if found.0.is_empty() {
            let reason = "no metadata: dnf makecache has not run, or no repository is enabled";
            return Err(reason.to_owned());
        }
        Ok((found, warnings))
    }

    /// When the oldest of them came.
    pub(super) fn brought_at_s(&self) -> Option<u64> {
        self.0.values().map(|one| one.brought_at_s).min()
    }

    pub(super) fn has_advisories(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|one| one.has_advisories)
    }
}

/// The first column, below its heading. yum marks some, and adds to the id what the host is.
fn ids(listed: &str) -> Vec<String> {
    let lines = listed
        .lines()
        .skip_while(|line| !line.starts_with("repo id"));
    let ids = lines
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    let ids = ids.filter(|id| *id != "repolist:");
    let ids = ids.map(|id| id.trim_start_matches(['!', '*']));
    ids.map(|id| id.split('/').next().unwrap_or(id).to_owned())
        .collect()
}

/// A directory is named for the repository; dnf adds 16 hexadecimal digits.
fn is_of(directory: &str, id: &str) -> bool {
    match directory.strip_prefix(id) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('-').is_some_and(|digest| {
            digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        }),
        None => false,
    }
}

/// Every index below the cache by its repository's directory: `ID-DIGEST/repodata/` of dnf, `ARCH/RELEASE/ID/` of yum.
fn indices(check: &Check<'_>, cache: &str) -> Vec<(String, Repository)> {
    let root = &check.host.root;
    let below = |path: &str| root.names(path).unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |name: &str, path: String| {
        found.extend(read(check, &path).map(|repository| (name.to_owned(), repository)));
    };
    for name in below(cache) {
        add(&name, format!("{cache}/{name}/repodata/{INDEX}"));
        if !cache.ends_with("yum") {
            continue;
        }
        for release in below(&format!("{cache}/{name}")) {
            for id in below(&format!("{cache}/{name}/{release}")) {
                add(&id, format!("{cache}/{name}/{release}/{id}/{INDEX}"));
            }
        }
    }
    found
}

fn read(check: &Check<'_>, path: &str) -> Option<Repository> {
    let root = &check.host.root;
    let mut text = Vec::new();
    let mut file = root.open(path, INDEX_BYTES).ok()?;
    file.read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    // It is as new as the last time that the server's was the same.
    let at = root.path(path).metadata().ok()?.mtime();
    Some(Repository {
        brought_at_s: u64::try_from(at).unwrap_or_default(),
        has_advisories: text.contains("type=\"updateinfo\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_in_the_first_column() {
        let text = "Loaded plugins\nrepo id   repo name\nbaseos    Rocky - BaseOS\n!updates/7/x86_64 CentOS-7 1,234\nrepolist: 5\n";
        assert_eq!(ids(text), ["baseos", "updates"]);
        assert!(ids("").is_empty());
    }

    #[test]
    fn a_directory_is_not_that_of_a_longer_id() {
        assert!(is_of("base-0123456789abcdef", "base"));
        assert!(is_of("base", "base"));
        assert!(!is_of("base-source-0123456789abcdef", "base"));
        assert!(!is_of("other", "base"));
    }
}
