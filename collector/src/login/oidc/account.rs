//! The user that somebody is here, told by (issuer, subject) and nothing else; made at their first login.

use std::net::IpAddr;

use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{OidcError, person};
use crate::api::requests;
use crate::app::App;
use crate::audit::{self, Actor, ActorKind, Change};
use crate::roles::Role;
use crate::store::users::User;
use crate::store::{user_identities, users};

/// Of users with the same name.
const NAMESAKES: u32 = 99;

/// Somebody whom the provider vouches for.
pub(super) struct Who<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) address: IpAddr,
}

impl Who<'_> {
    /// Adds to the audit log what a login changed: by them, and by what the provider says of them.
    async fn record(
        &self,
        connection: &mut PgConnection,
        (user_id, name): (Uuid, &str),
        role_before: Option<&str>,
        now: OffsetDateTime,
    ) -> sqlx::Result<()> {
        let actor = Actor {
            kind: ActorKind::User,
            name: name.to_owned(),
            id: Some(user_id.to_string()),
            address: Some(self.address),
            request_id: Some(requests::current_id()),
            claim: None,
        };
        let after = json!({
            "name": name, "role": self.role.name(), "issuer": self.issuer, "subject": self.subject,
        });
        let change = Change {
            action: if role_before.is_some() {
                "user.update"
            } else {
                "user.create"
            },
            subject_kind: "user",
            subject_id: name.to_owned(),
            before: role_before.map(|role| json!({ "role": role })),
            after: Some(after),
        };
        audit::record(connection, &actor, change, now).await
    }
}

/// The user they are here and what they are called, with the role that they have by this login; made where it is their first.
pub(super) async fn of(
    app: &App,
    who: &Who<'_>,
    now: OffsetDateTime,
) -> Result<(Uuid, String), OidcError> {
    // A second round finds the user whom another login of theirs made at the same time.
    for _ in 0..2 {
        let mut transaction = app.pool.begin().await?;
        let known = user_identities::find(&mut transaction, who.issuer, who.subject).await?;
        let user = match known {
            Some(known) if known.disabled_at.is_some() => return Err(OidcError::Disabled),
            Some(known) => {
                let user = (known.user_id, known.name.as_str());
                if known.role != who.role.name() {
                    users::update_role_of(&mut transaction, known.user_id, who.role.name()).await?;
                    who.record(&mut transaction, user, Some(&known.role), now)
                        .await?;
                }
                user_identities::touch(&mut transaction, known.user_id, now).await?;
                Some((known.user_id, known.name))
            }
            None => made(&mut transaction, who, now).await?,
        };
        if let Some(user) = user {
            transaction.commit().await?;
            return Ok(user);
        }
    }
    Err(OidcError::Token("too many users have your name".to_owned()))
}

/// Makes the user, under a name that nobody has; `None` where that can't be.
async fn made(
    connection: &mut PgConnection,
    who: &Who<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<Option<(Uuid, String)>> {
    let mut user = User {
        user_id: Uuid::new_v4(),
        name: who.name.to_owned(),
        role: who.role.name().to_owned(),
        password_hash: None,
        created_at: now,
        disabled_at: None,
        must_change_password: false,
    };
    let mut n = 1;
    while users::insert(connection, &user, "login provider").await? == 0 {
        n += 1;
        if n > NAMESAKES {
            return Ok(None);
        }
        user.name = person::numbered(who.name, n);
    }
    let linked =
        user_identities::insert(connection, who.issuer, who.subject, user.user_id, now).await?;
    who.record(connection, (user.user_id, &user.name), None, now)
        .await?;
    Ok((linked == 1).then_some((user.user_id, user.name)))
}
