//! Logging in by a provider of OpenID Connect: a browser is sent there and comes back with a code, which we exchange
//! for who it is.
//!
//! Between the two a row remembers what was begun, for ten minutes, bound to the browser by a cookie and used once.
//! Users are told apart by (issuer, subject) alone: a name never leads to somebody else's account.

mod account;
mod person;
pub mod provider;
mod token;

use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use ipnet::IpNet;
use openidconnect::url::Url;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::App;
use crate::http::network;
use crate::login::session::{self, Client};
use crate::store::oidc_logins::NewLogin;
use crate::store::{oidc_logins, user_identities};
use provider::Provider;
use token::{Expected, TokenError};

/// A login that takes longer has to begin again.
pub const LIFETIME: Duration = Duration::from_mins(10);
/// Logins under way from an address.
pub const AT_MOST: i64 = 20;
/// What is shown of a provider's error.
const CODE_CHARS: usize = 64;
/// Binds a login to its browser. Not `Strict`: it is another site that sends the browser back.
const COOKIE: &str = "infratrack-oidc";

/// Why nobody was logged in, in words for them.
#[derive(Debug, Error)]
pub enum OidcError {
    #[error("Nobody logs in by a provider here.")]
    Off,
    #[error("The login provider can't be reached at the moment. Try again in a minute.")]
    Unavailable,
    #[error("Too many logins were begun from your address. Finish one, or wait ten minutes.")]
    TooMany,
    #[error(
        "This login was begun in another browser, is finished already, or took more than ten minutes. Log in again."
    )]
    State,
    #[error("The answer came from another login provider than the one that was asked.")]
    AnotherProvider,
    #[error("The login provider refused: {0}.")]
    Denied(String),
    #[error("The login provider did not say who you are: {0}.")]
    Exchange(String),
    #[error("What the login provider said of you can't be believed: {0}.")]
    Token(String),
    #[error("You are in none of the groups that may log in here: {0}.")]
    NoRole(String),
    #[error("You may not log in here any more. An administrator disabled your user.")]
    Disabled,
    #[error("You are logged in without the login provider; it can't confirm that it is you.")]
    NotByProvider,
    #[error("You came back from the login provider as somebody else. Log in again.")]
    SomebodyElse,
    #[error("The database did not answer; the collector's log says why.")]
    Database(#[from] sqlx::Error),
}

impl From<TokenError> for OidcError {
    fn from(error: TokenError) -> Self {
        let words = match &error {
            TokenError::Claims(error) => with_causes(error),
            TokenError::Unreadable | TokenError::AnotherParty | TokenError::NotYet => {
                error.to_string()
            }
        };
        Self::Token(words)
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

impl OidcError {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Off => StatusCode::NOT_FOUND,
            Self::Unavailable | Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::State | Self::AnotherProvider => StatusCode::BAD_REQUEST,
            Self::Exchange(_) => StatusCode::BAD_GATEWAY,
            Self::Denied(_)
            | Self::Token(_)
            | Self::NoRole(_)
            | Self::Disabled
            | Self::NotByProvider
            | Self::SomebodyElse => StatusCode::FORBIDDEN,
        }
    }
}

/// A login that was begun.
#[derive(Debug)]
pub struct Begun {
    /// At the provider.
    pub url: Url,
    pub cookie: String,
}

/// What a browser comes back with.
#[derive(Clone, Debug, Default)]
pub struct Return {
    pub state: String,
    pub code: String,
    pub error: String,
    pub iss: Option<String>,
}

/// A login that came to its end.
#[derive(Debug)]
pub struct Finished {
    pub user_id: Uuid,
    pub name: String,
    /// When they proved to the provider who they are: its own session may be old.
    pub authenticated_at: OffsetDateTime,
    /// Where to go on, here.
    pub next: String,
    /// The session that the browser had before.
    pub session_id: Option<Uuid>,
}

fn provider(app: &App) -> Result<&Provider, OidcError> {
    app.oidc.as_deref().ok_or(OidcError::Off)
}

/// Begins a login. `again`: the session's user has to prove once more who they are.
pub async fn begin(
    app: &App,
    client: &Client,
    headers: &HeaderMap,
    again: bool,
    next: Option<&str>,
) -> Result<Begun, OidcError> {
    let provider = provider(app)?;
    let holder = session::find(app, headers, client).await?;
    let mut connection = app.pool.acquire().await?;
    let mut expected_user = None;
    if again {
        let user_id = holder.as_ref().and_then(|holder| holder.user_id);
        let user_id = user_id.ok_or(OidcError::NotByProvider)?;
        if !user_identities::exists(&mut connection, user_id).await? {
            return Err(OidcError::NotByProvider);
        }
        expected_user = Some(user_id);
    }
    let sent = provider.send(again)?;
    let browser = hex::encode(rand::random::<[u8; 32]>());
    let now = app.clock.now();
    let login = NewLogin {
        state_hash: &hash(&sent.state),
        browser_hash: &hash(&browser),
        nonce: &sent.nonce,
        pkce_verifier: &sent.pkce_verifier,
        next: next.and_then(local_path).unwrap_or("/hosts"),
        user_id: expected_user,
        session_id: holder.map(|holder| holder.session_id),
        address: IpNet::from(network(client.address)),
        created_at: now,
    };
    let stored = oidc_logins::insert(&mut connection, &login, now - LIFETIME, AT_MOST).await?;
    if stored == 0 {
        return Err(OidcError::TooMany);
    }
    Ok(Begun {
        url: sent.url,
        cookie: cookie(app, &browser, LIFETIME),
    })
}

