//! `POST /api/v1/enroll-tokens`: a token that brings a host in, shown once.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use http::StatusCode;
use infratrack_shared::ids::HostId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::Duration;
use uuid::Uuid;

use crate::agents::enroll::{TokenOptions, create_token};
use crate::api::auth::Caller;
use crate::api::hosts;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::enroll_tokens;

/// The longest a token may live.
const MAX_LIFETIME_S: i64 = 7 * 24 * 3600;

/// What the token allows; everything has a default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewToken {
    pub lifetime_s: Option<i64>,
    pub max_uses: Option<i32>,
    pub cidr: Option<IpNet>,
    pub hostname_pattern: Option<String>,
    pub tags: Vec<String>,
    /// Whoever uses the token becomes this host again.
    pub host_id: Option<Uuid>,
    pub approval_required: bool,
}

/// The token, and where to use it.
#[derive(Clone, Debug, Serialize)]
pub struct Created {
    pub id: String,
    pub token: String,
    pub enroll_endpoint: String,
}

/// Makes one.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let Json(body) = body?;
    let defaults = TokenOptions::default();
    let lifetime_s = body.lifetime_s.unwrap_or(defaults.lifetime.whole_seconds());
    if !(1..=MAX_LIFETIME_S).contains(&lifetime_s) {
        return Err(Problem::invalid(format!(
            "lifetime_s must be from 1 to {MAX_LIFETIME_S}"
        )));
    }
    let max_uses = body.max_uses.unwrap_or(defaults.max_uses);
    if !(1..=500).contains(&max_uses) {
        return Err(Problem::invalid("max_uses must be from 1 to 500"));
    }
    if let Some(host) = body.host_id {
        if max_uses != 1 {
            return Err(Problem::invalid("a token for one host has one use"));
        }
        hosts::find(&app, HostId(host)).await?;
    }
    let options = TokenOptions {
        lifetime: Duration::seconds(lifetime_s),
        max_uses,
        cidr: body.cidr,
        hostname_pattern: body.hostname_pattern,
        tags: body.tags,
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
    let token = create_token(&app.pool, pin, &options, &caller.name, app.clock.now())
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
    let created = Created {
        id: token.id(),
        token: token.reveal(),
        enroll_endpoint: app.config.enroll_endpoint(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// How many hosts may come in now.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Approved {
    pub approved: u64,
}

/// `POST /api/v1/enroll-tokens/{id}/approve`: lets every host in that waits with this token.
pub async fn approve(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Approved>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let approved = enroll_tokens::approve(&mut connection, &id, app.clock.now()).await?;
    tracing::info!(
        token = id,
        by = caller.name,
        approved,
        "enrollments approved"
    );
    Ok(Json(Approved { approved }))
}
