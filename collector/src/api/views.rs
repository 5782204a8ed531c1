//! `/api/v1/views`: lists of hosts under a name, each what the Hosts page's URL asks for. Everybody keeps their own;
//! a lead shares one with all.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::query::HostsQuery;
use crate::api::input::{self, Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::roles::Role;
use crate::store::saved_views::{self, ViewRow};

/// Characters of a name.
const NAME_CHARS: usize = 80;
/// Bytes of a query.
const QUERY_BYTES: usize = 4096;
/// Views that one may keep.
const MOST: i64 = 100;
/// What a page's URL has beside the API's parameters, and a view too: which columns are shown.
pub const COLUMNS: &str = "columns";
/// Parameters that are no part of a view.
const PASSING: [&str; 4] = ["cursor", "limit", "format", "fields"];

/// A view as it is listed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct View {
    pub id: Uuid,
    pub name: String,
    /// What stands after the `?` of the Hosts page: parameters of `GET /api/v1/hosts`, and `columns`.
    pub query: String,
    /// Who keeps it.
    pub owner: String,
    pub is_mine: bool,
    pub is_shared: bool,
    /// What its owner sees on the Hosts page who asks for nothing.
    pub is_default: bool,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl View {
    fn of(row: ViewRow, caller: &Caller) -> Self {
        let is_mine = row.owner == owner(caller);
        Self {
            id: row.view_id,
            name: row.name,
            query: row.query,
            owner: row.owner_name,
            is_mine,
            is_shared: row.is_shared,
            // Of another's it is no matter.
            is_default: row.is_default && is_mine,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }

    /// Whether this caller may delete it.
    pub fn may_delete(&self, caller: &Caller) -> bool {
        self.is_mine || self.is_shared && may_share(caller)
    }
}

/// A view to be kept, in place of one's own of the same name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewView {
    #[schema(min_length = 1, max_length = 80)]
    pub name: String,
    #[schema(max_length = 4096)]
    pub query: String,
    /// Everybody sees it; needs the role `lead`.
    #[serde(default)]
    pub is_shared: bool,
    /// It is what one sees who asks for nothing; one's other views are not any more.
    #[serde(default)]
    pub is_default: bool,
}

/// Whose views a caller's are: the same for each credential of a user.
pub fn owner(caller: &Caller) -> String {
    format!("{}:{}", caller.kind.name(), caller.id)
}

/// Whether this caller's views may be for all.
pub fn may_share(caller: &Caller) -> bool {
    caller.role.is_some_and(|role| role >= Role::Lead)
}

/// Lists one's own views and those that are shared, by name.
#[utoipa::path(
    get,
    path = "/api/v1/views",
    tag = "views",
    responses((status = 200, body = Page<View>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Page<View>>, Problem> {
    Ok(Json(Page::whole(all(&app, &caller).await?)))
}

/// The views that a caller sees.
pub async fn all(app: &App, caller: &Caller) -> Result<Vec<View>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let rows = saved_views::list(&mut connection, &owner(caller)).await?;
    Ok(rows.into_iter().map(|row| View::of(row, caller)).collect())
}

/// Keeps a view, in place of one's own of the same name.
#[utoipa::path(
    post,
    path = "/api/v1/views",
    tag = "views",
    request_body = NewView,
    responses((status = 201, body = View)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewView>,
) -> Result<impl IntoResponse, Problem> {
    let view = keep(&app, &caller, &body).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// Keeps a view.
pub async fn keep(app: &App, caller: &Caller, new: &NewView) -> Result<View, Problem> {
    let name = input::text("/name", &new.name, 1..=NAME_CHARS)?;
    let query = canonical(&new.query)?;
    if new.is_shared && !may_share(caller) {
        let detail = "to share a view needs the role lead";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let now = app.clock.now();
    let mut row = ViewRow {
        view_id: Uuid::new_v4(),
        name,
        query,
        owner: owner(caller),
        owner_name: caller.name.clone(),
        is_shared: new.is_shared,
        is_default: new.is_default,
        created_at: now,
        updated_at: now,
    };
    let mut transaction = app.pool.begin().await?;
    let others = saved_views::count_others(&mut transaction, &row.owner, &row.name).await?;
    if others >= MOST {
        let detail = format!("one keeps {MOST} views at most; delete one first");
        return Err(Problem::conflict("too_many_views", detail));
    }
    if row.is_default {
        saved_views::clear_default(&mut transaction, &row.owner, &row.name).await?;
    }
    row.view_id = saved_views::upsert(&mut transaction, &row).await?;
    let change = Change::new("view.create", "view", row.view_id).after(json!(row));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(View::of(row, caller))
}

/// Deletes a view: one's own, or as a lead a shared one.
#[utoipa::path(
    delete,
    path = "/api/v1/views/{id}",
    tag = "views",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let found = saved_views::find_for_update(&mut transaction, id).await?;
    let missing = || Problem::missing("view", id);
    let row = found.ok_or_else(missing)?;
    let view = View::of(row.clone(), &caller);
    if !view.may_delete(&caller) {
        // Another's own are nobody's business.
        return Err(if view.is_shared {
            let detail = "to delete a shared view of somebody else needs the role lead";
            Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
        } else {
            missing()
        });
    }
    saved_views::delete(&mut transaction, id).await?;
    let change = Change::new("view.delete", "view", id).before(json!(row));
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The query as it is kept: parameters that a list of hosts knows, without what is of one page or one export.
fn canonical(text: &str) -> Result<String, Problem> {
    let refused = |detail: String| Problem::field("/query", detail);
    if text.len() > QUERY_BYTES {
        return Err(refused(format!("must have {QUERY_BYTES} bytes at most")));
    }
    let text = text.trim_start_matches('?');
    let pairs: Vec<(String, String)> = serde_html_form::from_str(text)
        .map_err(|error| refused(format!("is no query string: {error}")))?;
    let kept = pairs
        .into_iter()
        .filter(|(name, value)| !value.is_empty() && !PASSING.contains(&name.as_str()));
    let (columns, asked): (Vec<_>, Vec<_>) = kept.partition(|(name, _)| name == COLUMNS);
    let written = |pairs: &[(String, String)]| serde_html_form::to_string(pairs);
    let list = written(&asked).unwrap_or_default();
    let query: HostsQuery =
        serde_html_form::from_str(&list).map_err(|error| refused(error.to_string()))?;
    let place = |problem: Problem| {
        let detail = problem.errors.first().map(|error| error.detail.clone());
        let name = problem
            .errors
            .first()
            .and_then(|error| error.parameter.clone());
        refused(format!(
            "{} {}",
            name.unwrap_or_default(),
            detail.unwrap_or_default()
        ))
    };
    query.filter().map_err(place)?;
    query.sort().map_err(place)?;
    let all: Vec<_> = asked.into_iter().chain(columns).collect();
    Ok(written(&all).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_what_a_list_knows_and_nothing_of_one_page() {
        let kept = canonical("?status=late%2C&cursor=x").unwrap_err();
        assert!(
            kept.errors
                .iter()
                .any(|error| error.detail.contains("status")),
            "{kept:?}"
        );
        assert_eq!(
            canonical("?q=&status=unhealthy&tag=a&tag=b+c&cursor=x&limit=5&columns=os").unwrap(),
            "status=unhealthy&tag=a&tag=b+c&columns=os"
        );
        assert_eq!(canonical("").unwrap(), "");
        assert!(canonical("nonsense=1").is_err());
        assert!(canonical("sort=nonsense").is_err());
        assert!(canonical(&"q=x&".repeat(2000)).is_err());
    }
}
