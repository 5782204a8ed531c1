//! Logging in: names and passwords, what slows guessing down, and the sessions that begin with it.
//!
//! Called by the login page and the command line. Who is calling a route is found out by `api::auth`.

pub mod fixed_token;
pub mod lockout;
pub mod oidc;
pub mod password;
pub mod proxy;
pub mod session;
pub mod setup;
pub mod token;
pub mod user;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api::requests;
use crate::app::App;
use crate::audit::{Actor, ActorKind, Change, record};
use crate::config::Config;
use crate::login::fixed_token::FixedTokens;
use crate::login::oidc::provider::Provider;
use crate::login::password::PasswordError;
use crate::login::proxy::TrustedProxy;
use crate::store::users;

/// Passwords that are checked at once: each takes a processor and 19 MiB for a moment.
const AT_ONCE: usize = 2;
/// How long a check waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// Turns for checking passwords.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Turns {
    /// The hash of a new password; `None`: too many wait.
    pub async fn hash(&self, password: String) -> Option<Result<String, PasswordError>> {
        let _turn = timeout(TURN, self.0.acquire()).await.ok()?.ok()?;
        tokio::task::spawn_blocking(move || password::hash(&password))
            .await
            .ok()
    }
}

/// Who is believed without a row in the database.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub fixed_tokens: FixedTokens,
    pub proxy: TrustedProxy,
    /// Who else logs people in.
    pub oidc: Option<Arc<Provider>>,
}

impl Trust {
    /// Reads the secrets it rests on; one that is missing is an error with its name.
    pub async fn load(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            fixed_tokens: FixedTokens::load(&config.operators).await?,
            proxy: TrustedProxy::load(&config.operators).await?,
            oidc: Provider::open(config).await?,
        })
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Attempt {
    /// That is them.
    User(users::User),
    /// There is no such user, or the password is another, or they may not log in.
    Refused,
    /// Too many attempts failed, or too many are under way.
    Later(Duration),
}

/// Checks a name and a password. Whether there is such a user shows neither in the answer nor in the time it takes.
pub async fn attempt(
    app: &App,
    name: &str,
    password: &str,
    address: IpAddr,
) -> sqlx::Result<Attempt> {
    let name = name.trim().to_lowercase();
    let mut connection = app.pool.acquire().await?;
    let now = app.clock.now();
    let subjects = lockout::subjects(&name, address);
    if let Some(wait) = lockout::wait(&mut connection, &subjects, now).await? {
        return Ok(Attempt::Later(wait));
    }
    // What is no name is nobody's.
    let user = match user::name(&name) {
        Ok(name) => users::find(&mut connection, &name).await?,
        Err(_) => None,
    };
    // The check takes its time, and connections are few.
    drop(connection);
    let Ok(Ok(_turn)) = timeout(TURN, app.password_turns.0.acquire()).await else {
        return Ok(Attempt::Later(TURN));
    };
    let hash = user.as_ref().and_then(|user| user.password_hash.clone());
    let password = password.to_owned();
    let checked =
        tokio::task::spawn_blocking(move || password::matches(&password, hash.as_deref()));
    let matches = checked.await.unwrap_or(false);
    let found = user.filter(|user| matches && user.disabled_at.is_none());
    let mut connection = app.pool.acquire().await?;
    let Some(user) = found else {
        drop(connection);
        let mut transaction = app.pool.begin().await?;
        lockout::failed(&mut transaction, &subjects, now).await?;
        let actor = Actor {
            kind: ActorKind::User,
            name: name.clone(),
            id: None,
            address: Some(address),
            request_id: Some(requests::current_id()),
            claim: None,
        };
        let change = Change::new("session.refuse", "user", name);
        record(&mut transaction, &actor, change, now).await?;
        transaction.commit().await?;
        return Ok(Attempt::Refused);
    };
    lockout::forget(&mut connection, &subjects).await?;
    Ok(Attempt::User(user))
}
