//! Who is calling: an API token as `Authorization: Bearer` or `X-API-TOKEN`, or a browser's session.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq;

use crate::api::problem::Problem;
use crate::api::requests::Answered;
use crate::app::App;
use crate::login::session;
use crate::roles::{Access, Role};
use crate::store::api_tokens;

/// What stands before a route.
#[derive(Clone)]
pub struct Guard {
    pub app: Arc<App>,
    pub route: &'static str,
    pub access: Access,
}

impl Guard {
    /// Not for people with a browser.
    fn is_for_programs(&self) -> bool {
        self.route.starts_with("/api/") || self.route == "/metrics"
    }
}

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    pub name: String,
    pub role: Role,
}

/// Lets a request through whose caller may; the handler finds the [`Caller`] in its extensions.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut known = None;
    let done = guarded(&guard, &mut known, request, next).await;
    let mut response = done.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(Answered {
        route: guard.route,
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
    same_origin(request.method(), request.headers())?;
    let Access::Role(needed) = guard.access else {
        return Ok(next.run(request).await);
    };
    *known = caller(&guard.app, request.headers()).await?;
    match known {
        Some(caller) if caller.role >= needed => {
            request.extensions_mut().insert(caller.clone());
            Ok(next.run(request).await)
        }
        Some(caller) => {
            let detail = format!(
                "this needs the role {}; {} has {}",
                needed.name(),
                caller.name,
                caller.role.name()
            );
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
        }
        None if guard.is_for_programs() => {
            let detail = "send a valid API token as Authorization: Bearer or X-API-TOKEN";
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                detail,
            ))
        }
        None => Ok(Redirect::to("/login").into_response()),
    }
}

/// The caller that the request's token or session names; `None` without a valid one.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
    if let Some(token) = token(headers) {
        return find(app, token).await;
    }
    let held = session::find(app, headers).await?;
    Ok(held.and_then(|held| {
        Some(Caller {
            role: Role::parse(&held.role)?,
            name: held.name,
        })
    }))
}

/// The caller that a token names.
pub async fn find(app: &App, token: &str) -> Result<Option<Caller>, Problem> {
    let Some((id, secret)) = parse(token) else {
        return Ok(None);
    };
    let mut connection = app.pool.acquire().await?;
    let row = api_tokens::find_valid(&mut connection, id, app.clock.now()).await?;
    let hash = Sha256::digest(secret);
    let valid = row.filter(|row| bool::from(row.secret_hash.ct_eq(&hash[..])));
    Ok(valid.and_then(|row| {
        Some(Caller {
            name: row.name,
            role: Role::parse(&row.role)?,
        })
    }))
}

/// Makes a token `it_<id>_<secret>_<crc>`; it can be shown only now.
pub async fn create_token(
    connection: &mut PgConnection,
    name: &str,
    role: &str,
    now: time::OffsetDateTime,
) -> sqlx::Result<String> {
    let (id, secret) = (
        hex::encode(rand::random::<[u8; 8]>()),
        hex::encode(rand::random::<[u8; 32]>()),
    );
    api_tokens::insert(connection, &id, name, &Sha256::digest(&secret), role, now).await?;
    let body = format!("it_{id}_{secret}");
    Ok(format!("{body}_{:08x}", crc32c::crc32c(body.as_bytes())))
}

/// Id and secret of a token whose checksum is right.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (body, crc) = token.trim().rsplit_once('_')?;
    let (id, secret) = body.strip_prefix("it_")?.split_once('_')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(body.as_bytes())).then_some((id, secret))
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    if let Some(bearer) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
    {
        return bearer.strip_prefix("Bearer ");
    }
    text("x-api-token")
}

/// A browser says where an unsafe request comes from; from elsewhere it is refused.
fn same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN).filter(|_| !method.is_safe()) else {
        return Ok(());
    };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if origin.map(|(_, host)| host) == host {
        return Ok(());
    }
    let detail = "this request came from another site's page";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_a_typo_is_refused_before_the_database() {
        let body = "it_0011223344556677_aabb";
        let token = format!("{body}_{:08x}", crc32c::crc32c(body.as_bytes()));
        assert_eq!(parse(&token), Some(("0011223344556677", "aabb")));
        assert_eq!(parse(&token.replace("aabb", "aabc")), None);
        assert_eq!(parse("nonsense"), None);
    }
}
