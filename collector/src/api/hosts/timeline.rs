//! `GET /api/v1/hosts/{id}/timeline`: everything that happened to a host, in one order.

use std::sync::Arc;

use axum::extract::{Extension, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use infratrack_shared::ids::HostId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{Json, Path, Query};
use crate::api::page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::timeline::{self, Asked, Item, KINDS, MOST, Place, Timeline};

/// Which items.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct TimelineQuery {
    /// Any of `state`, `event`, `change`, `package`, `gap`, `downtime`, `fact`, `command`, `task`, `certificate`, `conflict`
    /// and `audit`, with commas; all where it is not said.
    pub kinds: Option<String>,
    /// Before this time (RFC 3339).
    #[serde(with = "time::serde::rfc3339::option")]
    pub before: Option<OffsetDateTime>,
    /// At this time or later.
    #[serde(with = "time::serde::rfc3339::option")]
    pub after: Option<OffsetDateTime>,
    /// Those next to this time, on both sides of it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub around: Option<OffsetDateTime>,
    /// Items of an answer; 50 where it is not said.
    #[param(minimum = 1, maximum = 50)]
    pub limit: Option<i64>,
    /// `next_cursor` or `previous_cursor` of another answer.
    pub cursor: Option<String>,
}

/// Items of a host, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = HostTimeline)]
pub struct TimelinePage {
    pub items: Vec<Item>,
    /// Pass it as `cursor` for what is older; null where there is nothing.
    pub next_cursor: Option<String>,
    /// Likewise for what is newer.
    pub previous_cursor: Option<String>,
}

/// Lists everything that happened to the host, newest first: of each change, each run that touched it. Changes of packages
/// and facts name the change during which they happened, or are `unattributed`. Who changed what (`audit`) is there for those who may read
/// the audit log.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/timeline",
    tag = "hosts",
    params(("id" = Uuid, Path), TimelineQuery),
    responses((status = 200, body = TimelinePage)),
)]
pub async fn timeline(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Query(query): Query<TimelineQuery>,
) -> Result<Json<TimelinePage>, Problem> {
    let id = HostId(id);
    let with_audit = caller.may_call("GET", "/api/v1/audit");
    let asked = asked(&query, with_audit)?;
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let found = timeline::read(&mut connection, id, &asked, app.clock.now()).await?;
    let Timeline {
        items,
        older,
        newer,
    } = found;
    Ok(Json(TimelinePage {
        items,
        next_cursor: older.as_ref().map(cursor),
        previous_cursor: newer.as_ref().map(cursor),
    }))
}

/// What the parameters mean.
/// `with_audit`: whoever asks may read the audit log.
pub fn asked(query: &TimelineQuery, with_audit: bool) -> Result<Asked, Problem> {
    let limit = page::limit(query.limit)?;
    let limit = usize::try_from(limit).unwrap_or(MOST);
    if limit > MOST {
        return Err(Problem::parameter(
            "limit",
            format!("must be from 1 to {MOST}"),
        ));
    }
    let place: Option<(i128, String, bool)> = page::cursor(query.cursor.as_deref())?;
    let place = place.and_then(|(nanos, id, is_forward)| {
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
        Some(Place { at, id, is_forward })
    });
    Ok(Asked {
        kinds: kinds(query.kinds.as_deref())?,
        before: query.before,
        after: query.after,
        around: query.around,
        place,
        limit,
        with_audit,
    })
}

fn kinds(text: Option<&str>) -> Result<Vec<&'static str>, Problem> {
    let names = text.unwrap_or_default().split(',');
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            timeline::kind(name).ok_or_else(|| {
                let all = KINDS.map(|(name, _)| name).join(", ");
                Problem::parameter("kinds", format!("must be some of {all}"))
            })
        })
        .collect()
}

/// A place as a cursor.
pub fn cursor(place: &Place) -> String {
    let key = (place.at.unix_timestamp_nanos(), &place.id, place.is_forward);
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&key).unwrap_or_default())
}
