//! Volumes as people set them.

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::backups::retention::Rules;

/// What is set of a volume.
#[derive(Clone, Debug)]
pub struct VolumeSettings {
    pub volume_id: Uuid,
    pub host_id: Uuid,
    pub name: String,
    pub kind: String,
    pub source: Json<Value>,
    pub is_database: bool,
    pub schedule: Option<String>,
    pub jitter_s: i32,
    pub rpo_s: Option<i32>,
    pub retention: Json<Rules>,
    pub closed_windows: Json<Vec<(u16, u16)>>,
    pub bandwidth: Option<i64>,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    pub is_catalog_visible: bool,
    pub is_paused: bool,
    pub owner: Option<String>,
    pub drill_every_s: Option<i32>,
    pub drill_mode: String,
    pub rto_s: Option<i32>,
    pub version: i64,
}

/// The volume, for this transaction alone.
pub async fn find_for_update(
    connection: &mut PgConnection,
    volume: Uuid,
) -> sqlx::Result<Option<VolumeSettings>> {
    sqlx::query_as!(
        VolumeSettings,
        r#"select volume_id, host_id, name, kind, source as "source: Json<Value>", is_database, schedule, jitter_s, rpo_s,
             retention as "retention: Json<Rules>", closed_windows as "closed_windows: Json<Vec<(u16, u16)>>", bandwidth,
             pre_hook, post_hook, is_catalog_visible, is_paused, owner, drill_every_s, drill_mode, rto_s, version
         from volumes where volume_id = $1 and deleted_at is null for update"#,
        volume
    )
    .fetch_optional(connection)
    .await
}

/// Stores a volume; 0 where the host has one of this name.
pub async fn insert(
    connection: &mut PgConnection,
    volume: &VolumeSettings,
    by: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into volumes (volume_id, host_id, name, kind, source, is_database, schedule, jitter_s, rpo_s, retention,
             closed_windows, bandwidth, pre_hook, post_hook, is_catalog_visible, is_paused, owner, created_at, created_by,
             updated_at, drill_every_s, drill_mode, rto_s)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $18, $20, $21, $22)
         on conflict (host_id, name) where deleted_at is null do nothing",
        volume.volume_id,
        volume.host_id,
        volume.name,
        volume.kind,
        &volume.source as _,
        volume.is_database,
        volume.schedule,
        volume.jitter_s,
        volume.rpo_s,
        &volume.retention as _,
        &volume.closed_windows as _,
        volume.bandwidth,
        volume.pre_hook,
        volume.post_hook,
        volume.is_catalog_visible,
        volume.is_paused,
        volume.owner,
        now,
        by,
        volume.drill_every_s,
        volume.drill_mode,
        volume.rto_s,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Changes what is set; host and kind stay.
pub async fn update(
    connection: &mut PgConnection,
    volume: &VolumeSettings,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes
         set name = $2, source = $3, is_database = $4, schedule = $5, jitter_s = $6, rpo_s = $7, retention = $8,
             closed_windows = $9, bandwidth = $10, pre_hook = $11, post_hook = $12, is_catalog_visible = $13,
             is_paused = $14, owner = $15, updated_at = $16, drill_every_s = $17, drill_mode = $18, rto_s = $19,
             version = version + 1
         where volume_id = $1",
        volume.volume_id,
        volume.name,
        &volume.source as _,
        volume.is_database,
        volume.schedule,
        volume.jitter_s,
        volume.rpo_s,
        &volume.retention as _,
        &volume.closed_windows as _,
        volume.bandwidth,
        volume.pre_hook,
        volume.post_hook,
        volume.is_catalog_visible,
        volume.is_paused,
        volume.owner,
        now,
        volume.drill_every_s,
        volume.drill_mode,
        volume.rto_s,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says that a volume is not protected any more. What is stored of it stays until somebody deletes that too.
pub async fn delete(
    connection: &mut PgConnection,
    volume: Uuid,
    by: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes set deleted_at = $2, deleted_by = $3, updated_at = $2, version = version + 1
         where volume_id = $1 and deleted_at is null",
        volume,
        now,
        by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many volumes a host has.
pub async fn count_of_host(connection: &mut PgConnection, host: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from volumes where host_id = $1 and deleted_at is null"#,
        host
    )
    .fetch_one(connection)
    .await
}
