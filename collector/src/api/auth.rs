//! The guard before every route: who is calling, whether the table lets them, and whether it is really them.
//!
//! Who: an API token (`Authorization: Bearer` or `X-API-TOKEN`), else what a trusted proxy says, else a browser's session.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{AUTHORIZATION, HeaderMap};
use http::{Method, StatusCode, Uri};

use crate::api::problem::Problem;
use crate::api::requests::Answered;
use crate::api::{csrf, idempotency, limits};
use crate::app::App;
use crate::audit::ActorKind;
use crate::caller::{Caller, Session};
use crate::http::network;
use crate::login::proxy::Claim;
use crate::login::session::{self, Client};
use crate::login::token;
use crate::roles::{Access, Role, Route};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};

/// Streams below this are asked for by pages, not by people: they are no use of a session.
const LIVE: &str = "/live/";

/// Why a person was sent elsewhere; left in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They are not logged in, or no more.
    Login,
    /// They proved too long ago who they are.
    StepUp,
    /// They have not chosen a password of their own.
    Password,
}

/// What stands before a route.
#[derive(Clone)]
pub struct Guard {
    pub app: Arc<App>,
    pub route: &'static Route,
}

impl Guard {
    /// Not for people with a browser.
    fn is_for_programs(&self) -> bool {
        let path = &self.route.path;
        path.starts_with("/api/v1/") || path.starts_with("/ingest/") || path == "/metrics"
    }
}

/// Lets a request through whose caller may; the handler finds the [`Caller`] in its extensions.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut known = None;
    let done = guarded(&guard, &mut known, request, next).await;
    let mut response = done.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(Answered {
        route: &guard.route.path,
        caller: known,
    });
    response
}

/// `known` is who is calling, whether they may or not.
async fn guarded(
    guard: &Guard,
    known: &mut Option<Caller>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let claim = guard.app.proxy.take(&mut request);
    if guard.route.path.starts_with(LIVE) {
        session::mark_unattended(request.headers_mut());
    }
    csrf::same_origin(request.method(), request.headers())?;
    if guard.route.access == Access::Public {
        return Ok(next.run(request).await);
    }
    let client = Client::of(&guard.app, &request);
    *known = caller(&guard.app, request.headers(), claim, &client).await?;
    let Some(caller) = known else {
        // Guessing costs the address its share.
        if let Err(refusal) = limits::take(&guard.app, network(client.address).to_string()) {
            return Ok(*refusal);
        }
        return unknown(guard, request.uri());
    };
    if !caller.may(guard.route) {
        return Err(forbidden(caller, guard.route));
    }
    if let Some(session) = &caller.session {
        request = csrf::has_token(request, &session.csrf).await?;
    }
    if caller.must_change_password() && !guard.route.before_password {
        return password_first(guard, request.uri());
    }
    if guard.route.step_up && caller.has_to_step_up(guard.app.clock.now()) {
        return step_up(guard, request.uri());
    }
    let credential = format!("{}:{}", caller.kind.name(), caller.id);
    let limits = match limits::take(&guard.app, credential.clone()) {
        Ok(headers) => headers,
        Err(refusal) => return Ok(*refusal),
    };
    takes_parameters(guard.route, request.uri())?;
    request.extensions_mut().insert(caller.clone());
    // What is posted to `/ingest` is told by its content, and may be too large to be held for its key.
    let takes_keys = guard.is_for_programs() && !guard.route.path.starts_with("/ingest/");
    let mut response = if guard.route.method == Method::POST && takes_keys {
        let work = |request| next.run(request);
        idempotency::once(&guard.app, credential, request, work).await?
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(limits);
    Ok(response)
}

/// A route of the API that knows no parameters takes none; one that knows some names those that it does not.
fn takes_parameters(route: &Route, uri: &Uri) -> Result<(), Problem> {
    let Some(operation) = &route.operation else {
        return Ok(());
    };
    let of_query = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Query,
        RefOr::Ref(_) => true,
    };
    if operation.parameters.iter().flatten().any(of_query) {
        return Ok(());
    }
    let name = uri.query().and_then(|query| query.split(['=', '&']).next());
    match name {
        Some(name) if !name.is_empty() => Err(Problem::parameter(name, "is not known here")),
        _ => Ok(()),
    }
}

