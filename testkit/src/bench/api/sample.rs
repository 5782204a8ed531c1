//! A made-up fleet with a past: hosts with metadata and facts, heartbeats of the last days, events of the last month.
//!
//! Made in Postgres by numbers from hashes, so that the same size is the same fleet, in bulk statements by host.

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub hosts: i32,
    pub heartbeats: i64,
    pub events: i64,
}

/// Hosts of one statement.
const CHUNK: i32 = 1000;

const HOSTS: &str = "
    with made as (
        select i, ('x' || substr(md5('a' || i), 1, 7))::bit(28)::int as a, ('x' || substr(md5('b' || i), 1, 7))::bit(28)::int as b,
            ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid as host_id
        from generate_series($1::int, $2::int) as i
    ), host as (
        insert into hosts (host_id, name, machine_id, tags, owner, environment, addresses, os_id, os_name, origin,
                           created_at, retired_at)
        select host_id, (array['prod', 'test', 'dev'])[1 + a % 3] || '-' || (array['web', 'db', 'cache', 'app'])[1 + b % 4]
                || '-' || i || '.example.org', md5('m' || i),
            array['env:' || (array['prod', 'test', 'dev'])[1 + a % 3], 'role:' || (array['web', 'db', 'cache', 'app'])[1 + b % 4],
                  'dc:' || a % 10],
            'team-' || b % 20, (array['prod', 'test', 'dev'])[1 + a % 3],
            array[('10.' || i / 65536 || '.' || i / 256 % 256 || '.' || i % 256)::inet],
            (array['debian', 'almalinux', 'ubuntu'])[1 + a % 3],
            (array['Debian GNU/Linux 12 (bookworm)', 'AlmaLinux 9.4', 'Ubuntu 24.04 LTS'])[1 + a % 3],
            case when b % 50 = 0 then 'manual' else 'agent' end, $3::timestamptz - make_interval(mins => a % 100000),
            case when b % 40 = 1 then $3::timestamptz end
        from made
    ), cert as (
        insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, issue_logged_at)
        select decode(md5('s' || i || n), 'hex'), host_id, decode(md5('k' || i || n), 'hex'), decode(repeat(md5(i || 'c'), 24), 'hex'),
            $3::timestamptz - make_interval(days => n * 20), $3::timestamptz + make_interval(days => 30 - n * 20),
            $3::timestamptz
        from made, generate_series(0, 1) as n
    )
    insert into host_liveness (host_id, last_seen_at, agent_version, skew_ms, cpu_ratio, memory_used_ratio,
        disk_used_ratio, failed_unit_count, reboot_required, reboot_required_since, spool_records, liveness)
    select host_id,
        case when b % 50 > 0 then $3::timestamptz + interval '1 hour' - case when a % 30 = 0 then interval '1 day' else interval '0' end end,
        case when b % 50 > 0 then '0.1.' || a % 3 end, a % 1000, (a % 1000 / 1000.0)::real, (b % 1000 / 1000.0)::real,
        ((a + b) % 1000 / 1000.0)::real, case when b % 17 = 0 then 1 else 0 end, a % 23 = 0,
        case when a % 23 = 0 then $3::timestamptz - interval '9 days' end, 0,
        case when b % 50 = 0 then 'never' when a % 30 = 0 then 'offline' else 'online' end
    from made";