/// Finishes the login that a browser comes back from.
pub async fn finish(
    app: &App,
    client: &Client,
    headers: &HeaderMap,
    back: &Return,
) -> Result<Finished, OidcError> {
    let provider = provider(app)?;
    let (name, _) = session::cookie_name(app, COOKIE);
    let browser = session::cookie_value(headers, &name).ok_or(OidcError::State)?;
    let now = app.clock.now();
    let login = {
        let mut connection = app.pool.acquire().await?;
        let (state, browser) = (hash(&back.state), hash(browser));
        oidc_logins::take(&mut connection, &state, &browser, now - LIFETIME).await?
    };
    let login = login.ok_or(OidcError::State)?;
    provider.check_sender(back.iss.as_deref())?;
    if !back.error.is_empty() || back.code.is_empty() {
        return Err(OidcError::Denied(reason(&back.error)));
    }
    let expected = Expected {
        nonce: &login.nonce,
        begun_at: login.created_at,
        now,
        again: login.user_id.is_some(),
    };
    let claims = provider
        .redeem(&back.code, &login.pkce_verifier, &expected)
        .await?;
    let config = &provider.config;
    let subject = claims.get("sub").and_then(serde_json::Value::as_str);
    let subject = subject.ok_or_else(|| OidcError::Token("it names nobody (sub)".to_owned()))?;
    let role = person::role(&claims, config).map_err(OidcError::NoRole)?;
    let name = person::name(&claims, config);
    let name = name.ok_or_else(|| OidcError::Token("it has no name for you".to_owned()))?;
    let who = account::Who {
        issuer: provider.issuer(),
        subject,
        name: &name,
        role,
        address: client.address,
    };
    let (user_id, name) = account::of(app, &who, now).await?;
    if login.user_id.is_some_and(|expected| expected != user_id) {
        return Err(OidcError::SomebodyElse);
    }
    let auth_time = claims.get("auth_time").and_then(serde_json::Value::as_i64);
    let auth_time = auth_time.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    Ok(Finished {
        user_id,
        name,
        // A provider that does not say is asked where it matters.
        authenticated_at: auth_time.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        next: login.next,
        session_id: login.session_id,
    })
}

/// A provider's error in plain words. What it says beyond the code is not shown: a link may bring anything.
fn reason(code: &str) -> String {
    let words = match code {
        "access_denied" => "you declined, or may not use Infratrack",
        "login_required" | "interaction_required" | "account_selection_required" => {
            "you have to log in there first"
        }
        "consent_required" => "you did not allow it to say who you are",
        "temporarily_unavailable" | "server_error" => "it has a fault at the moment",
        "unauthorized_client" | "invalid_scope" | "invalid_request" => {
            "it does not know Infratrack as it is configured"
        }
        "" => "it gave no reason",
        _ => {
            let plain = code.chars().take(CODE_CHARS);
            let is_plain = plain.clone().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if is_plain {
                format!("its reason is {}", plain.collect::<String>())
            } else {
                "it gave no reason".to_owned()
            };
        }
    };
    words.to_owned()
}

/// The cookie that binds a login to its browser.
pub fn cookie(app: &App, value: &str, lifetime: Duration) -> String {
    let (name, secure) = session::cookie_name(app, COOKIE);
    let seconds = lifetime.as_secs();
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
}

/// A path of our own, which no browser takes for somebody else's address.
pub fn local_path(text: &str) -> Option<&str> {
    let is_path = text.starts_with('/')
        && !text.starts_with("//")
        && text.len() <= 512
        && text
            .chars()
            .all(|char| char.is_ascii_graphic() && char != '\\');
    let base = Url::parse("https://here.invalid").ok()?;
    let joined = base.join(text).ok()?;
    (is_path && joined.origin() == base.origin()).then_some(text)
}

/// Deletes logins that took too long.
pub async fn sweep(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<()> {
    oidc_logins::delete_before(connection, now - LIFETIME).await?;
    Ok(())
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_our_own_are_gone_on_to() {
        for ours in [
            "/",
            "/hosts",
            "/hosts?q=a%2Fb&x=1",
            "/a//b",
            "/%2F%2Fevil.example",
        ] {
            assert_eq!(local_path(ours), Some(ours));
        }
        for other in [
            "",
            "hosts",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "https://evil.example",
            "https:/evil.example",
            "javascript:alert(1)",
            "%2F%2Fevil.example",
            "/ä",
            " /hosts",
        ] {
            assert_eq!(local_path(other), None, "{other:?}");
        }
        assert_eq!(local_path(&format!("/{}", "x".repeat(512))), None);
    }

    #[test]
    fn a_providers_error_is_words_and_never_markup() {
        assert!(reason("access_denied").contains("declined"));
        assert_eq!(reason("some_code"), "its reason is some_code");
        assert_eq!(reason("<script>"), "it gave no reason");
        assert!(reason(&"x".repeat(1000)).len() < 100);
    }
}
