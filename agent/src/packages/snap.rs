//! What a snap says of itself: `meta/snap.yaml`, of which the lines at its top level are enough.

use super::{Package, field};

/// The snap, if it has a name and a version.
pub fn parse(text: &str) -> Option<Package> {
    let mut package = Package::default();
    let mut in_architectures = false;
    for line in text.lines() {
        if in_architectures && let Some(arch) = line.trim_start().strip_prefix("- ") {
            if package.arch.is_empty() {
                package.arch = scalar(arch);
            }
            continue;
        }
        if line.starts_with([' ', '\t', '#', '-']) {
            continue;
        }
        in_architectures = false;
        match line.split_once(':') {
            Some(("name", value)) => package.name = scalar(value),
            Some(("version", value)) => package.version = scalar(value),
            Some(("architectures", value)) => {
                in_architectures = value.trim().is_empty();
                let first = value.trim().trim_matches(['[', ']']).split(',').next();
                package.arch = scalar(first.unwrap_or_default());
            }
            _ => {}
        }
    }
    let is_one = !package.name.is_empty() && !package.version.is_empty();
    is_one.then_some(package)
}

fn scalar(text: &str) -> String {
    field(text.trim().trim_matches(['\'', '"']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_top_level_is_the_snaps() {
        let text = "name: lxd\nversion: \"5.21.1-43998c6\"\nsummary: x\napps:\n  name: no\n  version: 2\narchitectures: [arm64, all]\n";
        let snap = parse(text).unwrap();
        assert_eq!(
            (
                snap.name.as_str(),
                snap.version.as_str(),
                snap.arch.as_str()
            ),
            ("lxd", "5.21.1-43998c6", "arm64")
        );
        let snap = parse("name: a\narchitectures:\n  - amd64\n  - i386\nversion: 1").unwrap();
        assert_eq!(snap.arch, "amd64");
        assert_eq!(parse("name: a\n"), None);
    }
}
