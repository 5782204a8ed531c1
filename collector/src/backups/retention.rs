//! Which snapshots of a volume are kept, and why: a pure function of what there is, by the collector's clock, in UTC.
//!
//! For each rule the newest snapshot of each of the last so many periods that have one is kept; where a period has a snapshot
//! that is whole, no incomplete one stands for it. Whatever the rules say, the last whole one stays, and what came after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime, UtcOffset};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::backup_snapshots::SnapshotRow;

/// The most that a rule may keep.
pub const MAX_COUNT: u32 = 10_000;

/// How many are kept. None of a rule that is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = Retention)]
pub struct Rules {
    /// The newest whole ones.
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    /// Weeks of ISO 8601: from Monday.
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

impl Rules {
    /// A week of days, a month of weeks, a year of months.
    pub const DEFAULT: Self = Self {
        last: 3,
        hourly: 0,
        daily: 7,
        weekly: 5,
        monthly: 12,
        yearly: 0,
    };

    /// Why these are no rules.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
        ];
        if counts.iter().all(|count| *count == 0) {
            return Err("at least one of its rules has to keep something".to_owned());
        }
        if counts.iter().any(|count| *count > MAX_COUNT) {
            return Err(format!("a rule keeps at most {MAX_COUNT}"));
        }
        Ok(())
    }
}

/// A snapshot, as far as retention is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub id: Uuid,
    /// When it was begun; for one whose host's clock was wrong, when it arrived.
    pub at: OffsetDateTime,
    pub is_whole: bool,
    /// Nobody may delete it.
    pub is_held: bool,
}

impl Snapshot {
    /// As it stands in the tables. One whose object is lost keeps no other from being kept.
    pub fn of(row: &SnapshotRow) -> Self {
        Self {
            id: row.snapshot_id,
            at: row.at,
            is_whole: row.is_whole && row.lost_at.is_none(),
            is_held: row.held_at.is_some(),
        }
    }
}

