//! Sessions: a random secret in a cookie, its hash in the table. One ends after 30 minutes without use, and 12 hours
//! after it began whatever happens.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::{csrf, requests};
use crate::app::App;
use crate::audit::{Actor, ActorKind, Change, record};
use crate::http::Peer;
use crate::store::sessions::{self, Holder, NewSession};

/// Without use.
pub const IDLE: Duration = Duration::from_mins(30);
/// In all.
pub const LIFETIME: Duration = Duration::from_hours(12);
/// Uses closer together than this are one.
const USED: Duration = Duration::from_mins(1);
/// What is kept of a browser's name.
const USER_AGENT_CHARS: usize = 200;
const FORWARDED_FOR: &str = "x-forwarded-for";
/// A page that asks for itself says so: that is no use.
const UNATTENDED: &str = "infratrack-unattended";

/// Over TLS. A browser takes a cookie of this prefix (RFC 6265bis, section 4.1.3.2) only with `Secure`, without
/// `Domain`, and for the whole site, so that no neighbouring name can set it.
const PREFIX_TLS: &str = "__Host-";
const COOKIE: &str = "infratrack";

/// What a session begins with.
#[derive(Clone, Debug)]
pub enum Credential {
    User(Uuid),
    /// A user whom a provider vouches for, and when they proved there who they are.
    Vouched(Uuid, OffsetDateTime),
    Token(String),
}

/// Who a request comes from.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: IpAddr,
    user_agent: String,
}

impl Client {
    /// One that says nothing of itself.
    pub fn local(address: IpAddr) -> Self {
        Self {
            address,
            user_agent: String::new(),
        }
    }

    /// Reads it off a request of the operators' listener.
    pub fn of(app: &App, request: &Request) -> Self {
        let peer = request.extensions().get::<Arc<Peer>>();
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address.ip());
        let proxies = &app.config.operators.forwarded_from;
        let user_agent = request.headers().get(USER_AGENT);
        let user_agent = user_agent.and_then(|value| value.to_str().ok());
        let user_agent = user_agent.unwrap_or_default().chars();
        Self {
            address: forwarded_for(peer.to_canonical(), proxies, request.headers()),
            user_agent: user_agent.take(USER_AGENT_CHARS).collect(),
        }
    }
}

/// Whom the proxies forwarded for: each adds whom it got the request from, so the last that is no proxy is the client.
fn forwarded_for(peer: IpAddr, proxies: &[IpNet], headers: &HeaderMap) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let named: Vec<_> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|address| {
            address
                .trim()
                .parse()
                .map(|address: IpAddr| address.to_canonical())
        })
        .collect();
    let mut client = peer;
    for address in named.into_iter().rev() {
        match address {
            Ok(address) if is_proxy(&client) => client = address,
            _ => break,
        }
    }
    client
}

/// Begins a session in place of the one that the browser may have; answers the cookie to set.
pub async fn begin(
    app: &App,
    credential: &Credential,
    name: &str,
    client: &Client,
    headers: &HeaderMap,
) -> sqlx::Result<String> {
    let secret = hex::encode(rand::random::<[u8; 32]>());
    let now = app.clock.now();
    let (user_id, token_id, authenticated_at) = match credential {
        Credential::User(user_id) => (Some(*user_id), None, now),
        Credential::Vouched(user_id, at) => (Some(*user_id), None, now.min(*at)),
        Credential::Token(token_id) => (None, Some(token_id.as_str()), now),
    };
    let mut transaction = app.pool.begin().await?;
    if let Some(before) = secret_of(app, headers) {
        sessions::delete(&mut transaction, &hash(before)).await?;
    }
    let session = NewSession {
        session_id: Uuid::new_v4(),
        secret_hash: &hash(&secret),
        user_id,
        token_id,
        now,
        authenticated_at,
        expires_at: now + LIFETIME,
        address: client.address.into(),
        user_agent: &client.user_agent,
    };
    sessions::insert(&mut transaction, &session).await?;
    let actor = actor(user_id, token_id, name, client.address);
    let change = Change::new("session.begin", "session", session.session_id);
    record(&mut transaction, &actor, change, now).await?;
    transaction.commit().await?;
    Ok(cookie(app, &secret, LIFETIME))
}

/// Ends the browser's session; answers the cookie that takes its own away.
pub async fn end(app: &App, client: &Client, headers: &HeaderMap) -> sqlx::Result<String> {
    if let Some(secret) = secret_of(app, headers) {
        let now = app.clock.now();
        let mut transaction = app.pool.begin().await?;
        let held = sessions::find_valid(
            &mut transaction,
            &hash(secret),
            client.address.into(),
            now,
            now - IDLE,
        )
        .await?;
        sessions::delete(&mut transaction, &hash(secret)).await?;
        if let Some(held) = held {
            let token = held.token_id.as_deref();
            let actor = actor(held.user_id, token, &held.name, client.address);
            let change = Change::new("session.end", "session", held.session_id);
            record(&mut transaction, &actor, change, now).await?;
        }
        transaction.commit().await?;
    }
    Ok(cookie(app, "", Duration::ZERO))
}

