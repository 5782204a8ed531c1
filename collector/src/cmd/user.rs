//! `infratrack-collector user …`.

use std::io::Read;

use anyhow::{Context, ensure};
use infratrack_collector::cli::User;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::{password, user};
use infratrack_collector::roles::Role;
use infratrack_collector::store::{sessions, users};
use uuid::Uuid;

/// Changes or lists users.
pub(crate) async fn run(config: &Config, action: User) -> anyhow::Result<()> {
    let pool = super::connect(config).await?;
    let mut transaction = pool.begin().await?;
    let now = Clock::system().now();
    let (name, changed, said) = match action {
        User::List => {
            for user in users::list(&mut transaction).await? {
                let state = if user.disabled_at.is_some() {
                    "  disabled"
                } else {
                    ""
                };
                super::print(&format!("{}  {}{state}", user.name, user.role));
            }
            return Ok(());
        }
        User::Add {
            name,
            role,
            password_stdin,
        } => {
            let name = user::name(&name)?;
            let (secret, said) = new_password(password_stdin)?;
            let new = users::User {
                user_id: Uuid::new_v4(),
                name: name.clone(),
                role: role_named(&role)?.to_owned(),
                password_hash: password::hash(&secret)?,
                created_at: now,
                disabled_at: None,
            };
            let made = users::insert(&mut transaction, &new, "command line").await?;
            ensure!(made == 1, "there is a user {name} already");
            (name, made, said)
        }
        User::SetPassword {
            name,
            password_stdin,
        } => {
            let name = user::name(&name)?;
            let (secret, said) = new_password(password_stdin)?;
            let hash = password::hash(&secret)?;
            let changed = users::update_password(&mut transaction, &name, &hash).await?;
            (name, changed, said)
        }
        User::SetRole { name, role } => {
            let name = user::name(&name)?;
            let changed = users::update_role(&mut transaction, &name, role_named(&role)?).await?;
            (name, changed, None)
        }
        User::Disable { name } => {
            let name = user::name(&name)?;
            let changed = users::update_disabled(&mut transaction, &name, Some(now)).await?;
            (name, changed, None)
        }
        User::Enable { name } => {
            let name = user::name(&name)?;
            let changed = users::update_disabled(&mut transaction, &name, None).await?;
            (name, changed, None)
        }
    };
    ensure!(changed == 1, "there is no user {name}");
    sessions::delete_of_user(&mut transaction, &name).await?;
    transaction.commit().await?;
    if let Some(password) = said {
        super::print(&password);
    }
    Ok(())
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
