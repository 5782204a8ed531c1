//! Who may call what: one table, from which the operators' router and the `OpenAPI` document are built.
//!
//! A route that is not in here does not exist; tests walk the same table.

mod backups;
mod hosts;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};
use http::Method;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{RefOr, Schema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::login::oidc::provider::CALLBACK;
use crate::{api, web};

/// What a credential may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything but secrets.
    Viewer,
    /// Edits hosts, sends commands.
    Operator,
    /// Closes, retires, edits policies.
    Lead,
    /// Deletes, and decides who may do what.
    Admin,
}

impl Role {
    /// All, from the least on.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Lead, Self::Admin];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Lead => "lead",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "viewer" | "read" => Some(Self::Viewer),
            "operator" | "member" => Some(Self::Operator),
            "lead" => Some(Self::Lead),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// What an API token may do beside its role, or without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// See what a viewer sees; start backups and drills.
    Backup,
    /// Post to `/ingest`, nothing else.
    Ingest,
}

impl Scope {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Ingest => "ingest",
        }
    }

    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Backup, Self::Ingest]
            .into_iter()
            .find(|scope| scope.name() == name)
    }

    /// The role that comes with it.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Backup => Some(Role::Viewer),
            Self::Ingest => None,
        }
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    /// This role or a higher one.
    Role(Role),
}

/// One route and who may call it.
pub struct Route {
    pub method: Method,
    pub path: String,
    pub access: Access,
    /// Tokens of this scope may, too.
    pub scope: Option<Scope>,
    /// Someone who is logged in has to have proved who they are a short time ago.
    pub step_up: bool,
    /// Also for who has to choose a password of their own before all else.
    pub before_password: bool,
    /// In the `OpenAPI` document, where programs call it.
    pub operation: Option<Operation>,
    /// What the operation refers to.
    pub schemas: Vec<(String, RefOr<Schema>)>,
    handler: MethodRouter<Arc<App>>,
}

impl Route {
    /// For people with a browser, or programs that read no `OpenAPI`.
    fn page(access: Access, method: Method, path: &str, handler: MethodRouter<Arc<App>>) -> Self {
        Self {
            method,
            path: path.to_owned(),
            access,
            scope: None,
            step_up: false,
            before_password: false,
            operation: None,
            schemas: Vec::new(),
            handler,
        }
    }

    fn or_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    fn step_up(mut self) -> Self {
        self.step_up = true;
        self
    }

    fn before_password(mut self) -> Self {
        self.before_password = true;
        self
    }
}

/// A route of the API: method, path and document stand at its handler.
fn api(access: Access, (schemas, paths, handler): UtoipaMethodRouter<Arc<App>>) -> Route {
    let (path, item) = paths
        .paths
        .into_iter()
        .next()
        .expect("routes! of one handler has one path");
    let (method, operation) = operation(item).expect("a handler has one method");
    Route {
        method,
        path,
        access,
        scope: None,
        step_up: false,
        before_password: false,
        operation: Some(operation),
        schemas,
        handler,
    }
}

fn operation(item: PathItem) -> Option<(Method, Operation)> {
    [
        (Method::GET, item.get),
        (Method::POST, item.post),
        (Method::PUT, item.put),
        (Method::PATCH, item.patch),
        (Method::DELETE, item.delete),
    ]
    .into_iter()
    .find_map(|(method, operation)| Some((method, operation?)))
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let mut table = pages();
    table.extend(fleet_pages());
    table.extend(hosts::page());
    table.extend(settings());
    table.extend(administered());
    table.extend(hosts::api());
    table.extend(patches());
    table.extend(changes());
    table.extend(backups::routes());
    table.extend(administration());
    table
});

/// The table.
pub fn routes() -> &'static [Route] {
    &ROUTES
}

const PUBLIC: Access = Access::Public;
const VIEWER: Access = Access::Role(Role::Viewer);
const OPERATOR: Access = Access::Role(Role::Operator);
const LEAD: Access = Access::Role(Role::Lead);
const ADMIN: Access = Access::Role(Role::Admin);

