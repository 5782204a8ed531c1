//! What tools and pipelines post: `/ingest`. Documents are read outside of the tasks that answer, some at a time.

pub mod ansible;
pub mod body;
pub mod terraform;

use http::HeaderMap;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::api::problem::Problem;
use crate::changes::claims::Claims;
use crate::changes::correlate::{self, KeyKind};
use crate::store::changes;

/// Documents that are read at once; more wait for their turn.
pub const AT_ONCE: usize = 2;
/// A run's own time is believed where it is not older, since what was spooled may come late, nor newer by more than a
/// wrong clock.
const OLDEST: Duration = Duration::days(30);
const NEWEST: Duration = Duration::minutes(5);

/// What the headers claim of a run.
fn claims(headers: &HeaderMap) -> Result<Claims, Problem> {
    let find = |name: &str| {
        let value = match name {
            "traceparent" => headers.get(name),
            _ => headers.get(format!("infratrack-{name}")),
        };
        value.map(|value| value.to_str().unwrap_or("\u{1}"))
    };
    Claims::read(find).map_err(|bad| header(bad.name, bad.what))
}

/// 400 of a header.
fn header(name: &str, detail: impl std::fmt::Display) -> Problem {
    match name {
        "traceparent" => Problem::parameter(name, detail),
        _ => Problem::parameter(format!("Infratrack-{name}"), detail),
    }
}

/// When something happened: as it is said, or else now.
fn believed(at: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    if (now - OLDEST..=now + NEWEST).contains(&at) {
        at
    } else {
        now
    }
}

/// The change that a run with these keys belongs to, or a new one of this id.
async fn join(
    connection: &mut PgConnection,
    keys: &[correlate::Key],
    new_id: Uuid,
    now: OffsetDateTime,
) -> Result<Uuid, Problem> {
    let mut sorted: Vec<_> = keys.iter().collect();
    sorted.sort();
    for key in sorted {
        changes::lock_key(connection, key.kind.name(), &key.text).await?;
    }
    let explicit = keys.iter().find(|key| key.kind == KeyKind::Explicit);
    let explicit = explicit.map(|key| key.text.as_str());
    let mut found = None;
    for key in keys {
        let since = now - key.kind.joins_within();
        let named = (key.kind.name(), key.text.as_str());
        found = changes::find_by_key(connection, named, since, explicit).await?;
        if found.is_some() {
            break;
        }
    }
    let change_id = found.unwrap_or(new_id);
    if found.is_none() {
        changes::insert(connection, change_id, now).await?;
    }
    let pairs: Vec<_> = keys
        .iter()
        .map(|key| (key.kind.name().to_owned(), key.text.clone()))
        .collect();
    changes::upsert_keys(connection, change_id, &pairs, now).await?;
    Ok(change_id)
}
