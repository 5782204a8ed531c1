//! `/api/v1/users`: people who log in by name.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::etag;
use crate::api::input::{Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::login::user;
use crate::roles::Role;
use crate::store::{sessions, users};

/// Users there may be: a list is whole.
pub const MAX_USERS: usize = 1000;

/// A user, without what their password is checked against.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct User {
    pub id: Uuid,
    pub name: String,
    /// `viewer | operator | lead | admin`.
    pub role: String,
    /// They log in by name and password; else by the login provider.
    pub has_password: bool,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// They may not log in since then.
    #[serde(with = "rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// Somebody else gave them their password: when they log in, they choose another before all else.
    pub must_change_password: bool,
}

impl From<users::User> for User {
    fn from(row: users::User) -> Self {
        Self {
            id: row.user_id,
            name: row.name,
            role: row.role,
            has_password: row.password_hash.is_some(),
            created_at: row.created_at,
            disabled_at: row.disabled_at,
            must_change_password: row.must_change_password,
        }
    }
}

/// A user to be made.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Up to 64 letters a to z, digits and `. _ @ + -`.
    pub name: String,
    pub role: String,
    /// 12 characters at least.
    #[schema(format = Password)]
    pub password: String,
    /// Whether they have to choose another when they log in; yes, where it is not said.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub must_change_password: bool,
}

fn yes() -> bool {
    true
}

/// What is to change; what is not said stays. Whatever it is, their sessions end.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserUpdate {
    pub role: Option<String>,
    #[schema(format = Password)]
    pub password: Option<String>,
    /// With a password: whether they have to choose another when they log in. Where it is not said: yes, unless it is
    /// the caller's own.
    pub must_change_password: Option<bool>,
    pub disabled: Option<bool>,
}

/// Lists all users by name.
#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "users",
    responses((status = 200, body = Page<User>)),
)]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Page<User>>, Problem> {
    all(&app).await.map(Json)
}

/// The list, for pages too.
pub async fn all(app: &App) -> Result<Page<User>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let rows = users::list(&mut connection).await?;
    Ok(Page::whole(rows.into_iter().map(User::from).collect()))
}

/// Makes a user.
#[utoipa::path(
    post,
    path = "/api/v1/users",
    tag = "users",
    request_body = NewUser,
    responses((status = 201, body = User)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewUser>,
) -> Result<Response, Problem> {
    let made = add(&app, &caller, body).await?;
    Ok(etag::tagged(StatusCode::CREATED, made))
}

/// Makes a user, for pages too.
pub async fn add(app: &App, caller: &Caller, body: NewUser) -> Result<User, Problem> {
    let name = user::name(&body.name).map_err(|error| Problem::field("/name", error))?;
    let now = app.clock.now();
    let row = users::User {
        user_id: Uuid::new_v4(),
        name,
        role: role(&body.role)?.name().to_owned(),
        password_hash: Some(hash(app, body.password).await?),
        created_at: now,
        disabled_at: None,
        must_change_password: body.must_change_password,
    };
    let mut transaction = app.pool.begin().await?;
    if users::list(&mut transaction).await?.len() >= MAX_USERS {
        let detail = format!("there are {MAX_USERS} users; OIDC takes more");
        return Err(Problem::conflict("too_many", detail));
    }
    if users::insert(&mut transaction, &row, &caller.name).await? == 0 {
        let detail = format!("there is a user {} already", row.name);
        return Err(Problem::conflict("exists", detail));
    }
    let made = User::from(row);
    let change = Change::new("user.create", "user", &made.name).after(json!(made));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(made)
}

/// One user.
#[utoipa::path(
    get,
    path = "/api/v1/users/{name}",
    tag = "users",
    params(("name" = String, Path)),
    responses((status = 200, body = User)),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let user = one(&app, &name).await?;
    Ok(etag::tagged(StatusCode::OK, user))
}

/// The user of that name, for pages too.
pub async fn one(app: &App, name: &str) -> Result<User, Problem> {
    let mut connection = app.pool.acquire().await?;
    find(&mut connection, name).await
}