/// What changed the fleet, and who brings it.
fn changes() -> Vec<Route> {
    use Method as M;
    use api::{changes, ingest};
    use web::changes::{act, list, page};
    let form = |path, handler| Route::page(OPERATOR, M::POST, path, handler);
    let delete = "/changes/{id}/delete";
    vec![
        Route::page(VIEWER, M::GET, "/changes", get(list)),
        Route::page(OPERATOR, M::GET, "/changes/new", get(act::new)),
        form("/changes", post(act::create)),
        Route::page(VIEWER, M::GET, "/changes/{id}", get(page::page)),
        form("/changes/{id}/edit", post(act::change)),
        form("/changes/{id}/note", post(act::note)),
        form("/changes/{id}/hosts", post(act::change_hosts)),
        Route::page(ADMIN, M::POST, delete, post(act::delete)).step_up(),
        api(OPERATOR, routes!(ingest::terraform::take)).or_scope(Scope::Ingest),
        api(OPERATOR, routes!(ingest::ansible::take)).or_scope(Scope::Ingest),
        api(VIEWER, routes!(changes::list)),
        api(OPERATOR, routes!(changes::edit::create)),
        api(VIEWER, routes!(changes::get)),
        api(OPERATOR, routes!(changes::edit::update)),
        api(ADMIN, routes!(changes::edit::delete)).step_up(),
        api(VIEWER, routes!(changes::hosts::list)),
        api(VIEWER, routes!(changes::hosts::links)),
        api(VIEWER, routes!(changes::hosts::related)),
        api(VIEWER, routes!(changes::runs::resources)),
        api(VIEWER, routes!(changes::runs::drift)),
        api(VIEWER, routes!(changes::runs::artifact)),
        api(VIEWER, routes!(changes::runs::hosts)),
        api(VIEWER, routes!(changes::runs::tasks)),
        api(VIEWER, routes!(changes::runs::results)),
    ]
}

/// For people with a browser, and for machines that look after the collector.
fn pages() -> Vec<Route> {
    use Method as M;
    use web::{conflicts, docs, inventory, kit, login, oidc, setup, step_up, theme};
    vec![
        Route::page(PUBLIC, M::GET, "/health", get(api::health::health)),
        Route::page(PUBLIC, M::GET, "/health/live", get(api::health::live)),
        Route::page(PUBLIC, M::GET, "/health/ready", get(api::health::ready)),
        Route::page(VIEWER, M::GET, "/metrics", get(api::metrics::metrics)),
        Route::page(ADMIN, M::GET, "/_kit", get(kit::page)),
        Route::page(PUBLIC, M::POST, "/theme", post(theme::choose)),
        Route::page(PUBLIC, M::GET, "/login", get(login::page)),
        Route::page(PUBLIC, M::POST, "/login", post(login::submit)),
        Route::page(VIEWER, M::POST, "/logout", post(login::leave)).before_password(),
        Route::page(VIEWER, M::GET, "/step-up", get(step_up::page)),
        Route::page(VIEWER, M::POST, "/step-up", post(step_up::submit)),
        Route::page(VIEWER, M::GET, "/api/docs", get(docs::home)),
        Route::page(VIEWER, M::GET, "/api/docs/{file}", get(docs::file)),
        Route::page(PUBLIC, M::GET, "/setup", get(setup::page)),
        Route::page(PUBLIC, M::POST, "/setup", post(setup::submit)),
        Route::page(PUBLIC, M::GET, "/login/oidc", get(oidc::begin)),
        Route::page(PUBLIC, M::GET, CALLBACK, get(oidc::callback)),
        Route::page(PUBLIC, M::GET, "/static/{file}", get(web::assets::file)),
        Route::page(VIEWER, M::GET, "/inventory", get(inventory::page)),
        Route::page(OPERATOR, M::POST, "/inventory/sync", post(inventory::sync)),
        Route::page(
            OPERATOR,
            M::POST,
            "/hosts/{id}/conflicts/{conflict}/split",
            post(conflicts::split),
        ),
        Route::page(
            OPERATOR,
            M::POST,
            "/hosts/{id}/conflicts/{conflict}/drop",
            post(conflicts::drop_clone),
        ),
    ]
}

