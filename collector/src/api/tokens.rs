//! `/api/v1/tokens`: tokens of programs.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::IntoResponse;
use http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::Duration;
use utoipa::ToSchema;

use crate::api::idempotency::Secret;
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page, PageQuery};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::changes::claims::MAX_CHARS;
use crate::login::token::{self, LIFETIME, MAX_LIFETIME};
use crate::roles::{Role, Scope};
use crate::store::api_tokens::{self, ApiTokenRow};

/// What a token is called at most.
const NAME_CHARS: usize = 128;

/// A token to be made: a role, scopes, or both.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiToken)]
pub struct NewToken {
    #[schema(min_length = 1, max_length = 128)]
    pub name: String,
    /// `viewer | operator | lead | admin`.
    pub role: Option<String>,
    /// Of `backup` (a viewer that starts backups and drills) and `ingest` (posts to `/ingest`, nothing else).
    #[serde(default)]
    pub scopes: Vec<String>,
    /// From where it is taken; anywhere where it is not said.
    #[schema(value_type = Option<String>)]
    pub cidr: Option<IpNet>,
    /// The repository whose runs it may post to `/ingest`, as `owner/name`; needs the scope `ingest`.
    #[schema(max_length = 512)]
    pub repository: Option<String>,
    /// 90 days where it is not said; a year at most.
    #[schema(minimum = 60, maximum = 31_536_000)]
    pub lifetime_s: Option<i64>,
}

/// The token, shown once.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CreatedApiToken)]
pub struct Created {
    pub token: String,
    #[serde(flatten)]
    pub row: ApiTokenRow,
}

/// Lists tokens, newest first, without their secrets.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    params(PageQuery),
    responses((status = 200, body = Page<ApiTokenRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ApiTokenRow>>, Problem> {
    rows(&app, &query).await.map(Json)
}

/// A page of tokens, for pages too.
pub async fn rows(app: &App, query: &PageQuery) -> Result<Page<ApiTokenRow>, Problem> {
    let limit = page::limit(query.limit)?;
    let before = page::by_time(page::cursor(query.cursor.as_deref())?);
    let mut connection = app.pool.acquire().await?;
    let rows = api_tokens::list(&mut connection, None, before, limit).await?;
    let total = api_tokens::count(&mut connection).await?;
    let page = page::page(rows, total, limit, |row| {
        (row.created_at.unix_timestamp_nanos(), row.token_id.clone())
    });
    Ok(page.0)
}

/// Makes a token; its text is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    request_body = NewToken,
    responses((status = 201, body = Created)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewToken>,
) -> Result<impl IntoResponse, Problem> {
    let made = make(&app, &caller, &body).await?;
    Ok((StatusCode::CREATED, Extension(Secret), Json(made)))
}

/// Makes a token, for pages too.
pub async fn make(app: &App, caller: &Caller, body: &NewToken) -> Result<Created, Problem> {
    let new = checked(body, caller)?;
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let (id, token) = token::create(&mut transaction, &new, now).await?;
    let row = find(&mut transaction, &id).await?;
    let change = Change::new("token.create", "token", &id).after(json!(row));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(Created { token, row })
}

fn checked(body: &NewToken, caller: &Caller) -> Result<token::NewToken, Problem> {
    let role = body.role.as_deref().map(|name| {
        Role::parse(name)
            .ok_or_else(|| Problem::field("/role", "must be viewer, operator, lead or admin"))
    });
    let mut scopes = Vec::new();
    for (index, name) in body.scopes.iter().enumerate() {
        let scope = Scope::parse(name).ok_or_else(|| {
            Problem::field(format!("/scopes/{index}"), "must be backup or ingest")
        })?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    let role = role.transpose()?;
    if role.is_none() && scopes.is_empty() {
        return Err(Problem::field("/role", "must be there where no scope is"));
    }
    let repository = body.repository.as_deref();
    if repository.is_some() && !scopes.contains(&Scope::Ingest) {
        return Err(Problem::field("/repository", "needs the scope ingest"));
    }
    let repository = repository.map(|name| input::text("/repository", name, 1..=MAX_CHARS));
    let lifetime = body.lifetime_s.unwrap_or(LIFETIME.whole_seconds());
    if !(60..=MAX_LIFETIME.whole_seconds()).contains(&lifetime) {
        let detail = format!("must be from 60 to {}", MAX_LIFETIME.whole_seconds());
        return Err(Problem::field("/lifetime_s", detail));
    }
    Ok(token::NewToken {
        name: input::text("/name", &body.name, 1..=NAME_CHARS)?,
        role,
        scopes,
        cidr: body.cidr,
        repository: repository.transpose()?,
        lifetime: Duration::seconds(lifetime),
        created_by: caller.name.clone(),
    })
}

/// One token.
#[utoipa::path(
    get,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = String, Path)),
    responses((status = 200, body = ApiTokenRow)),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<ApiTokenRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    find(&mut connection, &id).await.map(Json)
}

/// Revokes a token: it and the sessions that began with it are refused from here on. Its row stays.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = String, Path)),
    responses((status = 200, body = ApiTokenRow)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<ApiTokenRow>, Problem> {
    revoke(&app, &caller, &id).await.map(Json)
}

/// Revokes a token, for pages too.
pub async fn revoke(app: &App, caller: &Caller, id: &str) -> Result<ApiTokenRow, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let revoked = api_tokens::revoke(&mut transaction, id, &caller.name, now).await?;
    let row = find(&mut transaction, id).await?;
    if revoked == 0 {
        return Err(Problem::conflict("revoked", "the token was revoked before"));
    }
    let change = Change::new("token.revoke", "token", id).after(json!({"name": row.name}));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(row)
}

async fn find(connection: &mut sqlx::PgConnection, id: &str) -> Result<ApiTokenRow, Problem> {
    let row = api_tokens::list(connection, Some(id), None, 1).await?.pop();
    row.ok_or_else(|| Problem::missing("token", id))
}
