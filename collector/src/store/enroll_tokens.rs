//! Enrollment tokens and what was done with them.

use infratrack_shared::ids::HostId;
use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    pub token_id: &'a str,
    pub secret_hash: &'a [u8],
    pub expires_at: OffsetDateTime,
    pub max_uses: i32,
    pub cidr: Option<IpNet>,
    pub hostname_pattern: Option<&'a str>,
    pub tags: &'a [String],
    pub host: Option<HostId>,
    pub approval_required: bool,
    pub created_by: &'a str,
}

/// A token, its row locked.
#[derive(Clone, Debug)]
pub struct TokenRow {
    pub secret_hash: Vec<u8>,
    pub expires_at: OffsetDateTime,
    pub max_uses: i32,
    pub uses: i32,
    pub cidr: Option<IpNet>,
    pub hostname_pattern: Option<String>,
    pub tags: Vec<String>,
    pub host_id: Option<Uuid>,
    pub approval_required: bool,
}

/// What one key did with one token.
#[derive(Clone, Debug)]
pub struct EnrollmentRow {
    pub approved_at: Option<OffsetDateTime>,
    pub host_id: Option<Uuid>,
}

/// Who asks to enroll.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    pub token_id: &'a str,
    pub spki_sha256: &'a [u8],
    pub hostname: &'a str,
    pub machine_id: Option<&'a str>,
    pub peer: IpNet,
}

/// Makes a token.
pub async fn insert(
    connection: &mut PgConnection,
    token: &NewToken<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into enroll_tokens (token_id, secret_hash, created_at, expires_at, max_uses, cidr,
             hostname_pattern, tags, host_id, approval_required, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        token.token_id,
        token.secret_hash,
        now,
        token.expires_at,
        token.max_uses,
        token.cidr as Option<IpNet>,
        token.hostname_pattern,
        token.tags,
        token.host.map(|host| host.0),
        token.approval_required,
        token.created_by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Finds a token and locks its row, so that its uses are counted one after another.
pub async fn find_for_update(
    connection: &mut PgConnection,
    token_id: &str,
) -> sqlx::Result<Option<TokenRow>> {
    sqlx::query_as!(
        TokenRow,
        r#"select secret_hash, expires_at, max_uses, uses, cidr as "cidr: IpNet", hostname_pattern, tags,
             host_id, approval_required
         from enroll_tokens where token_id = $1 for update"#,
        token_id,
    )
    .fetch_optional(connection)
    .await
}

/// What this key did with this token.
pub async fn find_enrollment(
    connection: &mut PgConnection,
    token_id: &str,
    spki_sha256: &[u8],
) -> sqlx::Result<Option<EnrollmentRow>> {
    sqlx::query_as!(
        EnrollmentRow,
        "select approved_at, host_id from enrollments where token_id = $1 and spki_sha256 = $2",
        token_id,
        spki_sha256,
    )
    .fetch_optional(connection)
    .await
}

/// Enters a request: approved at once, or waiting for an operator.
pub async fn insert_enrollment(
    connection: &mut PgConnection,
    applicant: &Applicant<'_>,
    approved: bool,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into enrollments (token_id, spki_sha256, hostname, machine_id, peer, asked_at, approved_at)
         values ($1, $2, $3, $4, $5, $6::timestamptz, case when $7::bool then $6::timestamptz end)",
        applicant.token_id,
        applicant.spki_sha256,
        applicant.hostname,
        applicant.machine_id,
        applicant.peer as IpNet,
        now,
        approved,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says which host the request became.
pub async fn update_enrollment_host(
    connection: &mut PgConnection,
    token_id: &str,
    spki_sha256: &[u8],
    host: HostId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update enrollments set host_id = $3 where token_id = $1 and spki_sha256 = $2",
        token_id,
        spki_sha256,
        host.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many tokens made before `created_before` can still be used.
pub async fn count_open(
    connection: &mut PgConnection,
    created_before: OffsetDateTime,
    now: OffsetDateTime,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from enroll_tokens
         where created_at < $1 and expires_at > $2 and uses < max_uses"#,
        created_before,
        now,
    )
    .fetch_one(connection)
    .await
}

/// Counts one use of a token.
pub async fn use_once(connection: &mut PgConnection, token_id: &str) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update enroll_tokens set uses = uses + 1 where token_id = $1 and uses < max_uses",
        token_id
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Approves every request that waits with this token.
pub async fn approve(
    connection: &mut PgConnection,
    token_id: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update enrollments set approved_at = $2 where token_id = $1 and approved_at is null",
        token_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A token as it is listed: all but its secret.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = EnrollToken)]
pub struct EnrollTokenRow {
    #[serde(rename = "id")]
    pub token_id: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    pub max_uses: i32,
    pub uses: i32,
    #[schema(value_type = Option<String>)]
    pub cidr: Option<IpNet>,
    pub hostname_pattern: Option<String>,
    pub tags: Vec<String>,
    /// Whoever uses it becomes this host again.
    pub host_id: Option<Uuid>,
    pub approval_required: bool,
    /// Hosts that wait to be let in.
    pub waiting: i64,
}

/// Tokens that still let someone in, and this one whatever its state; newest first, at most 500.
pub async fn list(
    connection: &mut PgConnection,
    token_id: Option<&str>,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<EnrollTokenRow>> {
    sqlx::query_as!(
        EnrollTokenRow,
        r#"select t.token_id, t.created_at, t.created_by, t.expires_at, t.max_uses, t.uses, t.cidr as "cidr: IpNet",
             t.hostname_pattern, t.tags, t.host_id, t.approval_required,
             (select count(*) from enrollments e
              where e.token_id = t.token_id and e.approved_at is null and e.host_id is null
                and t.approval_required) as "waiting!"
           from enroll_tokens t
           where case when $1::text is null then t.expires_at > $2 and t.uses < t.max_uses else t.token_id = $1 end
           order by t.created_at desc, t.token_id limit 500"#,
        token_id,
        now,
    )
    .fetch_all(connection)
    .await
}

/// Deletes a token: it lets nobody in any more; answers 0 where there is none.
pub async fn delete(connection: &mut PgConnection, token_id: &str) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from enroll_tokens where token_id = $1", token_id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// A host that waits to be let in.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = WaitingHost)]
pub struct WaitingRow {
    pub token_id: String,
    /// As it calls itself.
    pub hostname: String,
    pub machine_id: Option<String>,
    #[schema(value_type = String)]
    pub address: IpNet,
    #[serde(with = "time::serde::rfc3339")]
    pub asked_at: OffsetDateTime,
}

/// Who waits with tokens that ask for approval, the longest first, at most 500.
pub async fn list_waiting(connection: &mut PgConnection) -> sqlx::Result<Vec<WaitingRow>> {
    sqlx::query_as!(
        WaitingRow,
        r#"select e.token_id, e.hostname, e.machine_id, e.peer as "address: IpNet", e.asked_at
           from enrollments e join enroll_tokens t using (token_id)
           where e.approved_at is null and e.host_id is null and t.approval_required
           order by e.asked_at, e.spki_sha256 limit 500"#,
    )
    .fetch_all(connection)
    .await
}
