-- Heartbeats: raw by day, dropped by retention; sums by 5 minutes and by hour, kept longer.

create table heartbeats (
    host_id                  uuid        not null,
    -- When it happened, as far as can be told: the host's clock, corrected where it is far off.
    at                       timestamptz not null,
    stream                   uuid        not null,
    n                        bigint      not null,
    claimed_at               timestamptz not null,
    received_at              timestamptz not null,
    cpu_ratio                real,
    load_1                   real,
    load_5                   real,
    load_15                  real,
    memory_total_bytes       bigint,
    memory_available_bytes   bigint,
    swap_total_bytes         bigint,
    swap_used_bytes          bigint,
    disk_read_bytes_per_s    bigint,
    disk_written_bytes_per_s bigint,
    net_received_bytes_per_s bigint,
    net_sent_bytes_per_s     bigint,
    uptime_s                 bigint,
    process_count            integer,
    failed_unit_count        integer,
    reboot_required          boolean,
    spool_critical_records   bigint,
    spool_beat_records       bigint,
    spool_size_bytes         bigint,
    agent_rss_bytes          bigint,
    agent_cpu_ms             bigint,
    filesystems              jsonb       not null,
    unknown                  jsonb,
    primary key (host_id, at, stream, n)
) partition by range (at);

-- Sums and counts, not averages, so that what comes late can be added.
create table heartbeats_5m (
    host_id                uuid        not null,
    at                     timestamptz not null,
    samples                integer     not null,
    cpu_samples            integer     not null,
    cpu_ratio_sum          double precision not null,
    cpu_ratio_max          real,
    load_samples           integer     not null,
    load_1_sum             double precision not null,
    load_1_max             real,
    memory_samples         integer     not null,
    memory_used_ratio_sum  double precision not null,
    memory_used_ratio_max  real,
    disk_used_ratio_max    real,
    net_received_bytes_per_s_max bigint,
    net_sent_bytes_per_s_max     bigint,
    disk_read_bytes_per_s_max    bigint,
    disk_written_bytes_per_s_max bigint,
    primary key (host_id, at)
);

create table heartbeats_1h (like heartbeats_5m including all);

-- 5-minute buckets whose raw rows changed after they were summed.
create table heartbeats_dirty (
    host_id uuid        not null,
    at      timestamptz not null,
    primary key (host_id, at)
);

-- Bytes or inodes, the fuller of the two, over all filesystems of one heartbeat.
create function disk_used_ratio(filesystems jsonb) returns real
    language sql immutable parallel safe as $$
    select max(greatest(
        1 - (f ->> 'available_bytes')::float8 / nullif((f ->> 'total_bytes')::float8, 0),
        1 - (f ->> 'inodes_free')::float8 / nullif((f ->> 'inodes_total')::float8, 0)))::real
    from jsonb_array_elements(filesystems) as f
$$;
