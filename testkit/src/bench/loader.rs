//! What Postgres itself can take: the collector's tables, filled by nothing but bulk statements.
//!
//! Two connections, a transaction for each 1,000 rows, UNNEST of rows sorted by host, conflicts checked, the small
//! row that goes with them moved in the same transaction, `synchronous_commit` as it is. Its CPU time per
//! row, of client and server, is the P of the composed limit.

use std::time::Duration;

use infratrack_agent::clock::Clock;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::heartbeat::{Heartbeat, SpoolUsage};
use serde_json::value::RawValue;
use sqlx::postgres::PgConnectOptions;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::members::Member;
use crate::fleet::heartbeat::Host;

/// Rows of a transaction.
const ROWS: usize = 1000;
/// Events of one host in a row.
const EVENTS_OF_HOST: usize = 500;

/// What was stored.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    pub rows: u64,
    pub elapsed: Duration,
}

impl Loaded {
    /// Rows a second.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64()
    }
}

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Into `heartbeats`; the hosts' rows of `host_liveness` are updated.
    Heartbeats,
    /// Into `events`; the hosts' cursors in `agent_streams` are upserted.
    Events,
}

/// Loads for as long as `lasts`, half of the members over each connection.
pub async fn load(
    options: &PgConnectOptions,
    members: &[Member],
    rows: Rows,
    lasts: Duration,
) -> anyhow::Result<Loaded> {
    let begin = Instant::now();
    let end = begin + lasts;
    let half = |which: usize| {
        let mine = members.iter().skip(which).step_by(2);
        let mut mine: Vec<_> = mine.map(|m| (m.host.0, m.stream.0, m.instance.0)).collect();
        mine.sort_unstable();
        run(options, mine, rows, end)
    };
    let (first, second) = tokio::try_join!(half(0), half(1))?;
    Ok(Loaded {
        rows: first + second,
        elapsed: begin.elapsed(),
    })
}

type Ids = (Uuid, Uuid, Uuid);

async fn run(
    options: &PgConnectOptions,
    hosts: Vec<Ids>,
    rows: Rows,
    end: Instant,
) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect_with(options).await?;
    let clock = Clock::system();
    let mut stored = 0;
    let mut turn = 0;
    while Instant::now() < end {
        let now = timestamp(clock.now())?;
        let mut transaction = connection.begin().await?;
        stored += match rows {
            Rows::Heartbeats => {
                let some = spread(&hosts, turn, ROWS);
                let columns = Columns::new(&some, turn);
                heartbeats(&mut transaction, &columns, now).await?;
                liveness(&mut transaction, &columns, now).await?;
                some.len()
            }
            Rows::Events => {
                let some = spread(&hosts, turn, ROWS / EVENTS_OF_HOST);
                events(&mut transaction, &some, turn, now).await?;
                some.len() * EVENTS_OF_HOST
            }
        } as u64;
        transaction.commit().await?;
        turn += 1;
    }
    connection.close().await?;
    Ok(stored)
}

/// Of a sorted list, up to `count` that are as far apart as can be; others each turn, in order. As hosts
/// report: at phases of their own.
fn spread<T: Copy>(all: &[T], turn: usize, count: usize) -> Vec<T> {
    let step = (all.len() / count).max(1);
    let some = all.iter().skip(turn % step).step_by(step);
    some.take(count).copied().collect()
}

fn timestamp(at: UnixMillis) -> anyhow::Result<OffsetDateTime> {
    Ok(OffsetDateTime::from_unix_timestamp_nanos(
        i128::from(at.0) * 1_000_000,
    )?)
}

/// The columns of some hosts' next heartbeats.
struct Columns {
    hosts: Vec<Uuid>,
    streams: Vec<Uuid>,
    instances: Vec<Uuid>,
    n: Vec<i64>,
    beat: Heartbeat,
}

