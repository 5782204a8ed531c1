//! By when security updates are due: the rules of the configuration, as the store applies them.

use crate::config::{Patches, Within};
use crate::store::host_patches::Rule;

/// A hundred years: more is never, too, and no interval of Postgres.
const MOST_S: i64 = 100 * 366 * 86_400;

/// The rules that a configuration makes.
pub fn rules(patches: &Patches) -> Vec<Rule> {
    let all = std::iter::once(("", &patches.within));
    let of_tags = patches.tags.iter();
    let all = all.chain(of_tags.map(|(tag, within)| (tag.as_str(), within)));
    all.flat_map(|(tag, within)| of(tag, within)).collect()
}

fn of(tag: &str, within: &Within) -> [Rule; 5] {
    let allowed = [
        ("critical", within.critical),
        ("important", within.important),
        ("moderate", within.moderate),
        ("low", within.low),
        ("unrated", within.unrated),
    ];
    allowed.map(|(severity, allowed)| Rule {
        tag: tag.to_owned(),
        severity,
        seconds: i64::try_from(allowed.as_secs())
            .unwrap_or(MOST_S)
            .min(MOST_S),
    })
}
