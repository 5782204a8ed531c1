//! API tokens, `it_<id>_<secret>_<crc>`: 8 and 32 random bytes and the CRC-32C of all before it, in hexadecimal digits.
//! The prefix lets scanners find one that leaked, the checksum lets a typo be told without the database.

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq;
use time::{Duration, OffsetDateTime};

use crate::app::App;
use crate::audit::ActorKind;
use crate::caller::Caller;
use crate::roles::{Role, Scope};
use crate::store::api_tokens;

/// The longest that a token is valid.
pub const MAX_LIFETIME: Duration = Duration::days(365);
/// How long where nobody said.
pub const LIFETIME: Duration = Duration::days(90);
/// Uses closer together than this are one.
const USED: Duration = Duration::minutes(1);

/// What a token is to allow.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub name: String,
    pub role: Option<Role>,
    pub scopes: Vec<Scope>,
    pub cidr: Option<IpNet>,
    /// Whose runs alone it may post.
    pub repository: Option<String>,
    pub lifetime: Duration,
    pub created_by: String,
}

impl NewToken {
    /// With this role, for the usual time, from anywhere.
    pub fn of_role(name: &str, role: Role, created_by: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: Some(role),
            scopes: Vec::new(),
            cidr: None,
            repository: None,
            lifetime: LIFETIME,
            created_by: created_by.to_owned(),
        }
    }
}

/// Makes a token; its text can be shown only now. Answers id and text.
pub async fn create(
    connection: &mut PgConnection,
    new: &NewToken,
    now: OffsetDateTime,
) -> sqlx::Result<(String, String)> {
    let id = hex::encode(rand::random::<[u8; 8]>());
    let secret = hex::encode(rand::random::<[u8; 32]>());
    let scopes: Vec<_> = new
        .scopes
        .iter()
        .map(|scope| scope.name().to_owned())
        .collect();
    let row = api_tokens::NewToken {
        token_id: &id,
        name: &new.name,
        secret_hash: &Sha256::digest(&secret),
        role: new.role.map(Role::name),
        scopes: &scopes,
        cidr: new.cidr,
        repository: new.repository.as_deref(),
        created_at: now,
        created_by: &new.created_by,
        expires_at: now + new.lifetime.min(MAX_LIFETIME),
    };
    api_tokens::insert(connection, &row).await?;
    let body = format!("it_{id}_{secret}");
    let text = format!("{body}_{:08x}", crc32c::crc32c(body.as_bytes()));
    Ok((id, text))
}

/// The caller that a token names, where it may come from that address.
pub async fn find(app: &App, token: &str, address: IpAddr) -> sqlx::Result<Option<Caller>> {
    let Some((id, secret)) = parse(token) else {
        return Ok(None);
    };
    let (now, from) = (app.clock.now(), IpNet::from(address));
    let mut connection = app.pool.acquire().await?;
    let row = api_tokens::find_valid(&mut connection, id, from, now).await?;
    let hash = Sha256::digest(secret);
    let valid = row.filter(|row| bool::from(row.secret_hash.ct_eq(&hash[..])));
    let Some(row) = valid else { return Ok(None) };
    if row.last_used_at.is_none_or(|at| now - at >= USED) {
        api_tokens::touch(&mut connection, id, from, now).await?;
    }
    let scopes: Vec<_> = row
        .scopes
        .iter()
        .filter_map(|name| Scope::parse(name))
        .collect();
    Ok(Some(Caller {
        kind: ActorKind::Token,
        id: id.to_owned(),
        name: row.name,
        role: role(row.role.as_deref(), &scopes),
        scopes,
        repository: row.repository,
        address,
        session: None,
    }))
}

/// The role by its name, or the one that comes with a scope.
pub fn role(name: Option<&str>, scopes: &[Scope]) -> Option<Role> {
    let of_scopes = scopes.iter().filter_map(|scope| scope.role()).max();
    name.and_then(Role::parse).max(of_scopes)
}

/// Id and secret of a token whose checksum is right.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (body, crc) = token.trim().rsplit_once('_')?;
    let (id, secret) = body.strip_prefix("it_")?.split_once('_')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(body.as_bytes())).then_some((id, secret))
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