impl Columns {
    fn new(hosts: &[Ids], turn: usize) -> Self {
        let identity = Default::default();
        let mut host = Host::new(2, turn);
        let spool = SpoolUsage::default();
        Self {
            hosts: hosts.iter().map(|ids| ids.0).collect(),
            streams: hosts.iter().map(|ids| ids.1).collect(),
            instances: hosts.iter().map(|ids| ids.2).collect(),
            n: vec![turn as i64; hosts.len()],
            beat: host.heartbeat(identity, UnixMillis(0), 86_400_000, spool),
        }
    }

    /// A value that all of them have.
    fn all<T: Clone>(&self, value: T) -> Vec<T> {
        vec![value; self.hosts.len()]
    }

    fn size(&self, value: Option<u64>) -> Vec<Option<i64>> {
        self.all(value.and_then(|value| i64::try_from(value).ok()))
    }
}

async fn heartbeats(
    connection: &mut PgConnection,
    columns: &Columns,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let beat = &columns.beat;
    let filesystems = serde_json::value::to_raw_value(&beat.filesystems)?;
    let unknown: Option<Json<Box<RawValue>>> = None;
    let done = sqlx::query(
        "insert into heartbeats
         select * from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::int8[], $5::timestamptz[],
             $6::timestamptz[], $7::float4[], $8::float4[], $9::float4[], $10::float4[], $11::int8[],
             $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[], $17::int8[], $18::int8[],
             $19::int8[], $20::int4[], $21::int4[], $22::bool[], $23::int8[], $24::int8[], $25::int8[],
             $26::int8[], $27::int8[], $28::jsonb[], $29::jsonb[], $30::uuid[], $31::float4[], $32::float4[],
             $33::float4[], $34::float4[], $35::float4[], $36::float4[])
         on conflict do nothing",
    )
    .bind(&columns.hosts)
    .bind(columns.all(now))
    .bind(&columns.streams)
    .bind(&columns.n)
    .bind(columns.all(now))
    .bind(columns.all(now))
    .bind(columns.all(beat.cpu_ratio))
    .bind(columns.all(beat.load_1))
    .bind(columns.all(beat.load_5))
    .bind(columns.all(beat.load_15))
    .bind(columns.size(beat.memory_total_bytes))
    .bind(columns.size(beat.memory_available_bytes))
    .bind(columns.size(beat.swap_total_bytes))
    .bind(columns.size(beat.swap_used_bytes))
    .bind(columns.size(beat.disk_read_bytes_per_s))
    .bind(columns.size(beat.disk_written_bytes_per_s))
    .bind(columns.size(beat.net_received_bytes_per_s))
    .bind(columns.size(beat.net_sent_bytes_per_s))
    .bind(columns.size(beat.uptime_s))
    .bind(columns.all(beat.process_count.map(u32::cast_signed)))
    .bind(columns.all(beat.failed_unit_count.map(u32::cast_signed)))
    .bind(columns.all(beat.reboot_required))
    .bind(columns.size(Some(0)))
    .bind(columns.size(Some(0)))
    .bind(columns.size(Some(0)))
    .bind(columns.size(beat.agent.rss_bytes))
    .bind(columns.size(beat.agent.cpu_ms))
    .bind(columns.all(Json(filesystems)))
    .bind(columns.all(unknown))
    .bind(&columns.instances)
    .bind(columns.all(beat.cpu_pressure_some_ratio))
    .bind(columns.all(beat.memory_pressure_some_ratio))
    .bind(columns.all(beat.memory_pressure_full_ratio))
    .bind(columns.all(beat.io_pressure_some_ratio))
    .bind(columns.all(beat.io_pressure_full_ratio))
    .bind(columns.all(beat.temperature_max_celsius))
    .execute(connection)
    .await?;
    anyhow::ensure!(
        done.rows_affected() == columns.hosts.len() as u64,
        "the loader met a conflict"
    );
    Ok(())
}

