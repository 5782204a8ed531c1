//! What happened to a host before a moment, the likely causes first.
//!
//! Each has a score: points by what it is, 8 more where it is unattributed, halved for each [`HALF_LIFE`] that lies between
//! it and the moment:
//!
//! `score = (points + 8 if unattributed) × 2^(−hours before ÷ 12)`
//!
//! Eight is less than lies between two kinds of packages or facts and what stands above them, so that of things as far away
//! what they are decides. A change lies as far away as its end. What a change explains stands below it, without a score.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::Item;

/// What is so much further away counts half.
pub const HALF_LIFE: Duration = Duration::hours(12);
/// What nobody can be named for is what nobody knows of.
const UNATTRIBUTED: f64 = 8.0;
/// Items that stand below a change; of more, how many.
const MOST_DURING: usize = 20;

/// What something is, from the gravest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gravity {
    FailedChange,
    Change,
    UnexpectedReboot,
    GravePackages,
    Packages,
    Reboot,
    Fact,
    PlannedOnly,
}

impl Gravity {
    fn points(self) -> f64 {
        match self {
            Self::FailedChange => 100.0,
            Self::Change => 80.0,
            Self::UnexpectedReboot => 70.0,
            Self::GravePackages => 60.0,
            Self::Packages => 40.0,
            Self::Reboot => 30.0,
            Self::Fact => 20.0,
            Self::PlannedOnly => 5.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::FailedChange => "failed_change",
            Self::Change => "change",
            Self::UnexpectedReboot => "unexpected_reboot",
            Self::GravePackages => "grave_packages",
            Self::Packages => "packages",
            Self::Reboot => "reboot",
            Self::Fact => "fact",
            Self::PlannedOnly => "planned_only",
        }
    }
}

/// What may have caused what was seen at the moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PossibleCause)]
pub struct Cause {
    /// `failed_change | change | unexpected_reboot | grave_packages | packages | reboot | fact | planned_only`.
    pub gravity: &'static str,
    pub score: f64,
    /// How long before the moment it was; of a change, its end.
    pub seconds_before: i64,
    /// Without its body, which the timeline has.
    pub item: Item,
    /// Changes of packages and facts during it, without their bodies; 20 at most, the last first.
    pub during: Vec<Item>,
    /// How many there are.
    pub during_count: usize,
}

/// The likely causes first. Items are those of changes, packages, facts and boots.
pub fn rank(items: Vec<Item>, moment: OffsetDateTime) -> Vec<Cause> {
    let (changes, others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| item.kind == "change");
    let mut causes: Vec<_> = changes
        .into_iter()
        .map(|item| cause(item, moment))
        .collect();
    let of_change = |item: &Item| (item.change_id, item.run_id);
    let places = causes.iter().map(|cause| of_change(&cause.item)).zip(0..);
    let places: HashMap<_, usize> = places.collect();
    for item in others {
        let place = item.change_id.and_then(|_| places.get(&of_change(&item)));
        match place {
            Some(place) => {
                let during = &mut causes[*place].during;
                during.push(Item { body: None, ..item });
            }
            None => causes.push(cause(item, moment)),
        }
    }
    for cause in &mut causes {
        cause.during_count = cause.during.len();
        cause.during.sort_by(|a, b| super::order(b, a));
        cause.during.truncate(MOST_DURING);
    }
    causes.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| super::order(&b.item, &a.item))
    });
    causes
}

fn cause(item: Item, moment: OffsetDateTime) -> Cause {
    let gravity = gravity(&item);
    let end = item.until.filter(|_| item.kind == "change");
    let before = (moment - end.unwrap_or(item.at)).max(Duration::ZERO);
    let extra = if item.unattributed { UNATTRIBUTED } else { 0.0 };
    let half_lives = before.as_seconds_f64() / HALF_LIFE.as_seconds_f64();
    let score = (gravity.points() + extra) * (-half_lives).exp2();
    Cause {
        gravity: gravity.name(),
        // As it is shown.
        score: (score * 1000.0).round() / 1000.0,
        seconds_before: before.whole_seconds(),
        item: Item { body: None, ..item },
        during: Vec::new(),
        during_count: 0,
    }
}

fn gravity(item: &Item) -> Gravity {
    let field = |name: &str| item.body.as_ref()?.get(name);
    let text = |name: &str| field(name)?.as_str();
    match item.kind {
        "change" => {
            let is_check = field("is_check").and_then(Value::as_bool) == Some(true);
            let is_told_only = item.what.ends_with(" plan") || item.what.ends_with(" state");
            match text("outcome") {
                _ if is_check || is_told_only => Gravity::PlannedOnly,
                Some("failed" | "interrupted") => Gravity::FailedChange,
                _ => Gravity::Change,
            }
        }
        "package" if are_grave(item) => Gravity::GravePackages,
        "package" => Gravity::Packages,
        "fact" => Gravity::Fact,
        _ if text("expected") == Some("no") => Gravity::UnexpectedReboot,
        _ => Gravity::Reboot,
    }
}

/// A transaction that failed, took something away or back, left something broken, changed what everything runs on, or is too
/// large to be looked at. No log says which upgrade was for security.
fn are_grave(item: &Item) -> bool {
    let Some(body) = item.body.as_ref() else {
        return true;
    };
    let Some(changes) = body.get("changes").and_then(Value::as_array) else {
        return true;
    };
    let shown = u64::try_from(changes.len()).unwrap_or(u64::MAX);
    let count = body.get("change_count").and_then(Value::as_u64);
    body.get("error").is_some_and(|error| !error.is_null())
        || count.is_some_and(|count| count > shown)
        || changes.iter().any(is_grave)
}

fn is_grave(change: &Value) -> bool {
    let text = |name: &str| change.get(name).and_then(Value::as_str);
    let actions = ["removed", "purged", "downgraded", "broken"];
    text("action").is_some_and(|action| actions.contains(&action))
        || text("left").is_some()
        || text("name").is_some_and(is_base)
}

/// Kernels, boot loaders, and what every program or login goes through.
fn is_base(name: &str) -> bool {
    let beginnings = [
        "linux-image",
        "linux-modules",
        "linux-firmware",
        "kernel",
        "grub",
        "shim",
        "libssl",
        "openssl",
        "openssh",
        "libpam",
    ];
    let names = [
        "libc6",
        "glibc",
        "musl",
        "systemd",
        "udev",
        "sudo",
        "pam",
        "dbus",
        "initramfs-tools",
        "dracut",
    ];
    names.contains(&name) || beginnings.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests;
