//! Hosts that may read another host's volume, sealed as it is, for a while.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// A grant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = BackupGrant)]
pub struct GrantRow {
    #[serde(rename = "id")]
    pub grant_id: Uuid,
    pub volume_id: Uuid,
    /// Who may read it.
    pub host_id: Uuid,
    pub reason: String,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    pub created_by: String,
    #[serde(with = "rfc3339")]
    pub expires_at: OffsetDateTime,
    #[serde(with = "rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// Stores a grant.
pub async fn insert(connection: &mut PgConnection, grant: &GrantRow) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into backup_grants (grant_id, volume_id, host_id, reason, created_at, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        grant.grant_id,
        grant.volume_id,
        grant.host_id,
        grant.reason,
        grant.created_at,
        grant.created_by,
        grant.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A volume's grants, newest first; the last 100.
pub async fn list(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<Vec<GrantRow>> {
    sqlx::query_as!(
        GrantRow,
        "select grant_id, volume_id, host_id, reason, created_at, created_by, expires_at, revoked_at
         from backup_grants where volume_id = $1 order by created_at desc, grant_id desc limit 100",
        volume
    )
    .fetch_all(connection)
    .await
}

/// Ends a grant; 0 where it has ended, or is of another volume.
pub async fn revoke(
    connection: &mut PgConnection,
    (volume, grant): (Uuid, Uuid),
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update backup_grants set revoked_at = $3
         where grant_id = $2 and volume_id = $1 and revoked_at is null and expires_at > $3",
        volume,
        grant,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
