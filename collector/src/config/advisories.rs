//! The section `advisories`: which documents say what is vulnerable, and where they are.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::inventory::is_source_name;
use crate::advisories::documents::Format;
use crate::aws::s3::Object;

/// Documents of advisories that are imported.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Advisories {
    /// How often it is looked whether documents have changed.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// Tables of `name`, `format` (`osv`, `debian-tracker` or `oval`) and `location`: the path of a file or folder, or
    /// `s3://bucket/key`. Files may be packed by gzip or zip.
    pub feeds: Vec<Feed>,
}

impl Default for Advisories {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(3600),
            feeds: Vec::new(),
        }
    }
}

/// Documents of one publisher.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    pub name: String,
    pub format: Format,
    pub location: String,
}

/// Where a feed's documents are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Path(PathBuf),
    S3(Object),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::S3(object) => object.fmt(f),
        }
    }
}

impl Feed {
    /// Where its documents are; an error where that can't be.
    pub fn place(&self) -> anyhow::Result<Place> {
        let (name, location) = (&self.name, &self.location);
        if location.starts_with("s3://") {
            return match location.parse() {
                Ok(object) => Ok(Place::S3(object)),
                Err(wrong) => bail!("advisories.feeds: the location of {name:?} {wrong}"),
            };
        }
        ensure!(
            location.starts_with('/') && !location.contains('\0'),
            "advisories.feeds: the location of {name:?} is neither an absolute path nor s3://bucket/key"
        );
        Ok(Place::Path(PathBuf::from(location)))
    }
}

impl Advisories {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (Duration::from_secs(60)..=Duration::from_secs(7 * 86_400)).contains(&self.every),
            "advisories.every must be from 1 minute to 7 days"
        );
        ensure!(
            self.feeds.len() <= 100,
            "advisories.feeds may be 100 at most"
        );
        for (index, feed) in self.feeds.iter().enumerate() {
            ensure!(
                is_source_name(&feed.name),
                "advisories.feeds: the name {:?} may have only letters, digits and - _ . : /",
                feed.name
            );
            feed.place()?;
            let mut others = self.feeds.iter().take(index);
            ensure!(
                others.all(|other| other.name != feed.name),
                "advisories.feeds has {:?} twice",
                feed.name
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_without_a_place_or_with_anothers_name_is_refused_by_its_setting() {
        let of = |text: &str| toml::from_str::<Advisories>(text).map_err(anyhow::Error::from);
        let feed = |name: &str, location: &str| {
            format!("[[feeds]]\nname = '{name}'\nformat = 'osv'\nlocation = '{location}'\n")
        };
        let good = [feed("a", "/srv/osv"), feed("b", "s3://bucket/all.zip")].concat();
        of(&good).and_then(|good| good.check()).unwrap();
        for (bad, words) in [
            (feed("a b", "/x"), "the name \"a b\""),
            (feed("a", "x"), "the location of \"a\" is neither"),
            (feed("a", "https://x"), "the location of \"a\" is neither"),
            (feed("a", "s3://"), "the location of \"a\" names no bucket"),
            (
                [feed("a", "/x"), feed("a", "/y")].concat(),
                "has \"a\" twice",
            ),
            ("every = '1s'".to_owned(), "advisories.every"),
            (feed("a", "/x").replace("osv", "csaf"), "unknown variant"),
        ] {
            let error = of(&bad).and_then(|bad| bad.check()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