/// Nobody's request.
fn unknown(guard: &Guard, uri: &Uri) -> Result<Response, Problem> {
    if !guard.is_for_programs() {
        return Ok(ask(guard, Missing::Login, uri));
    }
    let detail = "send a valid API token as Authorization: Bearer or X-API-TOKEN";
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        detail,
    ))
}

fn forbidden(caller: &Caller, route: &Route) -> Problem {
    let needed = match route.access {
        Access::Public => "none",
        Access::Role(role) => role.name(),
    };
    let detail = format!(
        "this needs the role {needed}; {} has {}",
        caller.name,
        caller.role_name()
    );
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

/// Who is logged in has to show again who they are.
fn step_up(guard: &Guard, uri: &Uri) -> Result<Response, Problem> {
    if guard.is_for_programs() {
        let detail = "log in again before this: POST /api/v1/session/step-up with the password";
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "step_up_required",
            detail,
        ));
    }
    Ok(ask(guard, Missing::StepUp, uri))
}

/// Sends a person to the page where they give what is missing, and from there back.
fn ask(guard: &Guard, missing: Missing, uri: &Uri) -> Response {
    // An address that only takes forms is none to come back to.
    let back = match uri.path_and_query() {
        Some(back)
            if guard.route.method.is_safe() && back != "/" && missing != Missing::Password =>
        {
            back.as_str()
        }
        _ => "",
    };
    let page = match missing {
        Missing::Login => "/login",
        Missing::StepUp => "/step-up",
        Missing::Password => "/password",
    };
    let next = serde_html_form::to_string([("next", back)]).unwrap_or_default();
    let to = if back.is_empty() {
        page.to_owned()
    } else {
        format!("{page}?{next}")
    };
    let mut response = Redirect::to(&to).into_response();
    response.extensions_mut().insert(missing);
    response
}

/// Who has to choose a password does nothing else.
fn password_first(guard: &Guard, uri: &Uri) -> Result<Response, Problem> {
    if guard.is_for_programs() {
        let detail = "somebody else gave you this password; choose your own before all else: PUT /api/v1/session/password";
        let code = "password_change_required";
        return Err(Problem::new(StatusCode::FORBIDDEN, code, detail));
    }
    Ok(ask(guard, Missing::Password, uri))
}

/// The caller that the request's token, proxy or session names; `None` without a valid one.
async fn caller(
    app: &App,
    headers: &HeaderMap,
    claim: Option<Claim>,
    client: &Client,
) -> Result<Option<Caller>, Problem> {
    if let Some(said) = said_token(headers) {
        // Who names a token is nobody else, be it none.
        return find(app, said, client).await;
    }
    if let Some(claim) = claim {
        return claim.caller(client).map(Some);
    }
    let Some(held) = session::find(app, headers, client).await? else {
        return Ok(None);
    };
    let (kind, id) = match (held.user_id, held.token_id) {
        (Some(user_id), _) => (ActorKind::User, user_id.to_string()),
        (None, token_id) => (ActorKind::Token, token_id.unwrap_or_default()),
    };
    Ok(Some(Caller {
        kind,
        id,
        role: Role::parse(&held.role),
        name: held.name,
        scopes: Vec::new(),
        repository: None,
        address: client.address,
        session: Some(Session {
            id: held.session_id,
            csrf: session::csrf(app, headers),
            authenticated_at: held.authenticated_at,
            must_change_password: held.must_change_password,
        }),
    }))
}

/// Who a stream's client is by now, by the headers that it came with; not by what a proxy says.
pub async fn again(
    app: &App,
    headers: &HeaderMap,
    client: &Client,
) -> Result<Option<Caller>, Problem> {
    caller(app, headers, None, client).await
}

/// The caller that a token of either kind names.
pub async fn find(app: &App, said: &str, client: &Client) -> Result<Option<Caller>, Problem> {
    if let Some(caller) = app.fixed_tokens.find(said, client.address) {
        return Ok(Some(caller));
    }
    Ok(token::find(app, said, client.address).await?)
}

/// What stands where a token should; what can't be one is "".
fn said_token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        return Some(text.strip_prefix("Bearer ").unwrap_or_default());
    }
    let value = headers.get("x-api-token")?;
    Some(value.to_str().unwrap_or_default())
}
