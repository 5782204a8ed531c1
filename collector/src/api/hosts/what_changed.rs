//! `GET /api/v1/hosts/{id}/what-changed`: what changed on a host in the hours before a moment, the likely causes first.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{Json, Path, Query};
use crate::api::problem::Problem;
use crate::app::App;
use crate::timeline::what_changed::{self, WhatChanged};

/// Hours that are looked at where nobody said how many, and that may be.
pub const DEFAULT_HOURS: i64 = 24;
pub const HOURS: RangeInclusive<i64> = 1..=168;

/// Before when.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct WhatChangedQuery {
    /// The moment (RFC 3339); the present where it is not said.
    #[serde(with = "time::serde::rfc3339::option")]
    pub before: Option<OffsetDateTime>,
    /// How many hours before it; 24 where it is not said.
    #[param(minimum = 1, maximum = 168)]
    pub hours: Option<i64>,
}

/// Ranks what changed on the host in the hours before a moment: changes that touched it, packages, facts and reboots
/// together, the likely causes first. What changed during a run stands below it. `score` is points by `gravity`, 8 more
/// where it is unattributed, halved for every 12 hours that lie between it and the moment.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/what-changed",
    tag = "hosts",
    params(("id" = Uuid, Path), WhatChangedQuery),
    responses((status = 200, body = WhatChanged)),
)]
pub async fn what_changed(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<WhatChangedQuery>,
) -> Result<Json<WhatChanged>, Problem> {
    let id = HostId(id);
    find(&app, id).await?;
    read(&app, id, &query).await.map(Json)
}

/// What changed on a host that is there.
pub async fn read(
    app: &App,
    host: HostId,
    query: &WhatChangedQuery,
) -> Result<WhatChanged, Problem> {
    let hours = query.hours.unwrap_or(DEFAULT_HOURS);
    if !HOURS.contains(&hours) {
        let (least, most) = HOURS.into_inner();
        let detail = format!("must be from {least} to {most}");
        return Err(Problem::parameter("hours", detail));
    }
    let now = app.clock.now();
    let before = query.before.unwrap_or(now);
    let after = before.checked_sub(Duration::hours(hours));
    let after = after.ok_or_else(|| Problem::parameter("before", "is too long ago"))?;
    let mut connection = app.pool.acquire().await?;
    Ok(what_changed::read(&mut connection, host, (after, before), now).await?)
}
