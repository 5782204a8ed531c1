-- Hosts, and the narrow row each heartbeat updates.

create table hosts (
    host_id      uuid primary key,
    name         text        not null,
    machine_id   text,
    tags         text[]      not null default '{}',
    created_at   timestamptz not null,
    retired_at   timestamptz,
    -- The host this one's rows were set apart from.
    conflict_of  uuid references hosts
);

create index hosts_name on hosts (name, host_id);

-- One row a host, updated by every heartbeat: no index on a column that changes, so that updates stay
-- heap-only. What a host list shows and filters by is here.
create table host_liveness (
    host_id               uuid primary key references hosts on delete cascade,
    last_seen_at          timestamptz,
    stream                uuid,
    n                     bigint,
    instance              uuid,
    previous_instance     uuid,
    instance_changed_at   timestamptz,
    -- When a process that had been replaced reported again: two copies of one host.
    interleaved_at        timestamptz,
    boot_id               uuid,
    boot_changed_at       timestamptz,
    agent_version         text,
    -- Agent's clock less collector's.
    skew_ms               bigint,
    cpu_ratio             real,
    memory_used_ratio     real,
    -- The fullest filesystem, by bytes or inodes.
    disk_used_ratio       real,
    failed_unit_count     integer,
    reboot_required       boolean,
    reboot_required_since timestamptz,
    spool_records         bigint,
    -- Over the stored facts, to compare with what heartbeats say.
    facts_hash            bytea,
    -- What the liveness job last said of this host, and why.
    liveness              text not null default 'never'
        check (liveness in ('online', 'late', 'offline', 'never')),
    liveness_reason       text,
    liveness_changed_at   timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
