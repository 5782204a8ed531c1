//! What is protected on hosts: volumes, and their keys wrapped for who may recover them.

use infratrack_shared::ids::{HostId, VolumeId};
use infratrack_shared::wire::backup::{Source, Volume};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

/// A volume to be protected from now on.
#[derive(Clone, Debug)]
pub struct NewVolume {
    pub volume: Volume,
    pub host: HostId,
    pub rpo_s: Option<i32>,
    /// As `backups::retention::Rules`.
    pub retention: Value,
    pub owner: Option<String>,
    pub created_at: OffsetDateTime,
    pub created_by: String,
}

/// A volume as its host has to know it, and what the collector goes by.
#[derive(Clone, Debug)]
pub struct VolumeRow {
    pub volume_id: Uuid,
    pub name: String,
    pub kind: String,
    pub source: Json<Source>,
    pub is_database: bool,
    pub schedule: Option<String>,
    pub jitter_s: i32,
    pub closed_windows: Json<Vec<(u16, u16)>>,
    pub bandwidth: Option<i64>,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    pub is_catalog_visible: bool,
    pub is_paused: bool,
}

impl VolumeRow {
    /// As its host is told.
    pub fn to_wire(&self) -> Volume {
        Volume {
            id: VolumeId(self.volume_id),
            name: self.name.clone(),
            source: self.source.0.clone(),
            is_database: self.is_database,
            schedule: self.schedule.clone(),
            jitter_s: u32::try_from(self.jitter_s).unwrap_or_default(),
            closed_windows: self.closed_windows.0.clone(),
            bandwidth: self.bandwidth.and_then(|rate| rate.try_into().ok()),
            pre_hook: self.pre_hook.clone(),
            post_hook: self.post_hook.clone(),
            is_catalog_visible: self.is_catalog_visible,
            is_paused: self.is_paused,
            is_drill_due: false,
        }
    }
}

/// What a volume's source is called in the tables; `None`: none is set, or several.
pub fn kind(source: &Source) -> Option<&'static str> {
    match (&source.files, &source.command, &source.external) {
        (Some(_), None, None) => Some("files"),
        (None, Some(_), None) => Some("command"),
        (None, None, Some(_)) => Some("external"),
        (_, _, _) => None,
    }
}

/// Adds a volume. Its source has to be of one kind.
pub async fn insert(connection: &mut PgConnection, new: &NewVolume) -> sqlx::Result<u64> {
    let volume = &new.volume;
    let done = sqlx::query!(
        "insert into volumes (volume_id, host_id, name, kind, source, is_database, schedule, jitter_s, rpo_s, retention,
             closed_windows, bandwidth, pre_hook, post_hook, is_catalog_visible, is_paused, owner, created_at, created_by,
             updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $18)",
        volume.id.0,
        new.host.0,
        volume.name,
        kind(&volume.source).unwrap_or_default(),
        Json(&volume.source) as _,
        volume.is_database,
        volume.schedule,
        i32::try_from(volume.jitter_s).unwrap_or(i32::MAX),
        new.rpo_s,
        new.retention,
        Json(&volume.closed_windows) as _,
        volume.bandwidth.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX)),
        volume.pre_hook,
        volume.post_hook,
        volume.is_catalog_visible,
        volume.is_paused,
        new.owner,
        new.created_at,
        new.created_by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A volume of this host that was not deleted.
pub async fn find_of_host(
    connection: &mut PgConnection,
    host: HostId,
    volume: VolumeId,
) -> sqlx::Result<Option<VolumeRow>> {
    sqlx::query_as!(
        VolumeRow,
        r#"select volume_id, name, kind, source as "source: Json<Source>", is_database, schedule, jitter_s,
             closed_windows as "closed_windows: Json<Vec<(u16, u16)>>", bandwidth, pre_hook, post_hook, is_catalog_visible,
             is_paused
         from volumes where volume_id = $2 and host_id = $1 and deleted_at is null"#,
        host.0,
        volume.0,
    )
    .fetch_optional(connection)
    .await
}

