//! Answers to requests with an `Idempotency-Key`.

use infratrack_shared::ids::CollectorId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A request's hold on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub credential: String,
    pub key_hash: [u8; 32],
    pub id: Uuid,
}

/// Before these, whoever is silent has ended.
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub alive_at: OffsetDateTime,
    pub taken_at: OffsetDateTime,
}

/// What is known of a key.
#[derive(Clone, Debug)]
pub struct KeyRow {
    pub fingerprint: Vec<u8>,
    /// Whether its request changed something.
    pub carried_out: bool,
    /// Whether its collector ended without an answer, as far as can be told.
    pub is_left: bool,
    pub status: Option<i32>,
    pub content_type: Option<String>,
    pub etag: Option<String>,
    pub body: Option<Vec<u8>>,
}

/// An answer to keep.
#[derive(Clone, Debug)]
pub struct KeptAnswer<'a> {
    pub status: i32,
    pub content_type: Option<&'a str>,
    pub etag: Option<&'a str>,
    pub body: Option<&'a [u8]>,
}

/// Takes a key; answers 0 where it is taken.
pub async fn insert(
    connection: &mut PgConnection,
    claim: &Claim,
    fingerprint: &[u8],
    collector: CollectorId,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into idempotency_keys (credential, key_hash, claim, fingerprint, collector_id, created_at)
         values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
        claim.credential,
        &claim.key_hash,
        claim.id,
        fingerprint,
        collector.0,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes over a key with which nothing was done and whose collector has ended; answers 0 where it is not to be had.
pub async fn update_claim(
    connection: &mut PgConnection,
    claim: &Claim,
    collector: CollectorId,
    now: OffsetDateTime,
    cutoffs: Cutoffs,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update idempotency_keys k set claim = $3, collector_id = $4, created_at = $5
         where credential = $1 and key_hash = $2 and status is null and not carried_out
             and (created_at < $6 or exists (
                 select from collectors c where c.collector_id = k.collector_id
                     and (c.stopped_at is not null or c.alive_at < $7)))",
        claim.credential,
        &claim.key_hash,
        claim.id,
        collector.0,
        now,
        cutoffs.taken_at,
        cutoffs.alive_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What is known of a key.
pub async fn find(
    connection: &mut PgConnection,
    claim: &Claim,
    cutoffs: Cutoffs,
) -> sqlx::Result<Option<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        r#"select fingerprint, carried_out, status, content_type, etag, body,
               created_at < $3 or exists (
                   select from collectors c where c.collector_id = k.collector_id
                       and (c.stopped_at is not null or c.alive_at < $4)) as "is_left!"
           from idempotency_keys k where credential = $1 and key_hash = $2"#,
        claim.credential,
        &claim.key_hash,
        cutoffs.taken_at,
        cutoffs.alive_at,
    )
    .fetch_optional(connection)
    .await
}

/// Says in the transaction of the work that it is carried out; answers 0 where the key was taken over.
pub async fn update_carried_out(connection: &mut PgConnection, claim: &Claim) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update idempotency_keys set carried_out = true where credential = $1 and key_hash = $2 and claim = $3",
        claim.credential,
        &claim.key_hash,
        claim.id,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Keeps the answer.
pub async fn update(
    connection: &mut PgConnection,
    claim: &Claim,
    answer: &KeptAnswer<'_>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update idempotency_keys set status = $4, content_type = $5, etag = $6, body = $7
         where credential = $1 and key_hash = $2 and claim = $3",
        claim.credential,
        &claim.key_hash,
        claim.id,
        answer.status,
        answer.content_type,
        answer.etag,
        answer.body,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Gives a key back, if nothing was done with it.
pub async fn delete(connection: &mut PgConnection, claim: &Claim) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from idempotency_keys
         where credential = $1 and key_hash = $2 and claim = $3 and not carried_out",
        claim.credential,
        &claim.key_hash,
        claim.id,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets keys from before.
pub async fn delete_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from idempotency_keys where created_at < $1", before)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
