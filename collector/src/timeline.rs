//! A host's timeline: everything that happened to it, of every kind, in one order, newest first.
//!
//! Each source is read by one bounded statement ([`crate::store::timeline`]) and what they tell is merged here. The
//! API and the Host page show it.

pub mod attribution;
mod backups;
mod changes;
pub mod diff;
mod packages;
pub mod rank;
pub mod what_changed;
pub mod words;

use std::cmp::Ordering;

use infratrack_shared::ids::HostId;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::timeline::sources::{self, ALL};
use crate::store::timeline::{self as store, Ask, Source, Whats};

/// Items of an answer at most.
pub const MOST: usize = 50;

/// What kinds of things happen, with what they are called.
pub const KINDS: [(&str, &str); 14] = [
    ("state", "Online, offline"),
    ("event", "Events"),
    ("change", "Changes"),
    ("package", "Packages"),
    ("backup", "Backups"),
    ("drill", "Restore drills"),
    ("gap", "Lost records"),
    ("downtime", "Collector down"),
    ("fact", "Facts"),
    ("command", "Commands"),
    ("task", "Tasks"),
    ("certificate", "Certificates"),
    ("conflict", "Clones"),
    ("audit", "Changes by people"),
];

/// Which kinds the records of agents and of the collector itself are of; all others are `event`.
const EVENTS: [(&str, &str); 9] = [
    ("host_online", "state"),
    ("host_late", "state"),
    ("host_offline", "state"),
    ("host_never", "state"),
    ("identity_conflict", "conflict"),
    ("identity_split", "conflict"),
    ("command_result", "command"),
    ("certificate_renewed", "certificate"),
    ("package_transaction", "package"),
];

/// One thing that happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TimelineItem)]
pub struct Item {
    /// With `at` its place in the order.
    pub id: String,
    /// `state | event | change | package | backup | drill | gap | downtime | fact | command | task | certificate | conflict | audit`.
    pub kind: &'static str,
    /// When it happened, as far as can be told; a gap's: when it was told of.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// Until when, where it lasted.
    #[serde(with = "rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// When the collector learned of it, where a record says when it happened.
    #[serde(with = "rfc3339::option")]
    pub received_at: Option<OffsetDateTime>,
    /// What happened, in a few words.
    pub title: String,
    /// What else there is to say, in one line.
    pub detail: Option<String>,
    /// Who did it, where somebody did.
    pub by: Option<String>,
    /// `good | warn | bad | neutral`.
    pub tone: &'static str,
    /// The event's kind, the fact's key, the command's action, the state of a backup's run or of a drill; of a change, the tool and what it did: `terraform plan`,
    /// `terraform apply`, `terraform state`, `ansible play`, or `manual`.
    pub what: String,
    /// As it was reported; null where there is nothing more, or it has over 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub body: Option<Value>,
    /// The body was left out for its size.
    pub is_cut: bool,
    /// The change that it is, or that a change of packages or facts happened during.
    pub change_id: Option<Uuid>,
    /// The change's run; null where somebody wrote the change down.
    pub run_id: Option<Uuid>,
    pub change_title: Option<String>,
    /// Of a change, how its run ended: `planned | running | succeeded | failed | interrupted | unknown`.
    pub outcome: Option<String>,
    /// Packages or facts changed, and nothing is known that explains it: no apply, no play and nothing that somebody wrote
    /// down touched the host from 15 minutes before to 5 minutes after, and no tool of the host's own says that it did it.
    pub unattributed: bool,
}

/// A place in the order, and which way from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: OffsetDateTime,
    pub id: String,
    /// Towards what is newer.
    pub is_forward: bool,
}

/// Which items.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Of these kinds; of all where it is empty.
    pub kinds: Vec<&'static str>,
    /// Before this time.
    pub before: Option<OffsetDateTime>,
    /// At this time or later.
    pub after: Option<OffsetDateTime>,
    /// Half of them before this time, half from it on.
    pub around: Option<OffsetDateTime>,
    /// Where the last answer ended.
    pub place: Option<Place>,
    pub limit: usize,
    /// Whoever asks may read the audit log.
    pub with_audit: bool,
}

/// Items, newest first, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub items: Vec<Item>,
    pub older: Option<Place>,
    pub newer: Option<Place>,
}

/// The kind of that name.
pub fn kind(name: &str) -> Option<&'static str> {
    let found = KINDS.iter().find(|(kind, _)| *kind == name);
    found.map(|(kind, _)| *kind)
}

/// What a kind is called.
pub fn called(kind: &str) -> &'static str {
    let found = KINDS.iter().find(|(name, _)| *name == kind);
    found.map_or("Other", |(_, called)| called)
}

/// A host's items, and whose doing they were.
pub async fn read(
    connection: &mut PgConnection,
    host: HostId,
    asked: &Asked,
    now: OffsetDateTime,
) -> sqlx::Result<Timeline> {
    let mut found = page(connection, host, asked, now).await?;
    attribution::attribute(connection, host, &mut found.items).await?;
    Ok(found)
}

