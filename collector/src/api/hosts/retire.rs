//! The end of hosts: retired and brought back, merged into another, deleted.
//!
//! A retired host's certificates are revoked, so that its agent is refused; brought back, it enrolls again with a token
//! made for it. A merged one stays readable under its id.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use serde_json::json;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::rules::{self, MOST_TAGS};
use crate::api::hosts::{HostDetail, detail, edit as edits};
use crate::api::input::{Json, Path};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::hosts::edit::{self, EditRow};
use crate::store::hosts::{erase, merge};
use crate::store::{
    agent_certs, change_links, expected_hosts, host_instances, host_search, volumes,
};

/// An agent that reported within this is at work.
const AT_WORK: Duration = Duration::minutes(10);
/// Events that are moved at once; with more, the transaction would take too long.
const MOST_EVENTS: i64 = 100_000;

/// Hides the host from lists and revokes its certificates.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/retire",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = HostDetail)),
)]
pub async fn retire(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Json<HostDetail>, Problem> {
    let (id, now) = (HostId(id), app.clock.now());
    let mut transaction = app.pool.begin().await?;
    let before = edits::lock(&mut transaction, id).await?;
    of_its_own(&before)?;
    if before.retired_at.is_none() {
        let mut after = before.clone();
        after.retired_at = Some(now);
        edit::update(&mut transaction, std::slice::from_ref(&after), now).await?;
        revoke(
            &mut transaction,
            &[id.0],
            &caller,
            "the host was retired",
            now,
        )
        .await?;
        record(
            &mut transaction,
            &caller,
            "host.retire",
            &before,
            &after,
            now,
        )
        .await?;
    }
    transaction.commit().await?;
    detail(&app, id).await.map(Json)
}

/// Shows the host again. Its agent enrolls with a token made for this host.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/unretire",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = HostDetail)),
)]
pub async fn unretire(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Json<HostDetail>, Problem> {
    let (id, now) = (HostId(id), app.clock.now());
    let mut transaction = app.pool.begin().await?;
    let before = edits::lock(&mut transaction, id).await?;
    of_its_own(&before)?;
    if let Some(other) = before.merged_into {
        let detail = format!("the host was merged into {other}, which has its events");
        return Err(Problem::conflict("merged", detail));
    }
    if before.retired_at.is_some() {
        let mut after = before.clone();
        after.retired_at = None;
        edit::update(&mut transaction, std::slice::from_ref(&after), now).await?;
        record(
            &mut transaction,
            &caller,
            "host.unretire",
            &before,
            &after,
            now,
        )
        .await?;
    }
    transaction.commit().await?;
    detail(&app, id).await.map(Json)
}

/// The host that stays.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    pub into: Uuid,
}

/// Moves events, tasks, gaps, refused records and the history of facts to another host, which gets the tags too, and
/// retires this one. Its heartbeats stay readable under its id.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/merge",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    request_body = Merge,
    responses((status = 200, body = HostDetail)),
)]
pub async fn merge(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Json(body): Json<Merge>,
) -> Result<Json<HostDetail>, Problem> {
    let (from, to, now) = (HostId(id), HostId(body.into), app.clock.now());
    if from == to {
        return Err(Problem::field("/into", "is the host itself"));
    }
    let mut both = [from.0, to.0];
    both.sort();
    let mut transaction = app.pool.begin().await?;
    merge::allow_time(&mut transaction).await?;
    // In the writers' order: what a host reports before what is said of it.
    host_instances::lock(&mut transaction, &both).await?;
    let rows = edit::lock(&mut transaction, &both).await?;
    let find = |id: HostId| rows.iter().find(|row| row.host_id == id.0).cloned();
    let source = find(from).ok_or_else(|| Problem::missing("host", from))?;
    let target = find(to).ok_or_else(|| Problem::missing("host", to))?;
    may_merge(&mut transaction, &source, &target, now).await?;
    let (retired, united) = unite(&source, &target, now)?;
    move_rows(&mut transaction, from, to).await?;
    edit::update(&mut transaction, &[retired.clone(), united.clone()], now).await?;
    revoke(
        &mut transaction,
        &[from.0],
        &caller,
        "the host was merged into another",
        now,
    )
    .await?;
    record(
        &mut transaction,
        &caller,
        "host.merge",
        &source,
        &retired,
        now,
    )
    .await?;
    record(
        &mut transaction,
        &caller,
        "host.update",
        &target,
        &united,
        now,
    )
    .await?;
    transaction.commit().await?;
    tracing::info!(%from, %to, by = caller.name, "hosts merged");
    detail(&app, to).await.map(Json)
}

async fn may_merge(
    connection: &mut PgConnection,
    source: &EditRow,
    target: &EditRow,
    now: OffsetDateTime,
) -> Result<(), Problem> {
    of_its_own(source)?;
    of_its_own(target)?;
    if let Some(other) = source.merged_into {
        let detail = format!("the host was merged into {other} already");
        return Err(Problem::conflict("merged", detail));
    }
    if target.retired_at.is_some() {
        let detail = "the host that is to stay is retired";
        return Err(Problem::conflict("retired", detail));
    }
    let from = HostId(source.host_id);
    let reporting = merge::find_reporting(connection, from).await?;
    if reporting.is_some_and(|reporting| reporting.open_conflict_count > 0) {
        let detail = "two machines report as this host; split or drop the one first";
        return Err(Problem::conflict("identity_conflict", detail));
    }
    let last_seen_at = reporting.and_then(|reporting| reporting.last_seen_at);
    if source.retired_at.is_none() && last_seen_at.is_some_and(|at| at > now - AT_WORK) {
        let detail = "the agent of the host that is to go reports; merge the other way round, or retire it first";
        return Err(Problem::conflict("agent_reports", detail));
    }
    if merge::count_events(connection, from, MOST_EVENTS + 1).await? > MOST_EVENTS {
        let detail =
            format!("the host has over {MOST_EVENTS} events, more than can be moved at once");
        return Err(Problem::conflict("too_many_events", detail));
    }
    Ok(())
}