/// Why a snapshot is kept.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = KeptBecause)]
pub enum Reason {
    /// Somebody holds it.
    Held,
    /// It is the newest that is whole.
    LastWhole,
    /// It came after the last whole one.
    SinceLastWhole,
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// What becomes of each snapshot, in the order in which they came; without a reason it may be deleted.
pub fn decide(rules: &Rules, snapshots: &[Snapshot]) -> Vec<Vec<Reason>> {
    let mut newest_first: Vec<usize> = (0..snapshots.len()).collect();
    // Of the same time, always in the same order.
    newest_first.sort_unstable_by_key(|at| {
        let snapshot = &snapshots[*at];
        std::cmp::Reverse((snapshot.at, snapshot.id))
    });
    let mut reasons = vec![Vec::new(); snapshots.len()];
    let mut keep = |at: usize, reason| reasons[at].push(reason);
    for at in &newest_first {
        if snapshots[*at].is_held {
            keep(*at, Reason::Held);
        }
    }
    let whole = |at: &&usize| snapshots[**at].is_whole;
    let last_whole = newest_first.iter().position(|at| whole(&at));
    for at in &newest_first[..last_whole.unwrap_or(newest_first.len())] {
        keep(*at, Reason::SinceLastWhole);
    }
    if let Some(last) = last_whole {
        keep(newest_first[last], Reason::LastWhole);
    }
    for at in newest_first.iter().filter(whole).take(count(rules.last)) {
        keep(*at, Reason::Last);
    }
    for (kept, reason) in [
        (rules.hourly, Reason::Hourly),
        (rules.daily, Reason::Daily),
        (rules.weekly, Reason::Weekly),
        (rules.monthly, Reason::Monthly),
        (rules.yearly, Reason::Yearly),
    ] {
        for at in of_periods(snapshots, &newest_first, reason, count(kept)) {
            keep(at, reason);
        }
    }
    reasons
}

fn count(kept: u32) -> usize {
    usize::try_from(kept).unwrap_or(usize::MAX)
}

/// One snapshot of each of the newest periods that have any: the newest whole one, or else the newest.
fn of_periods(
    snapshots: &[Snapshot],
    newest_first: &[usize],
    reason: Reason,
    periods: usize,
) -> Vec<usize> {
    let mut found: BTreeMap<(i32, u32), usize> = BTreeMap::new();
    for at in newest_first {
        let place = found
            .entry(period(snapshots[*at].at, reason))
            .or_insert(*at);
        if snapshots[*at].is_whole && !snapshots[*place].is_whole {
            *place = *at;
        }
    }
    found.into_values().rev().take(periods).collect()
}

/// The period that a time is in; a later one is larger.
fn period(at: OffsetDateTime, reason: Reason) -> (i32, u32) {
    let at = at.to_offset(UtcOffset::UTC);
    let date: Date = at.date();
    let day = u32::from(date.ordinal());
    match reason {
        Reason::Hourly => (date.year(), day * 24 + u32::from(at.hour())),
        Reason::Daily => (date.year(), day),
        Reason::Weekly => {
            let (year, week, _) = date.to_iso_week_date();
            (year, u32::from(week))
        }
        Reason::Monthly => (date.year(), u32::from(u8::from(date.month()))),
        Reason::Yearly => (date.year(), 0),
        Reason::Held | Reason::LastWhole | Reason::SinceLastWhole | Reason::Last => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    fn snapshot(number: u128, at: OffsetDateTime) -> Snapshot {
        Snapshot {
            id: Uuid::from_u128(number),
            at,
            is_whole: true,
            is_held: false,
        }
    }

    fn kept(rules: &Rules, snapshots: &[Snapshot]) -> Vec<(u128, Vec<Reason>)> {
        let decided = decide(rules, snapshots);
        let kept = snapshots.iter().zip(decided);
        kept.filter(|(_, reasons)| !reasons.is_empty())
            .map(|(snapshot, reasons)| (snapshot.id.as_u128(), reasons))
            .collect()
    }

    #[test]
    fn of_each_period_the_newest_is_kept_and_every_one_says_why() {
        use Reason::{Daily, Last, LastWhole, Monthly, Weekly, Yearly};
        let snapshots = [
            snapshot(1, datetime!(2025-12-31 23:00 UTC)),
            snapshot(2, datetime!(2026-01-01 01:00 UTC)),
            snapshot(3, datetime!(2026-01-30 01:00 UTC)),
            snapshot(4, datetime!(2026-01-31 01:00 UTC)),
            snapshot(5, datetime!(2026-01-31 23:59 UTC)),
            snapshot(6, datetime!(2026-02-01 00:00 UTC)),
        ];
        let rules = Rules {
            last: 1,
            daily: 2,
            weekly: 2,
            monthly: 3,
            yearly: 2,
            ..Rules::default()
        };
        let expected = [
            // The first week of 2026 is from 29 December.
            (1, vec![Monthly, Yearly]),
            (2, vec![Weekly]),
            (5, vec![Daily, Monthly]),
            (6, vec![LastWhole, Last, Daily, Weekly, Monthly, Yearly]),
        ];
        assert_eq!(kept(&rules, &snapshots), expected);
    }

    #[test]
    fn times_of_other_offsets_are_of_their_day_in_utc() {
        let snapshots = [
            snapshot(1, datetime!(2026-01-02 00:30 +01:00)),
            snapshot(2, datetime!(2026-01-01 22:00 UTC)),
        ];
        let rules = Rules {
            daily: 5,
            ..Rules::default()
        };
        let expected = [(1, vec![Reason::LastWhole, Reason::Daily])];
        assert_eq!(kept(&rules, &snapshots), expected);
    }

    #[test]
    fn incomplete_ones_never_take_the_place_of_a_whole_one() {
        let at = datetime!(2026-01-01 12:00 UTC);
        let mut snapshots: Vec<_> = (0..10)
            .map(|hours| Snapshot {
                is_whole: false,
                ..snapshot(
                    hours,
                    at + Duration::hours(i64::try_from(hours).unwrap_or(0)),
                )
            })
            .collect();
        let rules = Rules {
            last: 1,
            daily: 1,
            ..Rules::default()
        };
        let since = |number| (number, vec![Reason::SinceLastWhole]);
        let mut expected: Vec<_> = (0..10).map(since).collect();
        expected[9].1.push(Reason::Daily);
        assert_eq!(kept(&rules, &snapshots), expected);
        snapshots[7].is_whole = true;
        let whole = vec![Reason::LastWhole, Reason::Last, Reason::Daily];
        let expected = [(7, whole), since(8), since(9)];
        assert_eq!(kept(&rules, &snapshots), expected);
    }

    #[test]
    fn rules_that_keep_nothing_or_too_much_are_none() {
        assert!(Rules::default().check().is_err());
        let weekly = MAX_COUNT + 1;
        let many = Rules {
            weekly,
            ..Rules::DEFAULT
        };
        assert_eq!(many.check().unwrap_err(), "a rule keeps at most 10000");
        Rules::DEFAULT.check().unwrap();
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        [0_u32..4, 0..4, 0..4, 0..4, 0..4, 0..4].prop_map(
            |[last, hourly, daily, weekly, monthly, yearly]| Rules {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
            },
        )
    }

    /// Over three years and a half, some within the same minutes.
    fn any_snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
        let minutes = prop_oneof![0_i64..2_000_000, 1_000_000..1_000_100_i64];
        let one = (minutes, any::<bool>(), prop::bool::weighted(0.1));
        proptest::collection::vec(one, 0..40).prop_map(|all| {
            let begin = datetime!(2023-06-01 00:00 UTC);
            let made = |(number, (minutes, is_whole, is_held))| Snapshot {
                is_whole,
                is_held,
                ..snapshot(number, begin + Duration::minutes(minutes))
            };
            (0..).zip(all).map(made).collect()
        })
    }

    fn numbers(rules: &Rules, snapshots: &[Snapshot]) -> Vec<u128> {
        let mut numbers: Vec<_> = kept(rules, snapshots)
            .into_iter()
            .map(|(number, _)| number)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    proptest! {
        #[test]
        fn the_last_whole_one_and_what_is_held_stay(rules in any_rules(), snapshots in any_snapshots()) {
            let numbers = numbers(&rules, &snapshots);
            let whole = snapshots.iter().filter(|snapshot| snapshot.is_whole);
            if let Some(last) = whole.max_by_key(|snapshot| (snapshot.at, snapshot.id)) {
                prop_assert!(numbers.contains(&last.id.as_u128()));
            }
            for held in snapshots.iter().filter(|snapshot| snapshot.is_held) {
                prop_assert!(numbers.contains(&held.id.as_u128()));
            }
            prop_assert!(snapshots.is_empty() || !numbers.is_empty());
        }

        #[test]
        fn what_is_kept_stays_when_it_is_decided_again_and_in_any_order(
            rules in any_rules(), snapshots in any_snapshots()
        ) {
            let first = numbers(&rules, &snapshots);
            let mut left: Vec<_> = snapshots.iter().copied().filter(|snapshot| first.contains(&snapshot.id.as_u128())).collect();
            left.reverse();
            prop_assert_eq!(&numbers(&rules, &left), &first);
        }

        #[test]
        fn a_rule_that_keeps_more_drops_nothing(rules in any_rules(), snapshots in any_snapshots()) {
            let before = numbers(&rules, &snapshots);
            let more = Rules { last: rules.last + 1, daily: rules.daily + 2, monthly: rules.monthly + 1, ..rules };
            let after = numbers(&more, &snapshots);
            prop_assert!(before.iter().all(|number| after.contains(number)));
        }

        #[test]
        fn no_rule_keeps_more_than_it_says(rules in any_rules(), snapshots in any_snapshots()) {
            let decided = decide(&rules, &snapshots);
            for (most, reason) in [
                (rules.last, Reason::Last), (rules.hourly, Reason::Hourly), (rules.daily, Reason::Daily),
                (rules.weekly, Reason::Weekly), (rules.monthly, Reason::Monthly), (rules.yearly, Reason::Yearly),
            ] {
                let kept = decided.iter().filter(|reasons| reasons.contains(&reason)).count();
                prop_assert!(kept <= count(most), "{:?}", reason);
            }
        }
    }
}
