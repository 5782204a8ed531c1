//! Patches, as `zypper info` shows them: a patch conflicts with every version before the one that it brings.

use crate::updates::rpm::order;

/// The words of publishers, the worst first.
const SEVERITIES: [&str; 4] = ["critical", "important", "moderate", "low"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) name: String,
    pub(super) is_security: bool,
    pub(super) severity: Option<String>,
    /// `NAME` or `NAME.ARCH`, and the version that is the first without the fault.
    pub(super) fixes: Vec<(String, Vec<u8>)>,
}

/// The patches, from the heading of each to that of the next.
pub(super) fn parse(text: &str) -> Vec<Patch> {
    let mut patches: Vec<Patch> = Vec::new();
    let mut in_conflicts = false;
    for line in text.lines() {
        if line.starts_with("Information for patch ") {
            patches.push(Patch::default());
        }
        let Some(patch) = patches.last_mut() else {
            continue;
        };
        let field = line.split_once(" : ").filter(|_| !line.starts_with(' '));
        let value = match field {
            Some((name, value)) => {
                let (name, value) = (name.trim(), value.trim());
                in_conflicts = name == "Conflicts";
                match name {
                    "Name" => value.clone_into(&mut patch.name),
                    "Category" => patch.is_security = value == "security",
                    "Severity" => {
                        let is_word = SEVERITIES.contains(&value);
                        patch.severity = is_word.then(|| value.to_owned());
                    }
                    _ => {}
                }
                value
            }
            None => line.trim(),
        };
        if in_conflicts && let Some((package, version)) = value.split_once(" < ") {
            patch.fixes.push((package.to_owned(), order(version)));
        }
    }
    patches
}

/// The worst of them.
pub(super) fn worst<'a>(severities: impl Iterator<Item = &'a str>) -> Option<String> {
    let rank = |word: &&str| SEVERITIES.iter().position(|known| known == word);
    severities.min_by_key(rank).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_what_it_mends_on_one_line_or_many() {
        let text = "Loading repository data...

Information for patch SUSE-SLE-15-2024-1:
-----------------------------------------
Repository  : updates
Name        : SUSE-SLE-15-2024-1
Category    : security
Severity    : important
Description :
    This fixes : a < b
Provides    : patch:SUSE-SLE-15-2024-1 = 1
Conflicts   : [3]
    foo.x86_64 < 2.0-1
    srcpackage:foo < 2.0-1
    python3.11-bar < 1:3-1

Information for patch openSUSE-2024-2:
--------------------------------------
Name        : openSUSE-2024-2
Category    : recommended
Severity    : unspecified
Conflicts   : bar.noarch < 1.1-1
";
        let patches = parse(text);
        let [one, other] = patches.as_slice() else {
            panic!("{patches:?}");
        };
        assert!(one.is_security && !other.is_security);
        let names: Vec<_> = one.fixes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["foo.x86_64", "srcpackage:foo", "python3.11-bar"]);
        assert_eq!(one.severity.as_deref(), Some("important"));
        assert_eq!((other.severity.as_ref(), other.fixes.len()), (None, 1));
        assert_eq!(
            worst(["low", "critical", "moderate"].into_iter()).as_deref(),
            Some("critical")
        );
    }
}