/// A host's volumes that were not deleted, by name.
pub async fn list_of_host(
    connection: &mut PgConnection,
    host: HostId,
    limit: i64,
) -> sqlx::Result<Vec<VolumeRow>> {
    sqlx::query_as!(
        VolumeRow,
        r#"select volume_id, name, kind, source as "source: Json<Source>", is_database, schedule, jitter_s,
             closed_windows as "closed_windows: Json<Vec<(u16, u16)>>", bandwidth, pre_hook, post_hook, is_catalog_visible,
             is_paused
         from volumes where host_id = $1 and deleted_at is null order by name limit $2"#,
        host.0,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Whether a host may read this volume: it is its own, or it has a grant that holds. The volume was not deleted.
pub async fn is_readable(
    connection: &mut PgConnection,
    host: HostId,
    volume: VolumeId,
    now: OffsetDateTime,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
             select from volumes v where v.volume_id = $2 and v.deleted_at is null and (v.host_id = $1 or exists (
                 select from backup_grants g
                 where g.host_id = $1 and g.volume_id = $2 and g.expires_at > $3 and g.revoked_at is null))
         ) as "is_readable!""#,
        host.0,
        volume.0,
        now,
    )
    .fetch_one(connection)
    .await
}

/// Locks a volume of this host that was not deleted against whoever removes chunks, until the transaction ends. Answers
/// whether there is one.
pub async fn lock(
    connection: &mut PgConnection,
    host: HostId,
    volume: VolumeId,
) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        "select volume_id from volumes where volume_id = $2 and host_id = $1 and deleted_at is null for no key update",
        host.0,
        volume.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Keeps whoever removes chunks away from a volume until the transaction ends: what a run relies on stays from its begin.
pub async fn share(connection: &mut PgConnection, volume: VolumeId) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        "select volume_id from volumes where volume_id = $1 for share",
        volume.0,
    )
    .fetch_optional(connection)
    .await
    .map(drop)
}

/// Says of a locked volume that it has a snapshot of this time; with everything in it, or not.
pub async fn update_protected(
    connection: &mut PgConnection,
    volume: VolumeId,
    at: OffsetDateTime,
    is_whole: bool,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes set last_snapshot_at = greatest(last_snapshot_at, $2),
             last_ok_at = case when $3 then greatest(last_ok_at, $2) else last_ok_at end
         where volume_id = $1",
        volume.0,
        at,
        is_whole,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A wrapped key.
#[derive(Clone, Debug)]
pub struct KeyRow {
    pub key_id: Vec<u8>,
    pub wrapped: Vec<u8>,
    pub recipients: Vec<String>,
}

/// A volume's keys, oldest first.
pub async fn list_keys(
    connection: &mut PgConnection,
    volume: VolumeId,
    limit: i64,
) -> sqlx::Result<Vec<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        "select key_id, wrapped, recipients from volume_keys where volume_id = $1 order by created_at, key_id limit $2",
        volume.0,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many keys a volume has, and whether this is one.
pub async fn count_keys(
    connection: &mut PgConnection,
    volume: VolumeId,
    key_id: &[u8],
) -> sqlx::Result<(i64, bool)> {
    let row = sqlx::query!(
        r#"select count(*) as "keys!", coalesce(bool_or(key_id = $2), false) as "is_known!"
           from volume_keys where volume_id = $1"#,
        volume.0,
        key_id,
    )
    .fetch_one(connection)
    .await?;
    Ok((row.keys, row.is_known))
}

/// Adds a key. One that is known stays as it is.
pub async fn insert_key(
    connection: &mut PgConnection,
    volume: VolumeId,
    key: &KeyRow,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into volume_keys (volume_id, key_id, wrapped, recipients, created_at) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
        volume.0,
        key.key_id,
        key.wrapped,
        &key.recipients,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whether hosts have something left that was protected: volumes that were not deleted, or what the store has of others.
pub async fn is_any_left(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
             select from volumes v where v.host_id = any($1)
             and (v.deleted_at is null or exists (select from snapshots s where s.volume_id = v.volume_id)
                 or exists (select from packs p where p.volume_id = v.volume_id)
                 or exists (select from volume_keys k where k.volume_id = v.volume_id))
         ) or exists (select from snapshots s join backup_runs r using (run_id) where r.host_id = any($1)) as "is_left!""#,
        hosts,
    )
    .fetch_one(connection)
    .await
}
