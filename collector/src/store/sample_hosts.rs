//! Hosts that are made up: which they are, what makes them look like hosts that were there for long, and how
//! every row of theirs goes. Rows are only ever touched by way of `sample_hosts`.

use infratrack_shared::ids::{BootId, HostId, InstanceId};
use infratrack_shared::wire::heartbeat::Heartbeat;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::heartbeats::{disk_used_ratio, memory_used_ratio};
use crate::store::hosts::erase;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct SampleRow {
    pub host_id: Uuid,
    pub number: i32,
    pub loaded_at: OffsetDateTime,
}

/// A host to make.
#[derive(Clone, Debug)]
pub struct NewHost {
    pub host: HostId,
    pub number: i32,
    pub name: String,
    pub tags: Vec<String>,
    pub owner: String,
    pub environment: String,
    pub notes: Option<String>,
    /// `agent` or `manual`.
    pub origin: &'static str,
    pub created_at: OffsetDateTime,
    /// Hidden: a clone of that host.
    pub conflict_of: Option<HostId>,
}

/// Makes a host, marked as a sample.
pub async fn insert(
    connection: &mut PgConnection,
    new: &NewHost,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with host as (
             insert into hosts (host_id, name, tags, owner, environment, notes, origin, created_at, conflict_of)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             returning host_id
         ), liveness as (
             insert into host_liveness (host_id) select host_id from host
         )
         insert into sample_hosts (host_id, number, loaded_at) select host_id, $10, $11 from host",
        new.host.0,
        new.name,
        &new.tags,
        new.owner,
        new.environment,
        new.notes,
        new.origin,
        new.created_at,
        new.conflict_of.map(|host| host.0),
        new.number,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What was last said of a host.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub host: HostId,
    pub last_seen_at: OffsetDateTime,
    pub instance: InstanceId,
    pub boot_id: BootId,
    pub boot_at: OffsetDateTime,
    /// `online`, `late` or `offline`.
    pub liveness: &'static str,
    pub reason: Option<&'static str>,
    pub since: OffsetDateTime,
    pub reboot_required_since: Option<OffsetDateTime>,
}

/// Has a host's row say so.
pub async fn update_standing(
    connection: &mut PgConnection,
    standing: &Standing,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness l
         set last_seen_at = $2, instance = $3, instance_changed_at = $5, boot_id = $4, boot_changed_at = $5,
             liveness = $6, liveness_reason = $7, liveness_changed_at = $8, reboot_required_since = $9
         from sample_hosts s where s.host_id = l.host_id and l.host_id = $1",
        standing.host.0,
        standing.last_seen_at,
        standing.instance.0,
        standing.boot_id.0,
        standing.boot_at,
        standing.liveness,
        standing.reason,
        standing.since,
        standing.reboot_required_since,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Enters a certificate that nobody holds the key of: its DER is empty, so that it authenticates nobody. The CA's
/// log does not get it, whatever becomes of it.
pub async fn insert_cert(
    connection: &mut PgConnection,
    host: HostId,
    serial: &[u8],
    issued_at: OffsetDateTime,
    not_after: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, token_id,
             issue_logged_at, revocation_logged_at)
         select $2, host_id, $2, '', $3, $4, 'sample', $3, $3 from sample_hosts where host_id = $1",
        host.0,
        serial,
        issued_at,
        not_after,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Five minutes of a host, as one heartbeat has it.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub host: HostId,
    pub at: OffsetDateTime,
    /// `None` in its values counts as no sample.
    pub beat: Heartbeat,
}

/// Heartbeats of a bucket.
const SAMPLES: i32 = 10;