async fn page(
    connection: &mut PgConnection,
    host: HostId,
    asked: &Asked,
    now: OffsetDateTime,
) -> sqlx::Result<Timeline> {
    let most = asked.limit;
    let key = |place: &Place| (place.at, place.id.clone());
    let Some(middle) = asked.around.filter(|_| asked.place.is_none()) else {
        let is_forward = asked.place.as_ref().is_some_and(|place| place.is_forward);
        let from = asked.place.as_ref().map(key);
        let run = merged(connection, host, asked, from, is_forward, most, now).await?;
        let is_further = asked.place.is_some() || asked.before.is_some();
        return Ok(if is_forward {
            timeline(
                run,
                Run {
                    is_more: true,
                    ..Run::default()
                },
            )
        } else {
            timeline(
                Run {
                    is_more: is_further,
                    ..Run::default()
                },
                run,
            )
        });
    };
    let from = Some((middle, String::new()));
    let newer = merged(connection, host, asked, from.clone(), true, most / 2, now).await?;
    let rest = most - newer.items.len();
    let older = merged(connection, host, asked, from, false, rest, now).await?;
    Ok(timeline(newer, older))
}

/// Items in the order in which they were read, and whether there are more that way.
#[derive(Debug, Default)]
struct Run {
    items: Vec<Item>,
    is_more: bool,
}

/// `newer` from old to new, `older` from new to old.
fn timeline(newer: Run, older: Run) -> Timeline {
    let (more_newer, more_older) = (newer.is_more, older.is_more);
    let items: Vec<_> = newer.items.into_iter().rev().chain(older.items).collect();
    let place = |item: &Item, is_forward| Place {
        at: item.at,
        id: item.id.clone(),
        is_forward,
    };
    Timeline {
        newer: items
            .first()
            .filter(|_| more_newer)
            .map(|item| place(item, true)),
        older: items
            .last()
            .filter(|_| more_older)
            .map(|item| place(item, false)),
        items,
    }
}

/// The first of what all sources tell from a place on.
async fn merged(
    connection: &mut PgConnection,
    host: HostId,
    asked: &Asked,
    from: Option<(OffsetDateTime, String)>,
    is_forward: bool,
    most: usize,
    now: OffsetDateTime,
) -> sqlx::Result<Run> {
    let mut items = Vec::new();
    for source in ALL {
        let Some(whats) = wanted(source, asked) else {
            continue;
        };
        let ask = Ask {
            host,
            from: from.clone(),
            is_forward,
            after: asked.after,
            before: asked.before,
            whats,
            limit: i64::try_from(most + 1).unwrap_or(i64::MAX),
        };
        let rows = store::list(connection, source, &ask).await?;
        items.extend(rows.into_iter().map(|row| words::item(source, row, now)));
    }
    items.sort_by(|a, b| if is_forward { order(a, b) } else { order(b, a) });
    let is_more = items.len() > most;
    items.truncate(most);
    Ok(Run { items, is_more })
}

fn order(a: &Item, b: &Item) -> Ordering {
    (a.at, &a.id).cmp(&(b.at, &b.id))
}

/// Whether to read a source, and which of its events.
#[expect(clippy::option_option, reason = "not at all, all of it, or some of it")]
fn wanted(source: &Source, asked: &Asked) -> Option<Option<Whats>> {
    if source.name == sources::AUDIT.name && !asked.with_audit {
        return None;
    }
    let is_wanted = |kind: &&str| asked.kinds.is_empty() || asked.kinds.contains(kind);
    if !source.kinds.iter().any(is_wanted) {
        return None;
    }
    if source.name != sources::EVENTS.name || source.kinds.iter().all(is_wanted) {
        return Some(None);
    }
    let with_rest = asked.kinds.contains(&"event");
    let named = EVENTS.iter();
    let named = named.filter(|(_, kind)| asked.kinds.contains(kind) != with_rest);
    let named = named.map(|(what, _)| *what).collect();
    Some(Some(if with_rest {
        Whats::NoneOf(named)
    } else {
        Whats::OneOf(named)
    }))
}

/// The kind of an event.
fn of_event(what: &str) -> &'static str {
    let found = EVENTS.iter().find(|(name, _)| *name == what);
    found.map_or("event", |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::option_option, reason = "as `wanted` answers")]
    fn whats(kinds: &[&'static str]) -> Option<Option<Whats>> {
        let asked = Asked {
            kinds: kinds.to_vec(),
            ..Asked::default()
        };
        wanted(&sources::EVENTS, &asked)
    }

    #[test]
    fn a_kind_that_is_one_of_many_in_a_table_is_asked_for_alone() {
        assert_eq!(whats(&[]), Some(None));
        assert_eq!(whats(&["task"]), None);
        let conflicts = vec!["identity_conflict", "identity_split"];
        assert_eq!(
            whats(&["conflict", "task"]),
            Some(Some(Whats::OneOf(conflicts)))
        );
        let Some(Some(Whats::NoneOf(left_out))) = whats(&["event", "state"]) else {
            panic!("the rest has to be asked for by what it is not");
        };
        assert!(left_out.contains(&"command_result") && !left_out.contains(&"host_late"));
        assert_eq!(
            whats(&[
                "state",
                "event",
                "package",
                "conflict",
                "command",
                "certificate"
            ]),
            Some(None)
        );
    }

    #[test]
    fn the_audit_log_is_for_those_who_may_read_it() {
        let mut asked = Asked::default();
        assert_eq!(wanted(&sources::AUDIT, &asked), None);
        asked.with_audit = true;
        assert_eq!(wanted(&sources::AUDIT, &asked), Some(None));
    }

    #[test]
    fn every_kind_of_a_source_has_a_name() {
        for source in ALL {
            for name in source.kinds {
                assert!(kind(name).is_some(), "{name} of {}", source.name);
            }
        }
    }
}
