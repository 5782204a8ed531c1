//! What may be a host in runs, and the hosts that it was found to be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::changes::linking::{self, Known};
use crate::changes::terraform::{Mark, Values};

/// A link to be stored, or stored again.
#[derive(Clone, Debug, Serialize)]
pub struct NewLink {
    pub run_id: Uuid,
    pub ordinal: i32,
    pub role: linking::Role,
    pub name: String,
    pub marks: Value,
    /// `linked | pending | ambiguous`.
    pub state: &'static str,
    pub host_id: Option<Uuid>,
    pub method: Option<&'static str>,
    pub confidence: Option<&'static str>,
    pub is_weak: bool,
    #[serde(with = "rfc3339::option")]
    pub new_since: Option<OffsetDateTime>,
}

/// A link that waits for its host, or for a surer one.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub link_id: i64,
    pub run_id: Uuid,
    pub name: String,
    pub marks: Json<Values>,
    pub state: String,
    pub host_id: Option<Uuid>,
    pub method: Option<String>,
    pub confidence: Option<String>,
    pub new_since: Option<OffsetDateTime>,
    /// Of the resource, where it is one.
    pub kind: Option<String>,
}

/// What became of a link that waited.
#[derive(Clone, Debug, Serialize)]
pub struct Settled {
    pub link_id: i64,
    pub marks: Value,
    /// `linked | pending | ambiguous`.
    pub state: String,
    pub host_id: Option<Uuid>,
    pub method: Option<String>,
    pub confidence: Option<String>,
    pub is_weak: bool,
}

/// What may be a host in a run, as it is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChangeLink)]
pub struct LinkRow {
    #[serde(rename = "id")]
    pub link_id: i64,
    pub run_id: Uuid,
    /// `is | was | drift | affects | play`: how it stands to the run.
    pub role: String,
    /// The resource's address, or the name in the play's inventory.
    pub name: String,
    /// `linked | pending | ambiguous | expired`.
    pub state: String,
    pub host_id: Option<Uuid>,
    /// By what the host was found: `host | instance_id | uuid | serial | machine_id | mac | public_address |
    /// private_address | fqdn | name`.
    pub method: Option<String>,
    /// `certain | high | medium | low`.
    pub confidence: Option<String>,
    /// What is known of it: texts by what they are, as `method`.
    #[schema(value_type = Object)]
    pub marks: Value,
}

