//! The Host page's timeline: the API's items with what the page adds, chips that filter by kind, and where to go on.

use infratrack_shared::ids::HostId;
use time::{Duration, OffsetDateTime};

use crate::api::hosts::timeline::cursor;
use crate::timeline::attribution::is_first;
use crate::timeline::{self, Asked, Item, KINDS, Timeline};
use crate::web::host::query::{HostPageQuery, text};
use crate::web::plain::{block, encoded, line, weight};
use crate::web::words;

/// What a record says that came so much later than it happened is said to be late.
const LATE: Duration = Duration::minutes(2);
/// Characters of a body, and what all bodies of a page may weigh.
const BODY: usize = 1500;
const BODIES: usize = 60 * 1024;

/// The section.
#[derive(Debug)]
pub struct TimelineView {
    pub items: Vec<ItemView>,
    pub chips: Vec<Chip>,
    /// All kinds, where some are chosen.
    pub all_kinds: Option<String>,
    /// The newest items of these kinds, where it shows others.
    pub newest: Option<String>,
    pub newer: Option<String>,
    pub older: Option<String>,
    /// What part of it is shown, in words.
    pub place: Option<String>,
    pub is_filtered: bool,
    /// It ends where the host's past begins.
    pub is_whole: bool,
}

/// A kind, to be chosen or not.
#[derive(Debug)]
pub struct Chip {
    pub called: &'static str,
    pub href: String,
    pub is_on: bool,
}