/// Changes a user.
#[utoipa::path(
    patch,
    path = "/api/v1/users/{name}",
    tag = "users",
    params(("name" = String, Path), ("If-Match" = String, Header)),
    request_body = UserUpdate,
    responses((status = 200, body = User)),
)]
pub async fn update(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<UserUpdate>,
) -> Result<Response, Problem> {
    let is_current = |before: &User| etag::check(&headers, &etag::of(before));
    let after = change(&app, &caller, &name, is_current, body).await?;
    Ok(etag::tagged(StatusCode::OK, after))
}

/// Changes a user who is as whoever changes them saw them; for pages too.
pub async fn change(
    app: &App,
    caller: &Caller,
    name: &str,
    is_current: impl Fn(&User) -> Result<(), Problem> + Send,
    body: UserUpdate,
) -> Result<User, Problem> {
    let role = body.role.as_deref().map(role).transpose()?;
    let has_new_password = body.password.is_some();
    let password_hash = match body.password {
        Some(password) => Some(hash(app, password).await?),
        None => None,
    };
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    users::lock(&mut transaction).await?;
    let before = find(&mut transaction, name).await?;
    is_current(&before)?;
    if let Some(role) = role {
        users::update_role(&mut transaction, &before.name, role.name()).await?;
    }
    if let Some(hash) = password_hash {
        let is_own = caller.id == before.id.to_string();
        let must_change = body.must_change_password.unwrap_or(!is_own);
        let changed =
            users::update_password(&mut transaction, &before.name, &hash, must_change).await?;
        if changed == 0 {
            let detail = format!("{} logs in by the login provider", before.name);
            return Err(Problem::conflict("no_password", detail));
        }
    }
    if let Some(disabled) = body.disabled {
        let at = disabled.then(|| before.disabled_at.unwrap_or(now));
        users::update_disabled(&mut transaction, &before.name, at).await?;
    }
    has_an_admin(&mut transaction, &before).await?;
    sessions::delete_of_user(&mut transaction, &before.name).await?;
    let after = find(&mut transaction, &before.name).await?;
    let change = Change::new("user.update", "user", &before.name)
        .before(json!(before))
        .after(json!({"user": after, "new_password": has_new_password}));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(after)
}

/// Deletes a user and their sessions. What they did stays in the audit log, by their name.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{name}",
    tag = "users",
    params(("name" = String, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    remove(&app, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a user, for pages too.
pub async fn remove(app: &App, caller: &Caller, name: &str) -> Result<(), Problem> {
    let mut transaction = app.pool.begin().await?;
    users::lock(&mut transaction).await?;
    let before = find(&mut transaction, name).await?;
    users::delete(&mut transaction, &before.name).await?;
    has_an_admin(&mut transaction, &before).await?;
    let change = Change::new("user.delete", "user", &before.name).before(json!(before));
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(())
}

/// Refuses what would leave nobody who may make users.
async fn has_an_admin(connection: &mut PgConnection, changed: &User) -> Result<(), Problem> {
    let was_admin = changed.role == Role::Admin.name() && changed.disabled_at.is_none();
    if was_admin && users::count_admins(connection).await? == 0 {
        let detail = format!("{} is the last user with the role admin", changed.name);
        return Err(Problem::conflict("last_admin", detail));
    }
    Ok(())
}

async fn find(connection: &mut PgConnection, name: &str) -> Result<User, Problem> {
    let row = match user::name(name) {
        Ok(name) => users::find(connection, &name).await?,
        Err(_) => None,
    };
    row.map(User::from)
        .ok_or_else(|| Problem::missing("user", name))
}

fn role(name: &str) -> Result<Role, Problem> {
    Role::parse(name)
        .ok_or_else(|| Problem::field("/role", "must be viewer, operator, lead or admin"))
}

/// What is stored of a new password.
pub(super) async fn hash(app: &App, password: String) -> Result<String, Problem> {
    let hashed = app.password_turns.hash(password).await;
    match hashed {
        Some(hashed) => hashed.map_err(|error| Problem::field("/password", error)),
        None => Err(Problem::unavailable(
            "too many passwords are being checked; try again",
        )),
    }
}