/// Links of a change's runs, in their order: those after this one. With these states, or all.
pub async fn list(
    connection: &mut PgConnection,
    change_id: Uuid,
    states: Option<&[String]>,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<LinkRow>> {
    sqlx::query_as!(
        LinkRow,
        "select l.link_id, l.run_id, l.role, l.name, l.state, l.host_id, l.method, l.confidence, l.marks
         from change_links l
         where l.run_id in (select run_id from change_runs where change_id = $1) and l.link_id > $3
           and ($2::text[] is null or l.state = any($2))
         order by l.link_id limit $4",
        change_id,
        states,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many those are.
pub async fn count(
    connection: &mut PgConnection,
    change_id: Uuid,
    states: Option<&[String]>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from change_links
           where run_id in (select run_id from change_runs where change_id = $1)
             and ($2::text[] is null or state = any($2))"#,
        change_id,
        states,
    )
    .fetch_one(connection)
    .await
}

/// Hosts that have one of these marks.
pub async fn list_known(
    connection: &mut PgConnection,
    marks: &[&Values],
) -> sqlx::Result<Vec<Known>> {
    let of = |wanted: &[Mark]| -> Vec<String> {
        let values = marks.iter().flat_map(|marks| marks.iter());
        let values = values.filter(|(mark, _)| wanted.contains(mark));
        let values: BTreeSet<_> = values
            .flat_map(|(_, values)| values.iter().cloned())
            .collect();
        values.into_iter().collect()
    };
    let told = of(&[Mark::Host]);
    let ids: Vec<Uuid> = told.iter().filter_map(|id| id.parse().ok()).collect();
    let mut uuids = of(&[Mark::Uuid]);
    uuids.extend(uuids.clone().iter().filter_map(|id| linking::swapped(id)));
    let addresses = of(&[Mark::PublicAddress, Mark::PrivateAddress]);
    let addresses = addresses.iter().filter_map(|text| text.parse().ok());
    let addresses: Vec<IpNet> = addresses.map(|address: IpAddr| address.into()).collect();
    let labels = of(&[Mark::Host, Mark::Fqdn, Mark::Name]);
    let labels: Vec<_> = labels
        .iter()
        .map(|name| linking::label(&name.to_lowercase()).to_owned())
        .collect();
    let rows = sqlx::query!(
        r#"select host_id, name, machine_id, instance_id, dmi_uuid, dmi_serial, macs,
             array(select host(a) from unnest(addresses) as a) as "addresses!", retired_at is not null as "is_retired!",
             created_at
           from hosts
           where deleted_at is null and conflict_of is null and merged_into is null
             and (host_id = any($1) or instance_id = any($2) or dmi_uuid = any($3) or dmi_serial = any($4)
                  or machine_id = any($5) or macs && $6 or addresses && $7
                  or split_part(lower(name), '.', 1) = any($8))
           order by host_id"#,
        &ids,
        &of(&[Mark::InstanceId]),
        &uuids,
        &of(&[Mark::Serial]),
        &of(&[Mark::MachineId]),
        &of(&[Mark::Mac]),
        &addresses,
        &labels,
    )
    .fetch_all(connection)
    .await?;
    let known = rows.into_iter().map(|row| Known {
        host_id: row.host_id,
        name: row.name,
        machine_id: row.machine_id,
        instance_id: row.instance_id,
        dmi_uuid: row.dmi_uuid,
        dmi_serial: row.dmi_serial,
        macs: row.macs,
        addresses: row.addresses,
        is_retired: row.is_retired,
        created_at: Some(row.created_at),
    });
    Ok(known.collect())
}

/// Stores links; of one that is there already, what is new of it.
pub async fn upsert(connection: &mut PgConnection, links: &[NewLink]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into change_links (run_id, ordinal, role, name, marks, state, host_id, method, confidence, is_weak,
             new_since, created_at, tried_at)
         select run_id, ordinal, role, name, marks, state, host_id, method, confidence, is_weak, new_since,
             clock_timestamp(), clock_timestamp()
         from jsonb_to_recordset($1) as i (run_id uuid, ordinal int, role text, name text, marks jsonb, state text,
             host_id uuid, method text, confidence text, is_weak bool, new_since timestamptz)
         order by run_id, ordinal, role
         on conflict (run_id, ordinal, role) do update
         set marks = excluded.marks, state = excluded.state, host_id = excluded.host_id, method = excluded.method,
             confidence = excluded.confidence, is_weak = excluded.is_weak, tried_at = excluded.tried_at",
        Json(links) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Writes what became of links that waited. One that surely found its host meanwhile stays.
pub async fn update_settled(
    connection: &mut PgConnection,
    settled: &[Settled],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update change_links l
         set marks = i.marks, state = i.state, host_id = i.host_id, method = i.method, confidence = i.confidence,
             is_weak = i.is_weak, tried_at = clock_timestamp()
         from (select * from jsonb_to_recordset($1) as i (link_id bigint, marks jsonb, state text, host_id uuid,
                   method text, confidence text, is_weak bool) order by link_id) as i
         where l.link_id = i.link_id and l.state <> 'expired' and l.confidence is distinct from 'certain'",
        Json(settled) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Links that wait, and were tried before what is known of any host last moved; those first that wait longest. A minute more,
/// for what moved may have been committed later.
pub async fn list_untried(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Waiting>> {
    sqlx::query_as!(
        Waiting,
        r#"select l.link_id, l.run_id, l.name, l.marks as "marks: Json<Values>", l.state, l.host_id, l.method,
             l.confidence, l.new_since, null::text as kind
           from change_links l
           where (l.state in ('pending', 'ambiguous') or l.is_weak) and l.tried_at < (select max(identified_at) + interval '1 minute' from hosts)
           order by l.tried_at limit $1"#,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Links of a change's runs of Terraform to what they make, but for sure ones, where they are of this run's state.
pub async fn list_of_change(
    connection: &mut PgConnection,
    (change_id, run_id): (Uuid, Uuid),
) -> sqlx::Result<Vec<Waiting>> {
    sqlx::query_as!(
        Waiting,
        r#"select l.link_id, l.run_id, l.name, l.marks as "marks: Json<Values>", l.state, l.host_id, l.method,
             l.confidence, l.new_since, s.type as "kind?"
           from change_links l join change_runs r using (run_id)
           left join change_resources s on s.run_id = l.run_id and s.ordinal = l.ordinal
           join change_runs a on a.run_id = $2
           where r.change_id = $1 and r.tool = 'terraform' and l.role = 'is' and l.state <> 'expired'
             and l.confidence is distinct from 'certain'
             and r.claims->>'workspace' is not distinct from a.claims->>'workspace'
             and r.claims->>'environment' is not distinct from a.claims->>'environment'
           order by l.link_id"#,
        change_id,
        run_id,
    )
    .fetch_all(connection)
    .await
}

/// What tells one state from others, as far as runs claim it.
#[derive(Clone, Debug, Default)]
pub struct StateOf<'a> {
    pub repository: Option<&'a str>,
    pub environment: Option<&'a str>,
    pub workspace: Option<&'a str>,
}

/// Links of these addresses but for sure ones, of runs that claim the same state, from then on.
pub async fn list_of_state(
    connection: &mut PgConnection,
    state: &StateOf<'_>,
    since: OffsetDateTime,
    addresses: &[String],
) -> sqlx::Result<Vec<Waiting>> {
    sqlx::query_as!(
        Waiting,
        r#"select l.link_id, l.run_id, l.name, l.marks as "marks: Json<Values>", l.state, l.host_id, l.method,
             l.confidence, l.new_since, null::text as kind
           from change_links l join change_runs r using (run_id)
           where r.tool = 'terraform' and l.role in ('is', 'drift') and l.state <> 'expired'
             and l.confidence is distinct from 'certain'
             and l.name = any($5) and l.created_at >= $4
             and r.claims->>'repository' is not distinct from $1 and r.claims->>'environment' is not distinct from $2
             and r.claims->>'workspace' is not distinct from $3
           order by l.link_id"#,
        state.repository,
        state.environment,
        state.workspace,
        since,
        addresses,
    )
    .fetch_all(connection)
    .await
}

/// Gives an apply the links of its change's newest plan of the same state: those of `addresses` with what was done to each (`create`,
/// `update`, `delete`), or all where none are given. Numbers are of the plan.
pub async fn insert_of_plan(
    connection: &mut PgConnection,
    (change_id, run_id): (Uuid, Uuid),
    done: Option<(&[String], &[String])>,
) -> sqlx::Result<u64> {
    let (addresses, actions) = done.unzip();
    let done = sqlx::query!(
        "insert into change_links (run_id, ordinal, role, name, marks, state, host_id, method, confidence, is_weak,
             new_since, created_at, tried_at)
         select distinct on (l.ordinal, l.role) $2, l.ordinal, l.role, l.name, l.marks, l.state, l.host_id, l.method,
             l.confidence, l.is_weak, l.new_since, clock_timestamp(), l.tried_at
         from change_links l
         left join unnest($3::text[], $4::text[]) as d (name, action) on d.name = l.name
         where l.run_id = (select p.run_id from change_runs p join change_runs a on a.run_id = $2
                           where p.change_id = $1 and p.tool = 'terraform' and p.kind = 'plan'
                             and p.claims->>'workspace' is not distinct from a.claims->>'workspace'
                             and p.claims->>'environment' is not distinct from a.claims->>'environment'
                           order by p.started_at desc, p.received_at desc limit 1)
           and l.role <> 'drift'
           and ($3::text[] is null
                or (case l.role when 'was' then d.action in ('delete', 'replace') when 'affects' then d.action is not null
                    else d.action in ('create', 'update', 'replace', 'import', 'move', 'remove', 'forget') end))
         order by l.ordinal, l.role
         on conflict do nothing",
        change_id,
        run_id,
        addresses,
        actions,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Hosts that a run destroyed.
pub async fn list_destroyed(
    connection: &mut PgConnection,
    run_id: Uuid,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"select distinct host_id as "host_id!" from change_links
           where run_id = $1 and role = 'was' and host_id is not null order by 1"#,
        run_id,
    )
    .fetch_all(connection)
    .await
}

/// Takes over from the links of these runs which hosts they touched, and counts the hosts of their changes.
pub async fn refresh_hosts(connection: &mut PgConnection, runs: &[Uuid]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with linked as (
             select distinct on (l.run_id, l.host_id) r.change_id, l.run_id, l.host_id, r.started_at, r.ended_at,
                 l.method, l.confidence
             from change_links l join change_runs r using (run_id)
             where l.run_id = any($1) and l.host_id is not null
             order by l.run_id, l.host_id, array_position(array['certain', 'high', 'medium', 'low'], l.confidence)
         ), gone as (
             delete from change_hosts h where h.run_id = any($1)
                 and not exists (select from linked l where l.run_id = h.run_id and l.host_id = h.host_id)
         )
         insert into change_hosts (change_id, run_id, host_id, at, until, method, confidence)
         select change_id, run_id, host_id, started_at, ended_at, method, confidence from linked order by run_id, host_id
         on conflict (change_id, run_id, host_id) do update
         set at = excluded.at, until = excluded.until, method = excluded.method, confidence = excluded.confidence",
        runs,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update changes c
         set host_count = n.host_count
         from (select c.change_id, (select count(distinct host_id) from change_hosts h where h.change_id = c.change_id)
                   as host_count
               from (select distinct change_id from change_runs where run_id = any($1) order by 1) as c) as n
         where c.change_id = n.change_id and c.host_count <> n.host_count",
        runs,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many links wait, by how they do.
pub async fn count_waiting(connection: &mut PgConnection) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select s.state as "state!", count(l.link_id) as "count!"
           from unnest(array['pending', 'ambiguous']) as s (state)
           left join change_links l on l.state = s.state and l.state in ('pending', 'ambiguous')
           group by 1 order by 1"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.state, row.count)).collect())
}

/// Gives up links that wait since before then; those to a host stay as they are.
pub async fn expire(connection: &mut PgConnection, before: OffsetDateTime) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update change_links
         set state = case when host_id is null then 'expired' else state end, is_weak = false
         where (state in ('pending', 'ambiguous') or is_weak) and created_at < $1",
        before,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What touched a host that was merged touched the one it was merged into.
pub async fn update_merged(
    connection: &mut PgConnection,
    from: Uuid,
    to: Uuid,
) -> sqlx::Result<u64> {
    sqlx::query!(
        "update changes set host_count = host_count - 1
         where change_id in (select change_id from change_hosts where host_id in ($1, $2)
                             group by change_id having count(distinct host_id) = 2)",
        from,
        to,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update change_links set host_id = $2 where host_id = $1",
        from,
        to,
    )
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query!(
        "with moved as (delete from change_hosts where host_id = $1 returning *)
         insert into change_hosts (change_id, run_id, host_id, at, until, method, confidence)
         select change_id, run_id, $2, at, until, method, confidence from moved
         on conflict do nothing",
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
