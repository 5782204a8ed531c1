//! The repositories that zypper is configured to use, and what its runs have brought of each.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use crate::updates::Reason;
use crate::updates::tool::Check;

const CONFIGURED: &str = "etc/zypp/repos.d";
const CONFIGURED_BYTES: u64 = 1024 * 1024;
const BROUGHT: &str = "var/cache/zypp/raw";
const INDEX_BYTES: u64 = 4 * 1024 * 1024;

/// By the repository's alias, when its index came and whether it has patches.
pub(super) struct Repositories(BTreeMap<String, (u64, bool)>);

impl Repositories {
    /// Warns of those without metadata; fails where none has any.
    pub(super) fn read(check: &Check<'_>) -> Result<(Self, Vec<String>), Reason> {
        let root = &check.host.root;
        let mut found = Self(BTreeMap::new());
        let mut warnings = Vec::new();
        let files = root.names(CONFIGURED)?;
        for file in files.iter().filter(|name| is_repository(name)) {
            let text = text(check, &format!("{CONFIGURED}/{file}"), CONFIGURED_BYTES);
            for alias in enabled(&text.unwrap_or_default()) {
                // A slash of an alias is no directory.
                let path = format!("{BROUGHT}/{}/repodata/repomd.xml", alias.replace('/', "_"));
                let brought = root.path(&path).metadata().ok();
                let brought = brought.and_then(|found| u64::try_from(found.mtime()).ok());
                match (brought, text_of(check, &path)) {
                    (Some(at), Some(index)) => {
                        let has_patches = index.contains("type=\"updateinfo\"");
                        found.0.insert(alias, (at, has_patches));
                    }
                    _ => warnings.push(format!("no metadata of {alias}")),
                }
            }
        }
        if found.0.is_empty() {
            let reason = "no metadata: zypper refresh has not run, or no repository is enabled";
            return Err(reason.to_owned());
        }
        Ok((found, warnings))
    }

    /// When the oldest of them came.
    pub(super) fn brought_at_s(&self) -> Option<u64> {
        self.0.values().map(|(at, _)| *at).min()
    }

    pub(super) fn has_patches(&self, alias: &str) -> bool {
        self.0
            .get(alias)
            .is_some_and(|(_, has_patches)| *has_patches)
    }
}

/// zypper reads no other file there.
fn is_repository(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end == "repo")
}

fn text_of(check: &Check<'_>, path: &str) -> Option<String> {
    text(check, path, INDEX_BYTES)
}

fn text(check: &Check<'_>, path: &str, bytes: u64) -> Option<String> {
    let mut text = Vec::new();
    let mut file = check.host.root.open(path, bytes).ok()?;
    file.read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The sections whose `enabled` is not off.
fn enabled(text: &str) -> Vec<String> {
    let mut sections: Vec<(String, bool)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let section = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'));
        if let Some(alias) = section {
            sections.push((alias.to_owned(), true));
        } else if let (Some((name, value)), Some(section)) =
            (line.split_once('='), sections.last_mut())
            && name.trim() == "enabled"
        {
            section.1 = !["0", "no", "false", "off"].contains(&value.trim());
        }
    }
    let enabled = sections.into_iter().filter(|(_, is_enabled)| *is_enabled);
    enabled.map(|(alias, _)| alias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_sections_that_are_not_off() {
        let text = "# a comment\n[main]\nname=x\nenabled = 1\n[debug]\nenabled=0\n[plain]\nbaseurl=file:/x\n";
        assert_eq!(enabled(text), ["main", "plain"]);
    }
}
