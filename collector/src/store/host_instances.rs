//! Which runs of an agent process reported as a host, in the order in which they took over.
//!
//! The lock of the host's liveness row orders all of this over every collector.

use std::net::IpAddr;

use infratrack_shared::ids::{BootId, HostId, InstanceId};
use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// What a host's locked row says of who is in place.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub host: HostId,
    /// The instance in place, none before the first batch.
    pub instance: Option<InstanceId>,
    /// Whether anything was ever set apart from this host.
    pub has_clones: bool,
}

/// An instance that reported.
#[derive(Clone, Debug)]
pub struct InstanceRow {
    pub instance: Uuid,
    pub ordinal: i64,
    pub boot_id: Uuid,
    pub address: IpNet,
    pub first_seen_at: OffsetDateTime,
    pub replaced_at: Option<OffsetDateTime>,
}

/// An instance to enter.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub host: HostId,
    pub instance: InstanceId,
    pub boot_id: BootId,
    pub address: IpAddr,
    pub received_at: OffsetDateTime,
}

/// Locks the liveness rows of `hosts` until the transaction ends. Sorted, without duplicates.
pub async fn lock(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<Vec<Standing>> {
    let rows = sqlx::query!(
        "select host_id, instance, clone_count from host_liveness
         where host_id = any($1) order by host_id for no key update",
        hosts,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Standing {
            host: HostId(row.host_id),
            instance: row.instance.map(InstanceId),
            has_clones: row.clone_count > 0,
        })
        .collect())
}

/// What is known of `instance` as `host`.
pub async fn find(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<Option<InstanceRow>> {
    sqlx::query_as!(
        InstanceRow,
        "select instance, ordinal, boot_id, address, first_seen_at, replaced_at
         from host_instances where host_id = $1 and instance = $2",
        host.0,
        instance.0,
    )
    .fetch_optional(connection)
    .await
}

/// Those who took over after `ordinal`, in order.
pub async fn list_after(
    connection: &mut PgConnection,
    host: HostId,
    ordinal: i64,
) -> sqlx::Result<Vec<InstanceRow>> {
    sqlx::query_as!(
        InstanceRow,
        "select instance, ordinal, boot_id, address, first_seen_at, replaced_at
         from host_instances where host_id = $1 and ordinal > $2 order by ordinal",
        host.0,
        ordinal,
    )
    .fetch_all(connection)
    .await
}

/// Enters an instance as the last one that took over.
pub async fn insert(connection: &mut PgConnection, arrival: &Arrival) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_instances (host_id, instance, boot_id, address, first_seen_at)
         values ($1, $2, $3, $4, $5)",
        arrival.host.0,
        arrival.instance.0,
        arrival.boot_id.0,
        IpNet::from(arrival.address),
        arrival.received_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Enters a clone as the one that took over the hidden host.
pub async fn insert_clone(
    connection: &mut PgConnection,
    hidden: HostId,
    clone: &InstanceRow,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_instances (host_id, instance, boot_id, address, first_seen_at)
         values ($1, $2, $3, $4, $5)",
        hidden.0,
        clone.instance,
        clone.boot_id,
        clone.address,
        clone.first_seen_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets an instance and its marks.
pub async fn delete(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from host_instances where host_id = $1 and instance = $2",
        host.0,
        instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets those who were replaced before `before`.
pub async fn delete_replaced(
    connection: &mut PgConnection,
    host: HostId,
    before: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from host_instances where host_id = $1 and replaced_at < $2",
        host.0,
        before,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that whoever is not in place was replaced by what was committed until `now`.
pub async fn update_replaced(
    connection: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_instances i set replaced_at = $2
         from host_liveness l
         where i.host_id = $1 and l.host_id = $1 and i.instance is distinct from l.instance
           and i.replaced_at is null",
        host.0,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that `instance`, which had been replaced, is in place again.
pub async fn update_back(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_instances set replaced_at = null where host_id = $1 and instance = $2",
        host.0,
        instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts `instance` in place.
pub async fn update_in_place(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
    received_at: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness set instance = $2, instance_changed_at = $3 where host_id = $1",
        host.0,
        instance.0,
        received_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