/// Inserts sums of five minutes whose heartbeats never were; those that are there stay.
pub async fn insert_buckets(
    connection: &mut PgConnection,
    buckets: &[Bucket],
) -> sqlx::Result<u64> {
    let each = |value: fn(&Heartbeat) -> Option<f32>| -> Vec<Option<f32>> {
        buckets.iter().map(|bucket| value(&bucket.beat)).collect()
    };
    let rates = |value: fn(&Heartbeat) -> Option<u64>| -> Vec<Option<i64>> {
        let rate = |bucket: &Bucket| value(&bucket.beat).map(|rate| rate as i64);
        buckets.iter().map(rate).collect()
    };
    let done = sqlx::query!(
        "insert into heartbeats_5m
         select host_id, at, $3, $3 * num_nonnulls(cpu), coalesce(cpu * $3, 0), least(cpu * 1.2, 1)::real,
             $3 * num_nonnulls(load), coalesce(load * $3, 0), load * 1.2,
             $3 * num_nonnulls(memory), coalesce(memory * $3, 0), memory, disk, received, sent, disk_read, written
         from unnest($1::uuid[], $2::timestamptz[], $4::float4[], $5::float4[], $6::float4[], $7::float4[],
                     $8::int8[], $9::int8[], $10::int8[], $11::int8[])
             as i (host_id, at, cpu, load, memory, disk, received, sent, disk_read, written)
         on conflict do nothing",
        &buckets.iter().map(|bucket| bucket.host.0).collect::<Vec<_>>(),
        &buckets.iter().map(|bucket| bucket.at).collect::<Vec<_>>(),
        SAMPLES,
        &each(|beat| beat.cpu_ratio) as &[Option<f32>],
        &each(|beat| beat.load_1) as &[Option<f32>],
        &each(memory_used_ratio) as &[Option<f32>],
        &each(disk_used_ratio) as &[Option<f32>],
        &rates(|beat| beat.net_received_bytes_per_s) as &[Option<i64>],
        &rates(|beat| beat.net_sent_bytes_per_s) as &[Option<i64>],
        &rates(|beat| beat.disk_read_bytes_per_s) as &[Option<i64>],
        &rates(|beat| beat.disk_written_bytes_per_s) as &[Option<i64>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Those that nobody retired, deleted or merged, by host.
pub async fn list_in_use(connection: &mut PgConnection) -> sqlx::Result<Vec<SampleRow>> {
    sqlx::query_as!(
        SampleRow,
        "select s.host_id, s.number, s.loaded_at from sample_hosts s join hosts h using (host_id)
         where h.retired_at is null and h.deleted_at is null and h.merged_into is null and h.conflict_of is null
         order by s.host_id",
    )
    .fetch_all(connection)
    .await
}

/// All of them, by host.
pub async fn list_ids(connection: &mut PgConnection) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select host_id from sample_hosts order by host_id")
        .fetch_all(connection)
        .await
}

/// Whether any of `hosts` is one.
pub async fn is_any(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from sample_hosts where host_id = any($1)) as "is_any!""#,
        hosts
    )
    .fetch_one(connection)
    .await
}

/// How many hosts are none, but for `beside`; and the name of the first.
pub async fn count_real(
    connection: &mut PgConnection,
    beside: &[Uuid],
) -> sqlx::Result<(i64, Option<String>)> {
    let row = sqlx::query!(
        r#"select count(*) as "count!", min(name) as name from hosts h
           where deleted_at is null and host_id <> all($1)
             and not exists (select from sample_hosts s where s.host_id = h.host_id)"#,
        beside
    )
    .fetch_one(connection)
    .await?;
    Ok((row.count, row.name))
}

/// The name of one that something real hangs on: a certificate that an agent was issued, or a real host that was
/// merged into it or set apart from it.
pub async fn find_taken(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "select h.name from hosts h join sample_hosts using (host_id)
         where exists (select from agent_certs c
                       where c.host_id = h.host_id and c.token_id is distinct from 'sample')
            or exists (select from hosts real
                       where (real.merged_into = h.host_id or real.conflict_of = h.host_id)
                         and not exists (select from sample_hosts s where s.host_id = real.host_id))
         order by h.name limit 1",
    )
    .fetch_optional(connection)
    .await
}

/// Deletes every row below some of them. Answers how many there were.
pub async fn delete_rows(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
    let ours = sqlx::query_scalar!(
        "select host_id from sample_hosts where host_id = any($1)",
        hosts
    );
    let ours = ours.fetch_all(&mut *connection).await?;
    erase::delete_rows(connection, &ours).await
}

/// Deletes their certificates.
pub async fn delete_certs(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from agent_certs c using sample_hosts s where s.host_id = c.host_id and c.token_id = 'sample'"
    );
    Ok(done.execute(connection).await?.rows_affected())
}

/// Deletes the hosts, and with them what marks them.
pub async fn delete(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from hosts h using sample_hosts s where s.host_id = h.host_id");
    Ok(done.execute(connection).await?.rows_affected())
}