/// An item as it is shown.
#[derive(Debug)]
pub struct ItemView {
    pub at: OffsetDateTime,
    pub until: Option<OffsetDateTime>,
    pub called: &'static str,
    pub title: String,
    pub detail: Option<String>,
    pub by: Option<String>,
    /// `item`, and how it is drawn.
    pub class: String,
    /// When it was told of, where that was later.
    pub late: Option<String>,
    pub body: Option<String>,
    /// There is more than is shown.
    pub more: Option<String>,
    /// Of a change: its page.
    pub href: Option<String>,
    /// Of a change: how it ended, with the badge's class.
    pub badge: Option<(&'static str, String)>,
    /// The change during which it happened.
    pub during: Option<(String, String)>,
    pub unattributed: bool,
    /// What changed in the day before.
    pub day_before: String,
    pub is_to_come: bool,
    /// How many facts it stands for that were told first.
    pub first_facts: usize,
}

impl TimelineView {
    /// Of what was asked and found.
    pub fn of(
        host: HostId,
        query: &HostPageQuery,
        asked: &Asked,
        found: Timeline,
        now: OffsetDateTime,
    ) -> Self {
        let mut left = BODIES;
        let Timeline {
            items,
            older,
            newer,
        } = found;
        let mut views: Vec<ItemView> = Vec::with_capacity(items.len());
        for item in items {
            // A host that tells all its facts at once is one thing that happened.
            let is_first = is_first(&item);
            match views.last_mut() {
                Some(last) if is_first && last.first_facts > 0 && last.at == item.at => {
                    last.first_facts += 1;
                    last.title = format!("{} facts were told first", last.first_facts);
                    let (keys, key) =
                        (last.detail.take().unwrap_or_default(), line(&item.what, 60));
                    last.detail = Some(line(&format!("{keys}, {key}"), 400));
                    last.more = Some(format!("/hosts/{host}#facts"));
                }
                _ => {
                    let mut view = ItemView::of(host, item.clone(), now, &mut left);
                    if is_first {
                        view.first_facts = 1;
                        view.detail = Some(line(&item.what, 60));
                    }
                    views.push(view);
                }
            }
        }
        let on = |place: &timeline::Place| {
            query.link(host, "timeline", |query| {
                query.around.clear();
                if place.is_forward {
                    query.before.clear();
                }
                query.cursor = cursor(place);
            })
        };
        Self {
            items: views,
            chips: chips(host, query, asked),
            all_kinds: (!asked.kinds.is_empty())
                .then(|| query.link(host, "timeline", |query| query.kinds.clear())),
            newest: query
                .has_place()
                .then(|| query.link(host, "timeline", HostPageQuery::forget_place)),
            newer: newer.as_ref().map(on),
            older: older.as_ref().map(on),
            place: place(asked),
            is_whole: older.is_none() && asked.after.is_none(),
            is_filtered: !asked.kinds.is_empty() || query.has_place(),
        }
    }
}

fn chips(host: HostId, query: &HostPageQuery, asked: &Asked) -> Vec<Chip> {
    let kinds = KINDS
        .iter()
        .filter(|(kind, _)| asked.with_audit || *kind != "audit");
    let chip = |(kind, called): &(&'static str, &'static str)| {
        let is_on = asked.kinds.contains(kind);
        let href = query.link(host, "timeline", |query| {
            let mut kinds = asked.kinds.clone();
            if is_on {
                kinds.retain(|other| other != kind);
            } else {
                kinds.push(kind);
            }
            query.kinds = kinds.into_iter().map(ToOwned::to_owned).collect();
            query.cursor.clear();
        });
        Chip {
            called,
            href,
            is_on,
        }
    };
    kinds.map(chip).collect()
}

fn place(asked: &Asked) -> Option<String> {
    match (asked.after, asked.before, asked.around) {
        (Some(after), Some(before), _) if before - after == Duration::DAY => {
            Some(format!("The 24 h before {}", text(before)))
        }
        (Some(after), Some(before), _) => {
            Some(format!("From {} until {}", text(after), text(before)))
        }
        (Some(after), None, _) => Some(format!("From {} on", text(after))),
        (None, Some(before), _) => Some(format!("Before {}", text(before))),
        (None, None, Some(around)) => Some(format!("Around {}", text(around))),
        (None, None, None) => None,
    }
}

impl ItemView {
    /// `left`: what the bodies of the page may still weigh.
    pub fn of(host: HostId, item: Item, now: OffsetDateTime, left: &mut usize) -> Self {
        let lateness = item.received_at.map(|received_at| received_at - item.at);
        let late = lateness.filter(|late| *late >= LATE);
        let shape = match (item.kind, item.tone) {
            ("downtime", _) => " down",
            ("gap", _) => " gap",
            (_, "bad") => " bad",
            (_, "good") => " good",
            (_, "warn") => " warn",
            _ => "",
        };
        let (body, more) = body(host, &item, left);
        let moment = encoded(&text(item.at));
        let is_change = item.kind == "change";
        let change = item.change_id.map(|id| format!("/changes/{id}"));
        let title = item.change_title.as_deref().unwrap_or("a change");
        let during = change.clone().filter(|_| !is_change);
        Self {
            at: item.at,
            until: item.until,
            called: timeline::called(item.kind),
            title: line(&item.title, 160),
            detail: item.detail.map(|detail| line(&detail, 320)),
            by: item.by.map(|by| line(&by, 120)),
            class: format!("item {}{shape}", item.kind),
            late: late.map(|late| words::duration(late.whole_seconds())),
            body,
            more,
            badge: item.outcome.map(|outcome| (item.tone, line(&outcome, 40))),
            during: during.map(|href| (href, line(title, 120))),
            href: change.filter(|_| is_change),
            unattributed: item.unattributed,
            day_before: format!("/hosts/{host}/what-changed?before={moment}"),
            is_to_come: item.at > now,
            first_facts: 0,
        }
    }
}

/// The body, as far as the page has room for it, and where all of it is.
fn body(host: HostId, item: &Item, left: &mut usize) -> (Option<String>, Option<String>) {
    let whole = match item.kind {
        "fact" => format!("/hosts/{host}/facts?key={}", encoded(&item.what)),
        "event" | "state" | "conflict" | "certificate" => {
            format!("/api/v1/hosts/{host}/events?limit=500")
        }
        _ => return (None, None),
    };
    // Facts have a page, and the others are told in full where nothing is behind them.
    if item.kind == "fact" {
        return (None, Some(whole));
    }
    if item.is_cut {
        return (None, Some(whole));
    }
    if item.kind != "event" {
        return (None, None);
    }
    let Some(body) = item.body.as_ref().filter(|body| !body.is_null()) else {
        return (None, None);
    };
    let text = serde_json::to_string_pretty(body).unwrap_or_default();
    if text.len() <= 200 {
        return (None, None);
    }
    let is_long = text.chars().nth(BODY).is_some();
    let shown = block(&text, BODY);
    let weight = weight(&shown);
    if weight > *left {
        return (None, Some(whole));
    }
    *left -= weight;
    (Some(shown), is_long.then_some(whole))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    const AT: OffsetDateTime = datetime!(2026-01-02 12:00:00.5 UTC);

    fn item(body: serde_json::Value) -> Item {
        Item {
            id: "event:1".to_owned(),
            kind: "event",
            at: AT,
            until: None,
            received_at: Some(AT + Duration::hours(3)),
            title: "<b>\u{202e}".to_owned(),
            detail: None,
            by: None,
            tone: "bad",
            what: "odd".to_owned(),
            body: Some(body),
            is_cut: false,
            change_id: None,
            run_id: None,
            change_title: None,
            outcome: None,
            unattributed: false,
        }
    }

    fn shown(items: Vec<Item>) -> Vec<ItemView> {
        let found = Timeline {
            items,
            ..Timeline::default()
        };
        let (query, asked) = (HostPageQuery::default(), Asked::default());
        let host = HostId(uuid::Uuid::nil());
        TimelineView::of(host, &query, &asked, found, AT).items
    }

    #[test]
    fn an_item_links_to_the_day_before_it_and_says_how_late_it_came() {
        let view = shown(vec![item(json!(1))]).remove(0);
        assert!(
            view.day_before
                .ends_with("/what-changed?before=2026-01-02T12%3A00%3A00Z")
        );
        assert_eq!(view.late.as_deref(), Some("3 h"));
        assert_eq!(
            (view.title.as_str(), view.class.as_str()),
            ("<b>\u{202e}", "item event bad")
        );
    }

    #[test]
    fn bodies_never_outweigh_the_page() {
        let hostile = json!({"quotes": "\"".repeat(60_000)});
        let views = shown(vec![item(hostile); 50]);
        let bodies = views.iter().filter_map(|view| view.body.as_deref());
        let total: usize = bodies.map(weight).sum();
        assert!(total > 0 && total <= BODIES, "{total}");
        assert!(views.iter().all(|view| view.more.is_some()));
    }
}