async fn liveness(
    connection: &mut PgConnection,
    columns: &Columns,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let beat = &columns.beat;
    let done = sqlx::query(
        "update host_liveness l
         set last_seen_at = i.seen_at, stream = i.stream, n = i.n, boot_id = i.boot_id,
             agent_version = i.version, skew_ms = i.skew_ms, cpu_ratio = i.cpu, memory_used_ratio = i.memory,
             disk_used_ratio = i.disk, failed_unit_count = i.units, reboot_required = i.reboot,
             spool_records = i.spool
         from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::int8[], $5::uuid[], $6::text[],
                     $7::int8[], $8::float4[], $9::float4[], $10::float4[], $11::int4[], $12::bool[],
                     $13::int8[])
             as i (host_id, seen_at, stream, n, boot_id, version, skew_ms, cpu, memory, disk, units, reboot,
                   spool)
         where l.host_id = i.host_id",
    )
    .bind(&columns.hosts)
    .bind(columns.all(now))
    .bind(&columns.streams)
    .bind(&columns.n)
    .bind(&columns.instances)
    .bind(columns.all(beat.agent.version.clone()))
    .bind(columns.size(Some(0)))
    .bind(columns.all(beat.cpu_ratio))
    .bind(columns.all(Some(0.5_f32)))
    .bind(columns.all(Some(0.5_f32)))
    .bind(columns.all(beat.failed_unit_count.map(u32::cast_signed)))
    .bind(columns.all(beat.reboot_required))
    .bind(columns.size(Some(0)))
    .execute(connection)
    .await?;
    anyhow::ensure!(
        done.rows_affected() == columns.hosts.len() as u64,
        "a host of the loader has no row"
    );
    Ok(())
}

async fn events(
    connection: &mut PgConnection,
    hosts: &[Ids],
    turn: usize,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let first = turn * EVENTS_OF_HOST;
    let each = |of: fn(&Ids) -> Uuid| -> Vec<Uuid> {
        let of = hosts.iter().map(of);
        of.flat_map(|id| [id; EVENTS_OF_HOST]).collect()
    };
    let (ids, streams, instances) = (each(|ids| ids.0), each(|ids| ids.1), each(|ids| ids.2));
    let seqs: Vec<i64> = hosts
        .iter()
        .flat_map(|_| first..first + EVENTS_OF_HOST)
        .map(|seq| seq as i64)
        .collect();
    let bodies = seqs
        .iter()
        .map(|seq| super::sender::event_json(seq.unsigned_abs()));
    let bodies: Vec<Json<Box<RawValue>>> = bodies
        .map(|body| body.map(Json))
        .collect::<Result<_, _>>()?;
    let count = ids.len();
    sqlx::query(
        "insert into events (host_id, at, claimed_at, received_at, stream, seq, boot_id, mono_ms, kind, body,
                             instance)
         select * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::uuid[],
             $6::int8[], $7::uuid[], $8::int8[], $9::text[], $10::jsonb[], $11::uuid[])",
    )
    .bind(&ids)
    .bind(vec![now; count])
    .bind(vec![now; count])
    .bind(vec![now; count])
    .bind(&streams)
    .bind(&seqs)
    .bind(&instances)
    .bind(&seqs)
    .bind(vec![super::sender::KIND; count])
    .bind(&bodies)
    .bind(&instances)
    .execute(&mut *connection)
    .await?;
    let column = |of: fn(&Ids) -> Uuid| -> Vec<Uuid> { hosts.iter().map(of).collect() };
    sqlx::query(
        "insert into agent_streams (host_id, stream, instance, critical_seq, critical_hash, created_at)
         select host_id, stream, instance, $4, $5, $6
         from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as i (host_id, stream, instance)
         on conflict (host_id, stream) do update
         set instance = excluded.instance, critical_seq = excluded.critical_seq,
             critical_hash = excluded.critical_hash",
    )
    .bind(column(|ids| ids.0))
    .bind(column(|ids| ids.1))
    .bind(column(|ids| ids.2))
    .bind((first + EVENTS_OF_HOST) as i64)
    .bind(ids.first().map(|id| id.as_bytes().to_vec()))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn a_turn_takes_hosts_that_are_far_apart_and_each_has_its_turn() {
        let all: Vec<usize> = (0..6).collect();
        assert_eq!(spread(&all, 0, 2), [0, 3]);
        assert_eq!(spread(&all, 1, 2), [1, 4]);
        assert_eq!(spread(&all, 3, 2), [0, 3]);
        assert_eq!(spread(&all, 7, 10), all);
    }
}
