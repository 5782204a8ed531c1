//! The order of what may be the cause, without a database.

use serde_json::json;
use time::macros::datetime;
use uuid::Uuid;

use super::*;

const MOMENT: OffsetDateTime = datetime!(2026-01-02 12:00 UTC);

fn item(kind: &'static str, what: &str, hours: i64, body: Value) -> Item {
    Item {
        id: format!("{kind}:{what}:{hours}"),
        kind,
        at: MOMENT - Duration::hours(hours),
        until: None,
        received_at: None,
        title: String::new(),
        detail: None,
        by: None,
        tone: "neutral",
        what: what.to_owned(),
        body: Some(body),
        is_cut: false,
        change_id: None,
        run_id: None,
        change_title: None,
        outcome: None,
        unattributed: false,
    }
}

fn upgrade(name: &str) -> Value {
    json!({"changes": [{"action": "upgraded", "name": name, "from": "1", "to": "2"}]})
}

fn one_of_each(hours: i64) -> Vec<Item> {
    let change =
        |what: &str, outcome: &str| item("change", what, hours, json!({"outcome": outcome}));
    let boot = |expected: &str| item("event", "boot", hours, json!({"expected": expected}));
    vec![
        change("terraform plan", "planned"),
        item("fact", "facts.dns", hours, json!({"was_there": true})),
        boot("yes"),
        item("package", "package_transaction", hours, upgrade("vim")),
        item(
            "package",
            "package_transaction",
            hours,
            upgrade("linux-image-amd64"),
        ),
        boot("no"),
        change("terraform apply", "succeeded"),
        change("ansible play", "failed"),
    ]
}

fn gravities(causes: &[Cause]) -> Vec<&'static str> {
    causes.iter().map(|cause| cause.gravity).collect()
}

#[test]
fn of_things_as_far_away_the_gravest_is_first() {
    for hours in [0, 3, 100] {
        let causes = rank(one_of_each(hours), MOMENT);
        assert_eq!(
            gravities(&causes),
            [
                "failed_change",
                "change",
                "unexpected_reboot",
                "grave_packages",
                "packages",
                "reboot",
                "fact",
                "planned_only"
            ]
        );
        assert!(causes.iter().all(|cause| cause.item.body.is_none()));
        assert!(
            causes
                .iter()
                .all(|cause| cause.seconds_before == hours * 3600)
        );
    }
}

#[test]
fn what_is_near_counts_more_and_twelve_hours_halve_it() {
    let causes = rank(
        vec![
            item(
                "change",
                "terraform apply",
                24,
                json!({"outcome": "succeeded"}),
            ),
            item("package", "package_transaction", 1, upgrade("vim")),
            item("package", "package_transaction", 12, upgrade("vim")),
        ],
        MOMENT,
    );
    // An upgrade of an hour ago, an apply of the day before, and an upgrade of half a day ago.
    assert_eq!(gravities(&causes), ["packages", "packages", "change"]);
    for cause in &causes[1..] {
        assert!((cause.score - 20.0).abs() < 0.001, "{}", cause.score);
    }
    assert_eq!(causes[1].seconds_before, 12 * 3600);
}

#[test]
fn what_nobody_is_known_for_comes_before_its_like_and_not_before_what_is_graver() {
    let mut unknown = item("package", "inventory", 2, upgrade("vim"));
    unknown.unattributed = true;
    let mut grave = item("package", "package_transaction", 2, upgrade("systemd"));
    grave.change_id = Some(Uuid::nil());
    let known = item("package", "package_transaction", 2, upgrade("vim"));
    let causes = rank(vec![known, unknown, grave], MOMENT);
    assert_eq!(
        gravities(&causes),
        ["grave_packages", "packages", "packages"]
    );
    assert!(causes[1].item.unattributed && !causes[2].item.unattributed);
}

#[test]
fn a_change_lies_as_far_away_as_its_end_and_what_goes_on_is_at_the_moment() {
    let mut apply = item(
        "change",
        "terraform apply",
        5,
        json!({"outcome": "succeeded"}),
    );
    apply.until = Some(MOMENT - Duration::hours(2));
    let mut running = item("change", "ansible play", 5, json!({"outcome": "running"}));
    running.until = Some(MOMENT + Duration::hours(2));
    let causes = rank(vec![apply, running], MOMENT);
    let before: Vec<_> = causes.iter().map(|cause| cause.seconds_before).collect();
    assert_eq!(before, [0, 2 * 3600]);
}

#[test]
fn what_a_run_explains_stands_below_it() {
    let (change, run, other) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let of = |mut item: Item, run| {
        (item.change_id, item.run_id) = (Some(change), run);
        item
    };
    let mut items = vec![
        of(
            item(
                "change",
                "terraform apply",
                3,
                json!({"outcome": "succeeded"}),
            ),
            Some(run),
        ),
        of(
            item("change", "manual", 3, json!({"outcome": "succeeded"})),
            None,
        ),
        of(item("fact", "facts.dns", 3, json!({})), None),
        // Of a run that began before the time that is looked at.
        of(item("fact", "facts.os", 3, json!({})), Some(other)),
        item("fact", "facts.cpu", 3, json!({})),
    ];
    items.extend((0..30).map(|nth| {
        let mut package = of(
            item("package", "package_transaction", 3, upgrade("vim")),
            Some(run),
        );
        package.id = format!("{nth:02}");
        package
    }));
    let causes = rank(items, MOMENT);
    assert_eq!(gravities(&causes), ["change", "change", "fact", "fact"]);
    let apply = causes
        .iter()
        .find(|cause| cause.item.run_id == Some(run))
        .unwrap();
    assert_eq!((apply.during_count, apply.during.len()), (30, MOST_DURING));
    assert_eq!(apply.during[0].id, "29");
    let manual = causes
        .iter()
        .find(|cause| cause.item.what == "manual")
        .unwrap();
    assert_eq!(manual.during[0].what, "facts.dns");
}

#[test]
fn packages_are_grave_by_what_was_done_and_by_what_they_are() {
    let done = |action: &str| json!({"changes": [{"action": action, "name": "vim"}]});
    let cases = [
        (upgrade("vim"), false),
        (upgrade("linux-image-6.1.0-28-amd64"), true),
        (upgrade("kernel-core"), true),
        (upgrade("libssl3"), true),
        (upgrade("pamixer"), false),
        (done("installed"), false),
        (done("removed"), true),
        (done("downgraded"), true),
        (
            json!({"changes": [{"action": "upgraded", "name": "vim", "left": "unpacked"}]}),
            true,
        ),
        (json!({"changes": [], "error": "dpkg returned 1"}), true),
        (json!({"changes": [], "error": null}), false),
        (json!({"change_count": 700}), true),
        (json!(null), true),
    ];
    for (body, expected) in cases {
        let told = body.to_string();
        assert_eq!(
            are_grave(&item("package", "x", 1, body)),
            expected,
            "{told}"
        );
    }
}
