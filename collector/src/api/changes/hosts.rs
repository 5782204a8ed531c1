//! Hosts that a change touched, and changes that touched the same hosts at about the same time.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::changes::find;
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page, PageQuery};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::change_hosts::{self, ChangeHostRow};
use crate::store::change_links::{self, LinkRow};
use crate::store::related_changes::{self, RelatedRow};

/// Related changes that are listed.
const RELATED: i64 = 20;
/// Links without a host that the page has.
const WAITING: i64 = 50;
const STATES: [&str; 4] = ["linked", "pending", "ambiguous", "expired"];

/// Lists the hosts that a change touched, by name, each with how that is known.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/hosts",
    tag = "changes",
    params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<ChangeHostRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ChangeHostRow>>, Problem> {
    rows(&app, id, &query).await
}

/// As the API and the page list them.
pub async fn rows(
    app: &App,
    id: Uuid,
    query: &PageQuery,
) -> Result<Json<Page<ChangeHostRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<(String, Uuid)> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    find(&mut connection, id).await?;
    let rows = change_hosts::list(&mut connection, id, after, limit).await?;
    let total = change_hosts::count(&mut connection, id).await?;
    Ok(page::page(rows, total, limit, |row| {
        (row.host_name.clone(), row.host_id)
    }))
}

/// Which links.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct LinksQuery {
    /// `linked | pending | ambiguous | expired`.
    pub state: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists what in a change's runs may be a host, with the host where it was found. What is not found waits.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/links",
    tag = "changes",
    params(("id" = Uuid, Path), LinksQuery),
    responses((status = 200, body = Page<LinkRow>)),
)]
pub async fn links(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<LinksQuery>,
) -> Result<Json<Page<LinkRow>>, Problem> {
    input::one_of("state", query.state.as_deref(), &STATES)?;
    let limit = page::limit(query.limit)?;
    let after: Option<i64> = page::cursor(query.cursor.as_deref())?;
    let states: Option<Vec<_>> = query.state.map(|state| vec![state]);
    let mut connection = app.pool.acquire().await?;
    find(&mut connection, id).await?;
    let (states, after) = (states.as_deref(), after.unwrap_or(0));
    let rows = change_links::list(&mut connection, id, states, after, limit).await?;
    let total = change_links::count(&mut connection, id, states).await?;
    Ok(page::page(rows, total, limit, |row| row.link_id))
}

/// The first of those that wait for a host, or that more than one host could be, for the page.
pub async fn waiting(app: &App, id: Uuid) -> Result<Vec<LinkRow>, Problem> {
    let states = ["pending", "ambiguous"].map(str::to_owned);
    let mut connection = app.pool.acquire().await?;
    Ok(change_links::list(&mut connection, id, Some(&states), 0, WAITING).await?)
}

/// Lists changes that touched the same hosts at most two hours before or after this one did: those that share the most hosts
/// first, 20 at most. They may have to do with each other; nothing says that they have.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/related",
    tag = "changes",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<RelatedRow>)),
)]
pub async fn related(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<RelatedRow>>, Problem> {
    Ok(Json(Page::whole(related_to(&app, id).await?)))
}

/// As the API and the page list them.
pub async fn related_to(app: &App, id: Uuid) -> Result<Vec<RelatedRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    find(&mut connection, id).await?;
    Ok(related_changes::list(&mut connection, id, RELATED).await?)
}
