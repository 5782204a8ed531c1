//! The first user: a link that works once, while there is no user, and for an hour. `serve` prints it.

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::Duration;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Actor, Change};
use crate::roles::Role;
use crate::store::{setup_links, users};

/// How long a link works.
pub const LIFETIME: Duration = Duration::hours(1);

/// Makes a link, where there is no user; answers its path.
pub async fn link(app: &App) -> sqlx::Result<Option<String>> {
    let mut transaction = app.pool.begin().await?;
    if users::count(&mut transaction).await? > 0 {
        return Ok(None);
    }
    let secret = hex::encode(rand::random::<[u8; 32]>());
    let now = app.clock.now();
    setup_links::delete_expired(&mut transaction, now).await?;
    setup_links::insert(&mut transaction, &hash(&secret), now, now + LIFETIME).await?;
    transaction.commit().await?;
    Ok(Some(format!("/setup?token={secret}")))
}

/// Whether a link would still work.
pub async fn is_open(app: &App, secret: &str) -> sqlx::Result<bool> {
    let mut connection = app.pool.acquire().await?;
    is_valid(app, &mut connection, secret).await
}

async fn is_valid(app: &App, connection: &mut PgConnection, secret: &str) -> sqlx::Result<bool> {
    let known = setup_links::is_valid(connection, &hash(secret), app.clock.now()).await?;
    Ok(known && users::count(connection).await? == 0)
}

/// Makes the first user, an admin, and every link worthless. `false`: the link was.
pub async fn first_user(
    app: &App,
    secret: &str,
    name: &str,
    password_hash: String,
    actor: &Actor,
) -> sqlx::Result<bool> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    users::lock(&mut transaction).await?;
    if !is_valid(app, &mut transaction, secret).await? {
        return Ok(false);
    }
    let user = users::User {
        user_id: Uuid::new_v4(),
        name: name.to_owned(),
        role: Role::Admin.name().to_owned(),
        password_hash: Some(password_hash),
        created_at: now,
        disabled_at: None,
        must_change_password: false,
    };
    users::insert(&mut transaction, &user, "setup link").await?;
    setup_links::delete_all(&mut transaction).await?;
    let change = Change::new("user.create", "user", name)
        .after(serde_json::json!({"role": user.role, "by": "setup link"}));
    audit::record(&mut transaction, actor, change, now).await?;
    transaction.commit().await?;
    Ok(true)
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}
