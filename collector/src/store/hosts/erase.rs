//! Everything of a host, gone; what was issued to it stays known, so that it stays refused.
//!
//! The host's row stays too, empty: certificates refer to it, and a replayed CA log would bring it back.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use infratrack_shared::ids::HostId;

/// The host and the hidden ones that were set apart from it, sorted.
pub async fn list_with_clones(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select host_id from hosts
         where (host_id = $1 or conflict_of = $1) and deleted_at is null order by host_id",
        host.0
    )
    .fetch_all(connection)
    .await
}

macro_rules! deletes {
    ($($(#[$doc:meta])* $name:ident: $sql:literal),* $(,)?) => {
        $(
            $(#[$doc])*
            async fn $name(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
                let done = sqlx::query!($sql, hosts).execute(connection).await?;
                Ok(done.rows_affected())
            }
        )*

        /// Deletes what `hosts` reported and what was asked of them. Answers how many rows there were.
        pub async fn delete_rows(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
            let mut rows = 0;
            $(rows += $name(connection, hosts).await?;)*
            Ok(rows)
        }
    };
}

deletes! {
    heartbeats: "delete from heartbeats where host_id = any($1)",
    heartbeats_5m: "delete from heartbeats_5m where host_id = any($1)",
    heartbeats_1h: "delete from heartbeats_1h where host_id = any($1)",
    heartbeats_dirty: "delete from heartbeats_dirty where host_id = any($1)",
    events: "delete from events where host_id = any($1)",
    facts: "delete from facts where host_id = any($1)",
    fact_words: "delete from host_fact_words where host_id = any($1)",
    fact_changes: "delete from fact_changes where host_id = any($1)",
    gaps: "delete from gaps where host_id = any($1)",
    dead_letters: "delete from dead_letters where host_id = any($1)",
    probes: "delete from probes where host_id = any($1)",
    tasks: "delete from tasks where host_id = any($1)",
    commands: "delete from commands where host_id = any($1)",
    conflicts: "delete from host_conflicts where host_id = any($1)",
    instances: "delete from host_instances where host_id = any($1)",
    streams: "delete from agent_streams where host_id = any($1)",
    enrollments: "delete from enrollments where host_id = any($1)",
    /// Tokens that would bring the host back.
    tokens: "delete from enroll_tokens where host_id = any($1)",
    counts_of_changes: "update changes c set host_count = host_count - n.hosts
        from (select change_id, count(distinct host_id) as hosts from change_hosts where host_id = any($1)
              group by change_id) as n
        where c.change_id = n.change_id",
    change_hosts: "delete from change_hosts where host_id = any($1)",
    /// Runs stay, without what names the host.
    change_links: "delete from change_links where host_id = any($1)",
    /// Of volumes without snapshots: a host that has any stays.
    backup_runs: "delete from backup_runs where host_id = any($1)",
    drills: "delete from drills where host_id = any($1)",
    backup_grants: "delete from backup_grants where host_id = any($1)",
    liveness: "delete from host_liveness where host_id = any($1)",
}

/// Empties the rows of `hosts`.
pub async fn update_deleted(
    connection: &mut PgConnection,
    hosts: &[Uuid],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update hosts
         set name = '', machine_id = null, tags = '{}', owner = null, environment = null, notes = null,
             addresses = '{}', instance_id = null, dmi_uuid = null, dmi_serial = null, macs = '{}', os_id = null, os_name = null, edited = '{}',
             retired_at = coalesce(retired_at, $2), deleted_at = $2, version = version + 1, updated_at = $2
         where host_id = any($1)",
        hosts,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