/// Somebody sent a token that is none, or no longer. Of what has not even the form of one nothing is kept.
pub async fn refused(app: &App, token_id: &str, client: &Client) -> sqlx::Result<()> {
    let mut connection = app.pool.acquire().await?;
    let actor = actor(None, Some(token_id), "", client.address);
    let change = Change::new("session.refuse", "token", token_id);
    record(&mut connection, &actor, change, app.clock.now()).await
}

/// For the audit log: who begins or ends a session.
fn actor(user: Option<Uuid>, token: Option<&str>, name: &str, address: IpAddr) -> Actor {
    let (kind, id) = match (user, token) {
        (Some(user), _) => (ActorKind::User, Some(user.to_string())),
        (None, token) => (ActorKind::Token, token.map(ToOwned::to_owned)),
    };
    Actor {
        kind,
        name: name.to_owned(),
        id,
        address: Some(address),
        request_id: Some(requests::current_id()),
        claim: None,
    }
}

/// Whose session the request is of.
pub async fn find(app: &App, headers: &HeaderMap, client: &Client) -> sqlx::Result<Option<Holder>> {
    let Some(secret) = secret_of(app, headers) else {
        return Ok(None);
    };
    let now = app.clock.now();
    let mut connection = app.pool.acquire().await?;
    let found = sessions::find_valid(
        &mut connection,
        &hash(secret),
        client.address.into(),
        now,
        now - IDLE,
    )
    .await?;
    if let Some(holder) = &found
        && now - holder.used_at >= USED
        && !headers.contains_key(UNATTENDED)
    {
        sessions::touch(&mut connection, holder.session_id, now).await?;
    }
    Ok(found)
}

/// Marks a request that a page makes by itself, where the browser can't say so.
pub fn mark_unattended(headers: &mut HeaderMap) {
    headers.insert(UNATTENDED, HeaderValue::from_static("1"));
}

/// What the session's forms have to say.
pub fn csrf(app: &App, headers: &HeaderMap) -> String {
    secret_of(app, headers).map_or_else(String::new, csrf::token)
}

/// The token of the session that this cookie, as set, begins.
pub fn csrf_of(app: &App, set_cookie: &str) -> String {
    let (name, _) = cookie_name(app, COOKIE);
    let value = set_cookie.split(';').next().unwrap_or_default();
    let secret = value.strip_prefix(name.as_str());
    let secret = secret.and_then(|rest| rest.strip_prefix('='));
    secret.map_or_else(String::new, csrf::token)
}

/// Deletes the sessions that are over.
pub async fn sweep(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<()> {
    sessions::delete_over(connection, now, now - IDLE).await?;
    Ok(())
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A cookie's name as browsers are given it, and the attribute that belongs to it. Without TLS, which is on loopback
/// only, neither: not every browser takes `Secure` there.
pub(super) fn cookie_name(app: &App, name: &str) -> (String, &'static str) {
    if app.config.operators.is_https() {
        (format!("{PREFIX_TLS}{name}"), "; Secure")
    } else {
        (name.to_owned(), "")
    }
}

fn cookie(app: &App, secret: &str, lifetime: Duration) -> String {
    let (name, secure) = cookie_name(app, COOKIE);
    let seconds = lifetime.as_secs();
    format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

/// The session's secret among the cookies.
fn secret_of<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    let (name, _) = cookie_name(app, COOKIE);
    cookie_value(headers, &name)
}

/// What the cookie of that name holds.
pub fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(http::header::COOKIE).iter();
    cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(peer: &str, lines: &[&'static str]) -> String {
        let proxies = [
            "127.0.0.0/8".parse().unwrap(),
            "10.0.0.0/24".parse().unwrap(),
        ];
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        forwarded_for(peer.parse().unwrap(), &proxies, &headers).to_string()
    }

    #[test]
    fn only_proxies_are_believed_whom_they_forward_for() {
        assert_eq!(forwarded("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(forwarded("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(forwarded("127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        // What the client said itself stands before what the proxy added.
        assert_eq!(
            forwarded("127.0.0.1", &["203.0.113.9, 198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            forwarded("127.0.0.1", &["203.0.113.9", "198.51.100.7, 10.0.0.3"]),
            "198.51.100.7"
        );
        assert_eq!(
            forwarded("127.0.0.1", &["203.0.113.9, nonsense"]),
            "127.0.0.1"
        );
        assert_eq!(
            forwarded("127.0.0.1", &["::ffff:198.51.100.7"]),
            "198.51.100.7"
        );
    }
}
