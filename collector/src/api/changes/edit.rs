//! Changes by hand: those that no tool tells are written down, changed and deleted; those that runs made get a note, and
//! hosts that linking did not find.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use infratrack_shared::ids::ChangeId;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::api::changes::rules::{ChangePatch, NewChange};
use crate::api::changes::{self, find};
use crate::api::etag;
use crate::api::input::{Json, Path};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::changes::{self as store, ChangeRow};
use crate::store::{change_edits, change_hosts};

/// Writes down a change that no tool tells.
#[utoipa::path(
    post,
    path = "/api/v1/changes",
    tag = "changes",
    request_body = NewChange,
    responses((status = 201, body = ChangeRow, headers(("ETag" = String), ("Location" = String)))),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewChange>,
) -> Result<Response, Problem> {
    let made = make(&app, &caller, new).await?;
    let headers = [
        (
            header::LOCATION,
            format!("/api/v1/changes/{}", made.change_id),
        ),
        (header::ETAG, changes::etag(made.version)),
    ];
    Ok((StatusCode::CREATED, headers, Json(made)).into_response())
}

/// As the API and the page write it down.
pub async fn make(app: &App, caller: &Caller, new: NewChange) -> Result<ChangeRow, Problem> {
    let now = app.clock.now();
    let mut row = ChangeRow {
        change_id: ChangeId::at(app.clock.unix_millis()).0,
        origin: "manual".to_owned(),
        title: String::new(),
        note: None,
        started_at: now,
        ended_at: new.started_at.unwrap_or(now),
        outcome: "succeeded".to_owned(),
        tools: vec!["manual".to_owned()],
        repository: None,
        commit_id: None,
        branch: None,
        pull_request: None,
        actor: Some(caller.name.clone()),
        environment: None,
        workspace: None,
        run_url: None,
        add_count: 0,
        change_count: 0,
        destroy_count: 0,
        host_count: 0,
        version: 1,
    };
    let patch = new.into_patch();
    patch.apply(&mut row)?;
    let mut transaction = app.pool.begin().await?;
    change_edits::insert(&mut transaction, &row, now).await?;
    let hosts = link(&mut transaction, &row, patch.hosts.as_deref()).await?;
    let change = Change::new("change.create", "change", row.change_id);
    let change = change.after(document(&row, &hosts));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    let made = find(&mut transaction, row.change_id).await?;
    transaction.commit().await?;
    Ok(made)
}

/// Edits a change by a merge patch (RFC 7396) of the version that `If-Match` names. Of a change that runs made only `note`
/// and `hosts` can be set; anything else is 409.
#[utoipa::path(
    patch,
    path = "/api/v1/changes/{id}",
    tag = "changes",
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "The `ETag` of what is edited, or `*`")),
    request_body(content = ChangePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = ChangeRow, headers(("ETag" = String)))),
)]
pub async fn update(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(patch): Json<ChangePatch>,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let before = lock(&mut transaction, id).await?;
    let mut after = before.clone();
    patch.apply(&mut after)?;
    etag::check(&headers, &changes::etag(before.version))?;
    let were = change_hosts::list_manual(&mut transaction, id).await?;
    let are = link(&mut transaction, &after, patch.hosts.as_deref()).await?;
    let (was, is) = difference(document(&before, &were), document(&after, &are));
    if was != is {
        change_edits::update(&mut transaction, &after, now).await?;
        let change = Change::new("change.update", "change", id);
        let change = change.before(was).after(is);
        audit::record(&mut transaction, &caller.actor(), change, now).await?;
    }
    let row = find(&mut transaction, id).await?;
    transaction.commit().await?;
    let tag = [(header::ETAG, changes::etag(row.version))];
    Ok((tag, Json(row)).into_response())
}

/// Deletes a change that somebody wrote down; the audit log keeps what it said. One that runs made is 409: it goes with them.
#[utoipa::path(
    delete,
    path = "/api/v1/changes/{id}",
    tag = "changes",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let before = lock(&mut transaction, id).await?;
    if before.origin != "manual" {
        let detail = "it is made of runs; only changes that somebody wrote down can be deleted";
        return Err(Problem::conflict("captured", detail));
    }
    let hosts = change_hosts::list_manual(&mut transaction, id).await?;
    store::delete(&mut transaction, id).await?;
    let change = Change::new("change.delete", "change", id);
    let change = change.before(document(&before, &hosts));
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<ChangeRow, Problem> {
    let found = change_edits::find_for_update(connection, id).await?;
    found.ok_or_else(|| Problem::missing("change", id))
}

/// Links these hosts by hand and no others; where nothing is said of hosts, those that are linked. Answers which those are.
async fn link(
    connection: &mut PgConnection,
    change: &ChangeRow,
    wanted: Option<&[Uuid]>,
) -> Result<Vec<Uuid>, Problem> {
    let id = change.change_id;
    let hosts = match wanted {
        Some(wanted) => {
            let there = change_hosts::lock_hosts(connection, wanted).await?;
            if let Some(index) = wanted.iter().position(|host| !there.contains(host)) {
                let pointer = format!("/hosts/{index}");
                return Err(Problem::field(pointer, "is not a host's id"));
            }
            change_hosts::delete_manual(connection, id, &there).await?;
            there
        }
        None => change_hosts::list_manual(connection, id).await?,
    };
    let times = (change.started_at, change.ended_at);
    change_hosts::upsert_manual(connection, id, &hosts, times).await?;
    change_hosts::recount(connection, id).await?;
    Ok(hosts)
}

/// What people say of a change, for the audit log.
fn document(change: &ChangeRow, hosts: &[Uuid]) -> Value {
    let mut document = json!(change);
    if let Value::Object(members) = &mut document {
        for name in ["version", "host_count"] {
            members.remove(name);
        }
        members.insert("hosts".to_owned(), json!(hosts));
    }
    document
}

/// Of both what differs.
fn difference(before: Value, after: Value) -> (Value, Value) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return (Value::Null, Value::Null);
    };
    let differs = |name: &String| before.get(name) != after.get(name);
    let of = |document: &Map<String, Value>| {
        let members = document.iter().filter(|(name, _)| differs(name));
        let members = members.map(|(name, value)| (name.clone(), value.clone()));
        Value::Object(members.collect())
    };
    (of(&before), of(&after))
}