const FACTS: &str = "
    insert into facts (host_id, key, stream_ordinal, version, hash, body, changed_at)
    select ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, key, 1, 1, decode(md5(i || key), 'hex'), body, $3
    from generate_series($1::int, $2::int) as i, lateral (values
        ('facts.identity', jsonb_build_object('hostname', 'h' || i || '.example.org', 'machine_id', md5('m' || i))),
        ('facts.os', jsonb_build_object('id', 'debian', 'name', 'Debian GNU/Linux', 'version', '12', 'codename', 'bookworm',
            'pretty_name', 'Debian GNU/Linux 12 (bookworm)')),
        ('facts.kernel', jsonb_build_object('release', '6.1.0-' || i % 30 || '-amd64', 'arch', 'x86_64',
            'version', '#1 SMP PREEMPT_DYNAMIC Debian 6.1.' || i % 30)),
        ('facts.cpu', jsonb_build_object('model', case i % 2 when 0 then 'AMD EPYC 7763' else 'Intel Xeon Gold 6330' end,
            'vendor', 'any', 'sockets', 1, 'cores', 4 << i % 4, 'threads', 8 << i % 4)),
        ('facts.memory', jsonb_build_object('total_bytes', 1::int8 << 32 + i % 5)),
        ('facts.network', jsonb_build_object('interfaces', jsonb_build_object('eth0', jsonb_build_object(
            'mac', '52:54:00:' || to_hex(i % 256) || ':' || to_hex(i / 256 % 256), 'mtu', 1500, 'addresses',
            array['10.' || i / 65536 || '.' || i / 256 % 256 || '.' || i % 256 || '/16', '2001:db8::' || to_hex(i % 65536) || '/64'])))),
        ('facts.mounts', jsonb_build_object('mounts', jsonb_build_object('/', jsonb_build_object('source', '/dev/vda1', 'type',
            'ext4', 'options', 'rw,relatime'), '/srv/data' || i % 40, jsonb_build_object('source', '/dev/mapper/vg0-data',
            'type', 'xfs', 'options', 'rw,noatime')))),
        ('facts.dns', jsonb_build_object('manager', 'systemd-resolved', 'nameservers', array['10.0.0.53', '10.0.1.53'])),
        ('facts.users', jsonb_build_object('users', (select jsonb_agg(jsonb_build_object('name', 'user' || u + i % 50, 'uid',
            1000 + u, 'gid', 1000 + u, 'home', '/home/user' || u, 'shell', '/bin/bash')) from generate_series(1, 8) as u))),
        ('facts.listening', jsonb_build_object('sockets', (select jsonb_agg(jsonb_build_object('protocol', 'tcp', 'address',
            '0.0.0.0', 'port', 1000 + s * 97 + i % 50, 'user', 'root', 'process', 'daemon' || s, 'unit', 'daemon' || s || '.service'))
            from generate_series(1, 15) as s))),
        ('facts.linux', jsonb_build_object('family', 'linux', 'serial', md5('serial' || i)))
    ) as told (key, body)";

const WORDS: &str = "
    insert into host_fact_words
    select h, fact_words(h) from generate_series($1::int, $2::int) as i,
        lateral (select ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid as h) as id
    where $3::timestamptz is not null";

const HEARTBEATS: &str = "
    insert into heartbeats (host_id, at, stream, n, claimed_at, received_at, cpu_ratio, load_1, load_5, load_15,
        memory_total_bytes, memory_available_bytes, swap_total_bytes, swap_used_bytes, uptime_s, process_count,
        failed_unit_count, reboot_required, filesystems)
    select ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, at, '00000000-0000-4000-8000-000000000001', n,
        at, at, ((i + n) % 100 / 100.0)::real, 1, 1, 1, 1::int8 << 34, 1::int8 << 33, 0, 0, n * 30, 100, 0, false,
        '[{\"mount\": \"/\", \"total_bytes\": 100, \"available_bytes\": 50, \"inodes_total\": 10, \"inodes_free\": 9}]'
    from generate_series($1::int, $2::int) as i, generate_series(1, $4::int8) as n,
        lateral (select $3::timestamptz - make_interval(secs => n * 30) as at) as time";

const EVENTS: &str = "
    insert into events (host_id, at, claimed_at, received_at, kind, body)
    select ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, at, at, at,
        (array['host_online', 'host_offline', 'package_installed', 'login'])[1 + (i + n) % 4],
        jsonb_build_object('reason', 'network', 'number', n)
    from generate_series($1::int, $2::int) as i, generate_series(1, $4::int8) as n,
        lateral (select $3::timestamptz - make_interval(mins => (n * 137 % 36000)::int) as at) as time";

/// Fills the tables; the collector has made their partitions.
pub async fn load(
    options: PgConnectOptions,
    sample: Sample,
    now: OffsetDateTime,
    say: &impl Fn(&str),
) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&options).await?;
    let each = |rows: i64| (rows / i64::from(sample.hosts).max(1)).max(1);
    for (what, sql, rows) in [
        ("hosts", HOSTS, None),
        ("facts", FACTS, None),
        ("words", WORDS, None),
        ("heartbeats", HEARTBEATS, Some(each(sample.heartbeats))),
        ("events", EVENTS, Some(each(sample.events))),
    ] {
        say(&format!("loading {what}"));
        for first in (1..=sample.hosts).step_by(CHUNK.unsigned_abs() as usize) {
            let last = (first + CHUNK - 1).min(sample.hosts);
            let mut query = sqlx::query(sql)
                .bind(first)
                .bind(last)
                .bind(now - Duration::minutes(1));
            if let Some(rows) = rows {
                query = query.bind(rows);
            }
            query
                .execute(&mut connection)
                .await
                .with_context(|| format!("cannot load {what}"))?;
        }
    }
    say("vacuum");
    sqlx::query("vacuum analyze")
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
