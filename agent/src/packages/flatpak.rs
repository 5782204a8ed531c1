//! What is known of a flatpak without its library: where it stands says its name, architecture and branch, and its
//! description its releases.

use super::{Package, field, said};

/// A flatpak.
pub fn package(name: &str, arch: &str, version: &str) -> Package {
    Package {
        name: field(name),
        version: field(version),
        arch: field(arch),
        ..Package::default()
    }
}

/// The first `<release … version="…">` of a description, which is the newest.
pub fn newest_release(description: &str) -> Option<String> {
    let mut tags = description.split("<release ").skip(1);
    let tag = tags.next()?.split('>').next()?;
    let (_, value) = tag.split_once("version=")?;
    let quote = value
        .chars()
        .next()
        .filter(|quote| "'\"".contains(*quote))?;
    said(value.get(1..)?.split(quote).next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_release_is_the_newest() {
        let text = "<releases><release type='x' version='1.2'/><release version=\"1.1\">";
        assert_eq!(newest_release(text).as_deref(), Some("1.2"));
        assert_eq!(newest_release("<release version=>"), None);
        assert_eq!(newest_release("<releases/>"), None);
    }
}