/// Of the fleet as a whole.
fn fleet_pages() -> Vec<Route> {
    use Method as M;
    use web::hosts::{self, bulk, first, views};
    use web::{live, overview};
    let (token, delete) = ("/hosts/first-token", "/hosts/views/{id}/delete");
    vec![
        Route::page(VIEWER, M::GET, "/", get(overview::page)),
        Route::page(VIEWER, M::GET, "/hosts", get(hosts::page)),
        Route::page(OPERATOR, M::POST, "/hosts/bulk", post(bulk::submit)),
        Route::page(VIEWER, M::POST, "/hosts/views", post(views::save)),
        Route::page(VIEWER, M::POST, delete, post(views::delete)),
        Route::page(VIEWER, M::POST, "/hosts/steps", post(first::dismiss)),
        Route::page(ADMIN, M::POST, token, post(first::token)).step_up(),
        Route::page(VIEWER, M::GET, "/live/hosts", get(live::hosts)),
    ]
}

/// What everybody sees of the settings, what was done, and what is found by a word.
fn settings() -> Vec<Route> {
    use Method as M;
    use web::settings::{access, account, certificates, health, home, sessions, views};
    use web::{audit, password, search};
    let end = "/settings/sessions/{id}/end";
    let end_others = "/settings/sessions/end-others";
    let certs = "/settings/certificates";
    let delete_view = "/settings/views/{id}/delete";
    vec![
        Route::page(VIEWER, M::GET, "/password", get(password::page)).before_password(),
        Route::page(VIEWER, M::POST, "/password", post(password::submit)).before_password(),
        Route::page(VIEWER, M::GET, "/search", get(search::page)),
        Route::page(LEAD, M::GET, "/audit", get(audit::page)),
        Route::page(LEAD, M::POST, "/audit/verify", post(audit::verify)),
        Route::page(VIEWER, M::GET, "/settings", get(home)),
        Route::page(VIEWER, M::GET, "/settings/account", get(account::page)),
        Route::page(VIEWER, M::GET, "/settings/roles", get(access::page)),
        Route::page(VIEWER, M::GET, "/settings/health", get(health::page)),
        Route::page(VIEWER, M::GET, "/settings/sessions", get(sessions::page)),
        Route::page(VIEWER, M::POST, end_others, post(sessions::end_others)),
        Route::page(VIEWER, M::POST, end, post(sessions::end)),
        Route::page(VIEWER, M::GET, certs, get(certificates::page)),
        Route::page(VIEWER, M::GET, "/settings/views", get(views::page)),
        Route::page(VIEWER, M::POST, delete_view, post(views::delete)),
    ]
}

/// What administrators set.
fn administered() -> Vec<Route> {
    use web::settings::{certificates, enrollment, tokens, users};
    let page = |path, handler| Route::page(ADMIN, Method::GET, path, handler);
    let form = |path, handler| Route::page(ADMIN, Method::POST, path, handler);
    let user = "/settings/users/{name}";
    let revoke_token = "/settings/tokens/{id}/revoke";
    let approve = "/settings/enrollment/{id}/approve";
    let delete = "/settings/enrollment/{id}/delete";
    let revoke = "/settings/certificates/{serial}/revoke";
    vec![
        page("/settings/users", get(users::list)),
        form("/settings/users", post(users::create)).step_up(),
        page("/settings/users/_new", get(users::new)).step_up(),
        page(user, get(users::page)).step_up(),
        form(user, post(users::update)).step_up(),
        page("/settings/tokens", get(tokens::list)),
        form("/settings/tokens", post(tokens::create)).step_up(),
        page("/settings/tokens/new", get(tokens::new)).step_up(),
        form(revoke_token, post(tokens::revoke)),
        page("/settings/enrollment", get(enrollment::page)),
        form("/settings/enrollment", post(enrollment::create)).step_up(),
        page("/settings/enrollment/new", get(enrollment::new)).step_up(),
        form(approve, post(enrollment::approve)),
        form(delete, post(enrollment::delete)),
        form(revoke, post(certificates::revoke)).step_up(),
    ]
}

