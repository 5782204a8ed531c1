//! The positive list of issued certificates, and which of them are revoked.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// The channel on which collectors tell each other of a revocation; the payload is empty.
pub const CHANNEL: &str = "infratrack_revocations";

/// A certificate to enter in the list.
#[derive(Clone, Debug)]
pub struct NewCert<'a> {
    pub serial: &'a [u8],
    pub host: HostId,
    pub spki_sha256: &'a [u8],
    /// DER.
    pub certificate: &'a [u8],
    pub issued_at: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub token_id: Option<&'a str>,
}

/// A certificate of the list.
#[derive(Clone, Debug)]
pub struct CertRow {
    pub host_id: uuid::Uuid,
    pub certificate: Vec<u8>,
    pub not_after: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
}

/// Enters a certificate.
pub async fn insert(connection: &mut PgConnection, cert: &NewCert<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, token_id)
         values ($1, $2, $3, $4, $5, $6, $7)",
        cert.serial,
        cert.host.0,
        cert.spki_sha256,
        cert.certificate,
        cert.issued_at,
        cert.not_after,
        cert.token_id,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The certificate with this serial.
pub async fn find(connection: &mut PgConnection, serial: &[u8]) -> sqlx::Result<Option<CertRow>> {
    sqlx::query_as!(
        CertRow,
        "select host_id, certificate, not_after, revoked_at from agent_certs where serial = $1",
        serial
    )
    .fetch_optional(connection)
    .await
}

/// The newest certificate for a public key.
pub async fn find_by_key(
    connection: &mut PgConnection,
    spki_sha256: &[u8],
) -> sqlx::Result<Option<CertRow>> {
    sqlx::query_as!(
        CertRow,
        "select host_id, certificate, not_after, revoked_at from agent_certs
         where spki_sha256 = $1 order by issued_at desc limit 1",
        spki_sha256
    )
    .fetch_optional(connection)
    .await
}

/// The newest certificate that works of each host that was seen since `seen_since`, by host, one page.
pub async fn list_newest(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    seen_since: OffsetDateTime,
    after: Option<HostId>,
    limit: i64,
) -> sqlx::Result<Vec<(HostId, Vec<u8>)>> {
    let rows = sqlx::query!(
        "select distinct on (c.host_id) c.host_id, c.certificate
         from agent_certs c join hosts h using (host_id) join host_liveness l using (host_id)
         where c.revoked_at is null and c.not_after > $1 and h.retired_at is null and l.last_seen_at >= $2
           and ($3::uuid is null or c.host_id > $3)
         order by c.host_id, c.issued_at desc limit $4",
        now,
        seen_since,
        after.map(|host| host.0),
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (HostId(row.host_id), row.certificate))
        .collect())
}

/// Serials revoked, or learned to be revoked, since `since`, with their hosts.
pub async fn list_revoked(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<Vec<(Vec<u8>, HostId)>> {
    let rows = sqlx::query!(
        "select serial, host_id from agent_certs where revocation_stored_at >= $1 or revoked_at >= $1",
        since
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.serial, HostId(row.host_id)))
        .collect())
}

/// Revokes every certificate of `host` that is not revoked yet.
pub async fn revoke(
    connection: &mut PgConnection,
    host: HostId,
    by: &str,
    reason: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_certs set revoked_at = $2, revocation_stored_at = $2, revoked_by = $3, revoked_reason = $4
         where host_id = $1 and revoked_at is null",
        host.0,
        now,
        by,
        reason,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Revokes every certificate of `hosts` that is not revoked yet.
pub async fn revoke_all(
    connection: &mut PgConnection,
    hosts: &[uuid::Uuid],
    by: &str,
    reason: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_certs set revoked_at = $2, revocation_stored_at = $2, revoked_by = $3, revoked_reason = $4
         where host_id = any($1) and revoked_at is null",
        hosts,
        now,
        by,
        reason,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Tells every collector, when the transaction commits, to look for revocations.
pub async fn notify_revoked(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_notify($1, '')", CHANNEL)
        .fetch_one(connection)
        .await
        .map(drop)
}

/// Removes certificates that expired before `before`.
pub async fn delete_expired(
    connection: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from agent_certs where not_after < $1", before)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// A certificate as it is listed.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Certificate)]
pub struct CertificateRow {
    /// In hexadecimal digits.
    pub serial: String,
    pub host_id: uuid::Uuid,
    pub host_name: String,
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    pub revoked_by: Option<String>,
    pub revoked_reason: Option<String>,
}

/// Which certificates.
#[derive(Clone, Debug)]
pub struct CertificateFilter {
    pub host_id: Option<uuid::Uuid>,
    /// `valid`, `expiring` (valid for no more than two weeks), `expired` or `revoked`, at `now`.
    pub state: Option<String>,
    /// A part of the host's name.
    pub host_name: Option<String>,
    pub serial: Option<Vec<u8>>,
    pub now: OffsetDateTime,
}

/// Certificates, newest first, from before the time and serial.
pub async fn list(
    connection: &mut PgConnection,
    filter: &CertificateFilter,
    before: Option<(OffsetDateTime, Vec<u8>)>,
    limit: i64,
) -> sqlx::Result<Vec<CertificateRow>> {
    let (before_at, before_serial) = before.unzip();
    sqlx::query_as!(
        CertificateRow,
        r#"select encode(c.serial, 'hex') as "serial!", c.host_id, h.name as host_name, c.issued_at, c.not_after,
             c.revoked_at, c.revoked_by, c.revoked_reason
           from agent_certs c join hosts h using (host_id)
           where ($1::uuid is null or c.host_id = $1)
             and ($2::bytea is null or c.serial = $2)
             and ($3::text is null or $3 = case when c.revoked_at is not null then 'revoked'
                                                when c.not_after <= $4 then 'expired' else 'valid' end
                  or $3 = 'expiring' and c.revoked_at is null and c.not_after > $4
                     and c.not_after <= $4::timestamptz + interval '14 days')
             and ($8::text is null or position(lower($8) in lower(h.name)) > 0)
             and ($5::timestamptz is null or (c.issued_at, c.serial) < ($5, $6))
           order by c.issued_at desc, c.serial desc limit $7"#,
        filter.host_id,
        filter.serial,
        filter.state,
        filter.now,
        before_at,
        before_serial,
        limit,
        filter.host_name,
    )
    .fetch_all(connection)
    .await
}

/// How many match.
pub async fn count(connection: &mut PgConnection, filter: &CertificateFilter) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from agent_certs c join hosts h using (host_id)
           where ($1::uuid is null or c.host_id = $1)
             and ($2::text is null or $2 = case when c.revoked_at is not null then 'revoked'
                                                when c.not_after <= $3 then 'expired' else 'valid' end
                  or $2 = 'expiring' and c.revoked_at is null and c.not_after > $3
                     and c.not_after <= $3::timestamptz + interval '14 days')
             and ($4::text is null or position(lower($4) in lower(h.name)) > 0)"#,
        filter.host_id,
        filter.state,
        filter.now,
        filter.host_name,
    )
    .fetch_one(connection)
    .await
}

/// Revokes the certificate with this serial; answers 0 where it was before, or never was.
pub async fn revoke_one(
    connection: &mut PgConnection,
    serial: &[u8],
    by: &str,
    reason: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_certs set revoked_at = $2, revoked_by = $3, revoked_reason = $4
         where serial = $1 and revoked_at is null",
        serial,
        now,
        by,
        reason,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
