//! `POST /api/v1/hosts` and `PATCH /api/v1/hosts/{id}`: hosts without an agent, and what operators say of any host.
//!
//! An update says which version it is of, so that none overwrites what its author has not seen.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::etag;
use crate::api::hosts::rules::{self, HostPatch};
use crate::api::hosts::{self, HostDetail, detail, tagged};
use crate::api::input::{Json, Path};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::hosts::edit::{self, EditRow};
use crate::store::hosts::update_identity;

/// A host that has no agent, or none yet.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewHost {
    #[schema(required)]
    pub name: String,
    pub tags: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    /// Markdown.
    pub notes: Option<String>,
    pub addresses: Vec<String>,
    /// Also where a host at work has this name.
    pub allow_duplicate_name: bool,
}

/// Makes a host without an agent. 409 where a host at work has the name, unless that is allowed.
#[utoipa::path(
    post,
    path = "/api/v1/hosts",
    tag = "hosts",
    request_body = NewHost,
    responses((status = 201, body = HostDetail, headers(("ETag" = String), ("Location" = String)))),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewHost>,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let id = HostId::at(app.clock.unix_millis());
    let mut row = EditRow {
        host_id: id.0,
        name: String::new(),
        tags: Vec::new(),
        owner: None,
        environment: None,
        notes: None,
        addresses: Vec::new(),
        edited: Vec::new(),
        origin: "manual".to_owned(),
        version: 1,
        retired_at: None,
        merged_into: None,
        conflict_of: None,
    };
    let patch = HostPatch {
        name: Some(Some(new.name)),
        tags: (!new.tags.is_empty()).then_some(Some(new.tags)),
        owner: new.owner.map(Some),
        environment: new.environment.map(Some),
        notes: new.notes.map(Some),
        addresses: (!new.addresses.is_empty()).then_some(Some(new.addresses)),
    };
    patch.apply(&mut row)?;
    let mut transaction = app.pool.begin().await?;
    if !new.allow_duplicate_name {
        edit::lock_name(&mut transaction, &row.name).await?;
        if let Some(other) = edit::find_by_name(&mut transaction, &row.name).await? {
            let detail = format!(
                "host {other} has the name {:?}; allow_duplicate_name makes another one",
                row.name
            );
            return Err(Problem::conflict("name_taken", detail));
        }
    }
    edit::insert(&mut transaction, &row, now).await?;
    let change = Change {
        action: "host.create",
        subject_kind: "host",
        subject_id: id.to_string(),
        before: None,
        after: serde_json::to_value(&row).ok(),
    };
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    let detail = detail(&app, id).await?;
    let location = [(header::LOCATION, format!("/api/v1/hosts/{id}"))];
    let made = (StatusCode::CREATED, location, Json(&detail)).into_response();
    Ok(tagged(&detail, made))
}

/// Edits a host by a merge patch (RFC 7396) of the version that `If-Match` names.
#[utoipa::path(
    patch,
    path = "/api/v1/hosts/{id}",
    tag = "hosts",
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "The `ETag` of what is edited, or `*`")),
    request_body(content = HostPatch, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, body = HostDetail, headers(("ETag" = String))),
    ),
)]
pub async fn update(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(patch): Json<HostPatch>,
) -> Result<Response, Problem> {
    let (id, now) = (HostId(id), app.clock.now());
    let mut transaction = app.pool.begin().await?;
    let before = lock(&mut transaction, id).await?;
    etag::check(&headers, &hosts::etag(before.version))?;
    let mut after = before.clone();
    patch.apply(&mut after)?;
    if after != before {
        edit::update(&mut transaction, std::slice::from_ref(&after), now).await?;
        // What was given back is what the host says again.
        update_identity(&mut transaction, &[id.0]).await?;
        let (was, is) = rules::difference(&before, &after);
        let change = Change {
            action: "host.update",
            subject_kind: "host",
            subject_id: id.to_string(),
            before: Some(was),
            after: Some(is),
        };
        audit::record(&mut transaction, &caller.actor(), change, now).await?;
    }
    transaction.commit().await?;
    let detail = detail(&app, id).await?;
    Ok(tagged(&detail, Json(&detail)))
}

/// The host's row, locked, or 404.
pub(super) async fn lock(
    connection: &mut sqlx::PgConnection,
    id: HostId,
) -> Result<EditRow, Problem> {
    let rows = edit::lock(connection, &[id.0]).await?;
    rows.into_iter()
        .next()
        .ok_or_else(|| Problem::missing("host", id))
}
