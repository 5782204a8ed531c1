//! `infratrack-collector user …`.

use std::io::Read;

use anyhow::{Context, ensure};
use infratrack_collector::audit::{Actor, Change, record};
use infratrack_collector::cli::User;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::{password, user};
use infratrack_collector::roles::Role;
use infratrack_collector::store::{sessions, users};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Changes or lists users.
pub(crate) async fn run(config: &Config, action: User) -> anyhow::Result<()> {
    let pool = super::connect(config).await?;
    let mut transaction = pool.begin().await?;
    let now = Clock::system().now();
    let Some(done) = change(&mut transaction, action, now).await? else {
        return Ok(());
    };
    let name = &done.name;
    ensure!(done.changed == 1, "there is no user {name}");
    sessions::delete_of_user(&mut transaction, name).await?;
    let change = Change {
        after: done.after,
        ..Change::new(done.action, "user", name)
    };
    record(&mut transaction, &Actor::command_line(), change, now).await?;
    transaction.commit().await?;
    if let Some(password) = done.said {
        super::print(&password);
    }
    Ok(())
}

async fn list(connection: &mut PgConnection) -> anyhow::Result<()> {
    for user in users::list(connection).await? {
        let state = if user.disabled_at.is_some() {
            "  disabled"
        } else {
            ""
        };
        super::print(&format!("{}  {}{state}", user.name, user.role));
    }
    Ok(())
}

/// What was done.
struct Done {
    name: String,
    changed: u64,
    /// A password that was made here and is to be shown.
    said: Option<String>,
    /// For the audit log.
    action: &'static str,
    after: Option<serde_json::Value>,
}

async fn change(
    connection: &mut PgConnection,
    action: User,
    now: OffsetDateTime,
) -> anyhow::Result<Option<Done>> {
    let done = |action, name, changed| Done {
        name,
        changed,
        said: None,
        action,
        after: None,
    };
    Ok(Some(match action {
        User::List => {
            list(connection).await?;
            return Ok(None);
        }
        User::Add {
            name,
            role,
            password_stdin,
            must_change,
        } => {
            let name = user::name(&name)?;
            let (secret, said) = new_password(password_stdin)?;
            let new = users::User {
                must_change_password: must_change,
                ..new_user(&name, role_named(&role)?, password::hash(&secret)?, now)
            };
            let made = users::insert(connection, &new, "command line").await?;
            ensure!(made == 1, "there is a user {name} already");
            Done {
                said,
                after: Some(json!({ "role": new.role })),
                ..done("user.create", name, made)
            }
        }
        User::SetPassword {
            name,
            password_stdin,
            must_change,
        } => {
            let name = user::name(&name)?;
            let (secret, said) = new_password(password_stdin)?;
            let hash = password::hash(&secret)?;
            let changed = users::update_password(connection, &name, &hash, must_change).await?;
            Done {
                said,
                ..done("user.set_password", name, changed)
            }
        }
        User::SetRole { name, role } => {
            let name = user::name(&name)?;
            let role = role_named(&role)?;
            let changed = users::update_role(connection, &name, role).await?;
            Done {
                after: Some(json!({ "role": role })),
                ..done("user.set_role", name, changed)
            }
        }
        User::Disable { name } => {
            let name = user::name(&name)?;
            let changed = users::update_disabled(connection, &name, Some(now)).await?;
            done("user.disable", name, changed)
        }
        User::Enable { name } => {
            let name = user::name(&name)?;
            let changed = users::update_disabled(connection, &name, None).await?;
            done("user.enable", name, changed)
        }
    }))
}

fn new_user(
    name: &str,
    role: &'static str,
    password_hash: String,
    now: OffsetDateTime,
) -> users::User {
    users::User {
        user_id: Uuid::new_v4(),
        name: name.to_owned(),
        role: role.to_owned(),
        password_hash: Some(password_hash),
        created_at: now,
        disabled_at: None,
        must_change_password: false,
    }
}

fn role_named(text: &str) -> anyhow::Result<&'static str> {
    let role = Role::parse(text);
    let role = role.with_context(|| {
        format!("{text:?} is no role: there are viewer, operator, lead and admin")
    })?;
    Ok(role.name())
}

/// The password, and once more where it was made here and is to be shown.
fn new_password(from_stdin: bool) -> anyhow::Result<(String, Option<String>)> {
    if !from_stdin {
        // 160 random bits.
        let made = hex::encode(rand::random::<[u8; 20]>());
        return Ok((made.clone(), Some(made)));
    }
    let mut text = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .context("cannot read the password from standard input")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    Ok((password.to_owned(), None))
}
