//! What the signed log of the CA lacks, and what the tables lack of the log.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::agent_certs::NewCert;

/// A certificate of which something is not in the log, with its host.
#[derive(Clone, Debug)]
pub struct UnloggedRow {
    pub serial: Vec<u8>,
    pub certificate: Vec<u8>,
    pub issued_at: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub token_id: Option<String>,
    pub revoked_at: Option<OffsetDateTime>,
    pub revoked_by: Option<String>,
    pub revoked_reason: Option<String>,
    pub issue_logged: bool,
    pub revocation_logged: bool,
    pub host_id: Uuid,
    pub name: String,
    pub machine_id: Option<String>,
    pub tags: Vec<String>,
    pub created_at: OffsetDateTime,
}

/// A revocation that the log knows of.
#[derive(Clone, Copy, Debug)]
pub struct Revocation<'a> {
    pub serial: &'a [u8],
    pub revoked_at: OffsetDateTime,
    pub by: &'a str,
    pub reason: &'a str,
}

/// The oldest certificates of which the issuance or the revocation is not in the log.
pub async fn list_unlogged(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<UnloggedRow>> {
    sqlx::query_as!(
        UnloggedRow,
        r#"select c.serial, c.certificate, c.issued_at, c.not_after, c.token_id, c.revoked_at, c.revoked_by,
             c.revoked_reason, c.issue_logged_at is not null as "issue_logged!",
             c.revocation_logged_at is not null as "revocation_logged!",
             h.host_id, h.name, h.machine_id, h.tags, h.created_at
         from agent_certs c join hosts h using (host_id)
         where c.issue_logged_at is null or (c.revoked_at is not null and c.revocation_logged_at is null)
         order by c.issued_at limit $1"#,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// These issuances are in the log. Rows that somebody has locked are left for another time, so that this
/// never waits for a row while it holds others.
pub async fn update_issue_logged(
    connection: &mut PgConnection,
    serials: &[Vec<u8>],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_certs set issue_logged_at = $2 where serial in (
             select serial from agent_certs where serial = any($1) order by serial for update skip locked)",
        serials,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// These revocations are in the log; see [`update_issue_logged`].
pub async fn update_revocation_logged(
    connection: &mut PgConnection,
    serials: &[Vec<u8>],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_certs set revocation_logged_at = $2 where serial in (
             select serial from agent_certs where serial = any($1) order by serial for update skip locked)",
        serials,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Which of `serials` the tables know, and whether as revoked.
pub async fn list_known(
    connection: &mut PgConnection,
    serials: &[Vec<u8>],
) -> sqlx::Result<Vec<(Vec<u8>, bool)>> {
    let rows = sqlx::query!(
        r#"select serial, revoked_at is not null as "revoked!" from agent_certs where serial = any($1)"#,
        serials,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.serial, row.revoked))
        .collect())
}

/// Whether the tables know this host.
pub async fn host_exists(connection: &mut PgConnection, host: HostId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from hosts where host_id = $1) as "exists!""#,
        host.0
    )
    .fetch_one(connection)
    .await
}

/// Makes a host that the log tells of, where it is missing.
pub async fn insert_host(
    connection: &mut PgConnection,
    host: HostId,
    name: &str,
    machine_id: Option<&str>,
    tags: &[String],
    created_at: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with host as (
             insert into hosts (host_id, name, machine_id, tags, created_at) values ($1, $2, $3, $4, $5)
             on conflict do nothing returning host_id
         )
         insert into host_liveness (host_id) select host_id from host",
        host.0,
        name,
        machine_id,
        tags,
        created_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Enters a certificate that the log tells of, where it is missing.
pub async fn insert_certificate(
    connection: &mut PgConnection,
    cert: &NewCert<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, token_id,
             issue_logged_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (serial) do nothing",
        cert.serial,
        cert.host.0,
        cert.spki_sha256,
        cert.certificate,
        cert.issued_at,
        cert.not_after,
        cert.token_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Revokes a certificate that the log tells is revoked.
pub async fn update_revoked(
    connection: &mut PgConnection,
    revocation: Revocation<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_certs set revoked_at = $2, revoked_by = $3, revoked_reason = $4,
             revocation_stored_at = $5, revocation_logged_at = $5
         where serial = $1 and revoked_at is null",
        revocation.serial,
        revocation.revoked_at,
        revocation.by,
        revocation.reason,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
