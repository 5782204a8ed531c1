//! `/api/v1/enroll-tokens`: tokens that bring hosts in.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::IntoResponse;
use http::StatusCode;
use infratrack_shared::ids::HostId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::agents::enroll::{TokenOptions, create_token};
use crate::api::hosts::{self, rules};
use crate::api::idempotency::Secret;
use crate::api::input::{self, Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{Change, record};
use crate::caller::Caller;
use crate::store::enroll_tokens::{self, EnrollTokenRow, WaitingRow};

/// The longest a token may live.
const MAX_LIFETIME_S: i64 = 7 * 24 * 3600;
/// Characters of a pattern of hosts' names.
const PATTERN_CHARS: usize = 253;

/// What the token allows; everything has a default.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = NewEnrollToken)]
#[serde(deny_unknown_fields, default)]
pub struct NewToken {
    pub lifetime_s: Option<i64>,
    pub max_uses: Option<i32>,
    #[schema(value_type = Option<String>)]
    pub cidr: Option<IpNet>,
    pub hostname_pattern: Option<String>,
    pub tags: Vec<String>,
    /// Whoever uses the token becomes this host again.
    pub host_id: Option<Uuid>,
    pub approval_required: bool,
}

/// The token, and where to use it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CreatedEnrollToken)]
pub struct Created {
    pub id: String,
    pub token: String,
    pub enroll_endpoint: String,
}

/// Lists the tokens that still let someone in, newest first, at most 500.
#[utoipa::path(
    get,
    path = "/api/v1/enroll-tokens",
    tag = "enroll-tokens",
    responses((status = 200, body = Page<EnrollTokenRow>)),
)]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Page<EnrollTokenRow>>, Problem> {
    rows(&app).await.map(Json)
}

/// The tokens that still let someone in, for pages too.
pub async fn rows(app: &App) -> Result<Page<EnrollTokenRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let rows = enroll_tokens::list(&mut connection, None, app.clock.now()).await?;
    Ok(Page::whole(rows))
}

/// Hosts that wait to be let in, the longest first, at most 500.
#[utoipa::path(
    get,
    path = "/api/v1/enroll-tokens/waiting",
    tag = "enroll-tokens",
    responses((status = 200, body = Page<WaitingRow>)),
)]
pub async fn waiting(State(app): State<Arc<App>>) -> Result<Json<Page<WaitingRow>>, Problem> {
    waiting_rows(&app).await.map(Json)
}

/// Who waits, for pages too.
pub async fn waiting_rows(app: &App) -> Result<Page<WaitingRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let rows = enroll_tokens::list_waiting(&mut connection).await?;
    Ok(Page::whole(rows))
}

/// Deletes a token: it lets nobody in any more. Hosts that came in with it stay.
#[utoipa::path(
    delete,
    path = "/api/v1/enroll-tokens/{id}",
    tag = "enroll-tokens",
    params(("id" = String, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    remove(&app, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a token, for pages too.
pub async fn remove(app: &App, caller: &Caller, id: &str) -> Result<(), Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let rows = enroll_tokens::list(&mut transaction, Some(id), now).await?;
    let Some(row) = rows.into_iter().next() else {
        return Err(Problem::missing("enrollment token", id));
    };
    enroll_tokens::delete(&mut transaction, id).await?;
    let change = Change::new("enroll_token.delete", "enroll_token", id).before(json!(row));
    record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// Makes an enrollment token; its text is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/api/v1/enroll-tokens",
    tag = "enroll-tokens",
    request_body = NewToken,
    responses((status = 201, body = Created)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewToken>,
) -> Result<impl IntoResponse, Problem> {
    let made = make(&app, &caller, body).await?;
    Ok((StatusCode::CREATED, Extension(Secret), Json(made)))
}

/// Makes an enrollment token, for pages too.
pub async fn make(app: &App, caller: &Caller, body: NewToken) -> Result<Created, Problem> {
    let defaults = TokenOptions::default();
    let lifetime_s = body.lifetime_s.unwrap_or(defaults.lifetime.whole_seconds());
    if !(1..=MAX_LIFETIME_S).contains(&lifetime_s) {
        return Err(Problem::field(
            "/lifetime_s",
            format!("must be from 1 to {MAX_LIFETIME_S}"),
        ));
    }
    let max_uses = body.max_uses.unwrap_or(defaults.max_uses);
    if !(1..=500).contains(&max_uses) {
        return Err(Problem::field("/max_uses", "must be from 1 to 500"));
    }
    if let Some(host) = body.host_id {
        if max_uses != 1 {
            return Err(Problem::field(
                "/max_uses",
                "must be 1 for a token of one host",
            ));
        }
        hosts::find(app, HostId(host)).await?;
    }
    let pattern = body.hostname_pattern.as_deref();
    let pattern =
        pattern.map(|pattern| input::text("/hostname_pattern", pattern, 1..=PATTERN_CHARS));
    let options = TokenOptions {
        lifetime: Duration::seconds(lifetime_s),
        max_uses,
        cidr: body.cidr,
        hostname_pattern: pattern.transpose()?,
        tags: rules::tags("/tags", &body.tags)?,
        host: body.host_id.map(HostId),
        approval_required: body.approval_required,
    };
    let pin = app.ca.load().root_pin(app.clock.now()).map_err(|error| {
        tracing::error!(%error, "cannot make an enrollment token");
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the certificate authority can't sign",
        )
    })?;
    let token = create_token(&app.pool, pin, &options, &caller.actor(), app.clock.now())
        .await
        .map_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "cannot make an enrollment token"
            );
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the token could not be stored",
            )
        })?;
    Ok(Created {
        id: token.id(),
        token: token.reveal(),
        enroll_endpoint: app.config.enroll_endpoint(),
    })
}

/// How many hosts may come in now.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Approved {
    pub approved: u64,
}

/// Lets every host in that waits with this token.
#[utoipa::path(
    post,
    path = "/api/v1/enroll-tokens/{id}/approve",
    tag = "enroll-tokens",
    params(("id" = String, Path)),
    responses((status = 200, body = Approved)),
)]
pub async fn approve(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Approved>, Problem> {
    let_in(&app, &caller, &id).await.map(Json)
}

/// Lets every host in that waits with this token, for pages too.
pub async fn let_in(app: &App, caller: &Caller, id: &str) -> Result<Approved, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let approved = enroll_tokens::approve(&mut transaction, id, now).await?;
    let change = Change::new("enroll_token.approve", "enroll_token", id);
    let change = change.after(json!({ "approved": approved }));
    record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    tracing::info!(
        token = id,
        by = caller.name,
        approved,
        "enrollments approved"
    );
    Ok(Approved { approved })
}
