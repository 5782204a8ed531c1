//! Hosts: who they are, what operators say of them, how many are in which state.

pub mod edit;
pub mod erase;
pub mod facets;
pub mod filter;
pub mod list;
pub mod merge;
pub mod watch;

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Of `hosts h`: neither retired, nor a clone's rows, nor deleted. For statements that are put together.
pub(super) const AT_WORK: &str =
    "h.retired_at is null and h.conflict_of is null and h.deleted_at is null";

/// The instants that decide how silent is too silent; see [`crate::jobs::liveness`].
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub now: OffsetDateTime,
    /// Last seen before this: late.
    pub late_before: OffsetDateTime,
    /// Last seen before this: offline.
    pub offline_before: OffsetDateTime,
}

/// Makes a host.
pub async fn insert(
    connection: &mut PgConnection,
    host: HostId,
    name: &str,
    machine_id: Option<&str>,
    tags: &[String],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with host as (
             insert into hosts (host_id, name, machine_id, tags, created_at) values ($1, $2, $3, $4, $5)
             returning host_id
         )
         insert into host_liveness (host_id) select host_id from host",
        host.0,
        name,
        machine_id,
        tags,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Locks a host, so that what is issued to it is issued one after another; answers when it was retired.
pub async fn lock(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Option<OffsetDateTime>> {
    // Not against rows that only refer to the host.
    sqlx::query_scalar!(
        "select retired_at from hosts where host_id = $1 for no key update",
        host.0
    )
    .fetch_one(connection)
    .await
}

/// What a host is called.
pub async fn get_name(connection: &mut PgConnection, host: HostId) -> sqlx::Result<String> {
    sqlx::query_scalar!("select name from hosts where host_id = $1", host.0)
        .fetch_one(connection)
        .await
}

/// Whether a host has one of these tags.
pub async fn has_tag(
    connection: &mut PgConnection,
    host: HostId,
    tags: &[String],
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select tags && $2 as "has!" from hosts where host_id = $1"#,
        host.0,
        tags,
    )
    .fetch_one(connection)
    .await
}

/// Makes a clone's hidden host one like any other.
pub async fn update_own(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update hosts set conflict_of = null where host_id = $1",
        host.0
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes from the facts of `hosts`, sorted, what they say of the hosts' columns. What an operator edited stays.
pub async fn update_identity(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
    // The row itself decides, not a copy read beside it: an operator may have edited it a moment ago.
    let done = sqlx::query!(
        "update hosts h
         set name = case when 'name' = any(h.edited) then h.name else coalesce(s.name, h.name) end,
             machine_id = coalesce(s.machine_id, h.machine_id),
             addresses = case when 'addresses' = any(h.edited) then h.addresses
                              else coalesce(s.addresses, h.addresses) end,
             instance_id = coalesce(s.instance_id, h.instance_id),
             dmi_uuid = coalesce(s.dmi_uuid, h.dmi_uuid), dmi_serial = coalesce(s.dmi_serial, h.dmi_serial),
             macs = coalesce(s.macs, h.macs),
             os_id = coalesce(s.os_id, h.os_id),
             os_name = coalesce(s.os_name, h.os_name)
         from (
             select host_id, facts_name(facts) as name, facts #>> '{facts.identity,machine_id}' as machine_id,
                 facts_addresses(facts) as addresses,
                 left(coalesce(facts #>> '{facts.cloud,instance_id}', facts #>> '{facts.dmi,cloud,instance_id}'), 128)
                     as instance_id,
                 lower(left(facts #>> '{facts.dmi,uuid}', 64)) as dmi_uuid,
                 left(facts #>> '{facts.dmi,serial}', 128) as dmi_serial,
                 case when facts ? 'facts.network' then network_macs(facts -> 'facts.network') end as macs,
                 left(facts #>> '{facts.os,id}', 64) as os_id,
                 left(facts #>> '{facts.os,pretty_name}', 128) as os_name
             from (
                 select host_id, jsonb_object_agg(key, body) as facts from facts
                 where host_id = any($1)
                   and key in ('facts.identity', 'facts.network', 'facts.cloud', 'facts.dmi', 'facts.os')
                 group by host_id order by host_id
             ) as told
         ) as s
         where h.host_id = s.host_id
           and (h.name, h.machine_id, h.addresses, h.instance_id, h.dmi_uuid, h.dmi_serial, h.macs, h.os_id, h.os_name)
               is distinct from
               (case when 'name' = any(h.edited) then h.name else coalesce(s.name, h.name) end,
                coalesce(s.machine_id, h.machine_id),
                case when 'addresses' = any(h.edited) then h.addresses else coalesce(s.addresses, h.addresses) end,
                coalesce(s.instance_id, h.instance_id), coalesce(s.dmi_uuid, h.dmi_uuid),
                coalesce(s.dmi_serial, h.dmi_serial), coalesce(s.macs, h.macs), coalesce(s.os_id, h.os_id),
                coalesce(s.os_name, h.os_name))",
        hosts,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many hosts there are in each status.
pub async fn count_by_status(
    connection: &mut PgConnection,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select host_status(l.last_seen_at, why.reasons) as "status!", count(*) as "count!"
           from hosts h
           join host_liveness l using (host_id)
           left join (
               select host_id, max(not_after) as not_after from agent_certs where revoked_at is null group by host_id
           ) c using (host_id)
           cross join lateral (select host_reasons(l, c.not_after, $1, $2, $3) as reasons offset 0) as why
           where h.retired_at is null and h.conflict_of is null and h.deleted_at is null
           group by 1 order by 1"#,
        cutoffs.now,
        cutoffs.late_before,
        cutoffs.offline_before,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.status, row.count))
        .collect())
}