/// What is installed, and what there is to install.
fn patches() -> Vec<Route> {
    use api::{advisories, packages, updates};
    let page = |path, handler| Route::page(VIEWER, Method::GET, path, handler);
    let updates_of_host = get(web::packages::updates_of_host);
    let advisories_of_host = get(web::advisories::of_host);
    vec![
        page("/patches", get(web::patches::page)),
        page("/packages", get(web::packages::fleet)),
        page("/advisories/{id}", get(web::advisories::page)),
        page("/hosts/{id}/packages", get(web::packages::of_host)),
        page("/hosts/{id}/updates", updates_of_host),
        page("/hosts/{id}/advisories", advisories_of_host),
        api(VIEWER, routes!(packages::list)),
        api(VIEWER, routes!(packages::hosts)),
        api(VIEWER, routes!(packages::of_host)),
        api(VIEWER, routes!(updates::list)),
        api(VIEWER, routes!(updates::packages)),
        api(VIEWER, routes!(updates::hosts)),
        api(VIEWER, routes!(updates::summary)),
        api(VIEWER, routes!(updates::of_host)),
        api(VIEWER, routes!(updates::advisories)),
        api(VIEWER, routes!(advisories::list_feeds)),
        api(VIEWER, routes!(advisories::list_open)),
        api(VIEWER, routes!(advisories::get)),
        api(VIEWER, routes!(advisories::list_hosts)),
        api(VIEWER, routes!(advisories::of_host)),
    ]
}

/// Who may do what, and who may come in.
fn administration() -> Vec<Route> {
    use api::{
        audit, certificates, enroll_tokens, jobs, password, sessions, system, tokens, users,
    };
    vec![
        api(LEAD, routes!(audit::list)),
        api(LEAD, routes!(audit::verify)),
        api(VIEWER, routes!(jobs::list)),
        api(VIEWER, routes!(system::get)),
        api(ADMIN, routes!(enroll_tokens::list)),
        api(ADMIN, routes!(enroll_tokens::waiting)),
        api(ADMIN, routes!(enroll_tokens::create)).step_up(),
        api(ADMIN, routes!(enroll_tokens::approve)),
        api(ADMIN, routes!(enroll_tokens::delete)),
        api(VIEWER, routes!(certificates::list)),
        api(ADMIN, routes!(certificates::revoke)).step_up(),
        api(ADMIN, routes!(tokens::list)),
        api(ADMIN, routes!(tokens::create)).step_up(),
        api(ADMIN, routes!(tokens::get)),
        api(ADMIN, routes!(tokens::delete)),
        api(ADMIN, routes!(users::list)),
        api(ADMIN, routes!(users::create)).step_up(),
        api(ADMIN, routes!(users::get)),
        api(ADMIN, routes!(users::update)).step_up(),
        api(ADMIN, routes!(users::delete)).step_up(),
        api(VIEWER, routes!(sessions::whoami)),
        api(VIEWER, routes!(sessions::step_up)),
        api(VIEWER, routes!(password::change)).before_password(),
        api(VIEWER, routes!(sessions::list)),
        api(VIEWER, routes!(sessions::delete)),
        api(VIEWER, routes!(sessions::delete_others)),
        Route::page(
            VIEWER,
            Method::GET,
            "/api/v1/openapi.json",
            get(api::openapi::document),
        ),
    ]
}

/// The operators' router.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let guard = api::auth::Guard {
            app: Arc::clone(&app),
            route,
        };
        let guarded = route
            .handler
            .clone()
            // Not before what no method of the route is: that is answered 405, to anyone.
            .route_layer(middleware::from_fn_with_state(guard, api::auth::guard));
        router = router.route(&route.path, guarded);
    }
    router
        .fallback(api::problem::not_found)
        .method_not_allowed_fallback(api::problem::not_allowed)
        .layer(middleware::from_fn(api::requests::in_time))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            web::kept::forms,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            web::failed::pages,
        ))
        .layer(middleware::from_fn(web::headers))
        .with_state(app)
}