/// The row that goes and the row that stays, as they are to be.
pub(crate) fn unite(
    source: &EditRow,
    target: &EditRow,
    now: OffsetDateTime,
) -> Result<(EditRow, EditRow), Problem> {
    let (mut retired, mut united) = (source.clone(), target.clone());
    retired.retired_at = Some(source.retired_at.unwrap_or(now));
    retired.merged_into = Some(target.host_id);
    united.tags.extend(source.tags.iter().cloned());
    united.tags.sort();
    united.tags.dedup();
    if united.tags.len() > MOST_TAGS {
        let detail = format!("together they have over {MOST_TAGS} tags");
        return Err(Problem::conflict("too_many_tags", detail));
    }
    for (field, mine, theirs) in [
        ("owner", &mut united.owner, &source.owner),
        ("environment", &mut united.environment, &source.environment),
        ("notes", &mut united.notes, &source.notes),
    ] {
        if mine.is_none() && theirs.is_some() {
            mine.clone_from(theirs);
            if source.edited.iter().any(|edited| edited == field) {
                united.edited.push(field.to_owned());
            }
        }
    }
    united.edited.sort();
    united.edited.dedup();
    Ok((retired, united))
}

async fn move_rows(connection: &mut PgConnection, from: HostId, to: HostId) -> sqlx::Result<()> {
    merge::events(connection, from, to).await?;
    merge::gaps(connection, from, to).await?;
    merge::dead_letters(connection, from, to).await?;
    merge::tasks(connection, from, to).await?;
    merge::fact_changes(connection, from, to).await?;
    let reporting = merge::find_reporting(connection, to).await?;
    // What a living agent does not say is not so.
    if reporting.is_some_and(|reporting| reporting.last_seen_at.is_none()) {
        merge::facts(connection, from, to).await?;
        host_search::update_fact_words(connection, &[to.0]).await?;
    }
    expected_hosts::update_merged(connection, from.0, to.0).await?;
    change_links::update_merged(connection, from.0, to.0).await?;
    merge::update_merged(connection, from, to).await.map(drop)
}

/// Deletes everything the host reported and what was said of it. The audit log stays, and what
/// was issued to the host stays refused.
#[utoipa::path(
    delete,
    path = "/api/v1/hosts/{id}",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let (id, now) = (HostId(id), app.clock.now());
    let mut transaction = app.pool.begin().await?;
    merge::allow_time(&mut transaction).await?;
    let all = erase::list_with_clones(&mut transaction, id).await?;
    host_instances::lock(&mut transaction, &all).await?;
    let rows = edit::lock(&mut transaction, &all).await?;
    let row = rows.iter().find(|row| row.host_id == id.0);
    let row = row.ok_or_else(|| Problem::missing("host", id))?;
    of_its_own(row)?;
    let reporting = merge::find_reporting(&mut transaction, id).await?;
    let last_seen_at = reporting.and_then(|reporting| reporting.last_seen_at);
    if row.retired_at.is_none() && last_seen_at.is_some_and(|at| at > now - AT_WORK) {
        let detail = "its agent reported in the last 10 minutes; retire the host first";
        return Err(Problem::conflict("agent_reports", detail));
    }
    if volumes::is_any_left(&mut transaction, &all).await? {
        let detail = "it has volumes or snapshots; delete its volumes and wait until their snapshots are gone";
        return Err(Problem::conflict("volumes_left", detail));
    }
    revoke(&mut transaction, &all, &caller, "the host was deleted", now).await?;
    let rows = erase::delete_rows(&mut transaction, &all).await?;
    erase::update_deleted(&mut transaction, &all, now).await?;
    let change = Change {
        action: "host.delete",
        subject_kind: "host",
        subject_id: id.to_string(),
        before: serde_json::to_value(row).ok(),
        after: Some(json!({"deleted_rows": rows})),
    };
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    tracing::info!(host = %id, by = caller.name, rows, "a host was deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses what is a clone's hidden host: its conflict decides of it.
fn of_its_own(row: &EditRow) -> Result<(), Problem> {
    match row.conflict_of {
        None => Ok(()),
        Some(other) => {
            let detail = format!("it was set apart from host {other}; split or drop it there");
            Err(Problem::conflict("identity_conflict", detail))
        }
    }
}

/// Revokes every certificate of `hosts` and tells the collectors.
pub(super) async fn revoke(
    connection: &mut PgConnection,
    hosts: &[Uuid],
    caller: &Caller,
    reason: &str,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    agent_certs::revoke_all(connection, hosts, &caller.name, reason, now).await?;
    agent_certs::notify_revoked(connection).await
}

async fn record(
    connection: &mut PgConnection,
    caller: &Caller,
    action: &'static str,
    before: &EditRow,
    after: &EditRow,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let (was, is) = rules::difference(before, after);
    let change = Change {
        action,
        subject_kind: "host",
        subject_id: before.host_id.to_string(),
        before: Some(was),
        after: Some(is),
    };
    audit::record(connection, &caller.actor(), change, now).await
}
