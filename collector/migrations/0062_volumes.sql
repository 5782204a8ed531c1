-- What is protected on hosts, where its chunks are, and how its runs ended. docs/formats/backup.md has the formats.

create table volumes (
    volume_id uuid primary key,
    -- A host's volumes are deleted before it is.
    host_id uuid not null references hosts (host_id),
    name text not null,
    kind text not null check (kind in ('files', 'command', 'external')),
    -- As `wire::backup::Source`.
    source jsonb not null,
    is_database boolean not null default false,
    -- Cron of five fields, in UTC; null: on command only.
    schedule text,
    jitter_s integer not null default 0,
    -- Null: none is promised.
    rpo_s integer,
    -- As `backups::retention::Rules`.
    retention jsonb not null,
    -- `[[from, until]…]`, minutes of the day.
    closed_windows jsonb not null default '[]',
    -- Bytes a second.
    bandwidth bigint,
    pre_hook text,
    post_hook text,
    is_catalog_visible boolean not null default false,
    is_paused boolean not null default false,
    owner text,
    created_at timestamptz not null,
    created_by text not null,
    updated_at timestamptz not null,
    version bigint not null default 1,
    -- Its snapshots go by and by.
    deleted_at timestamptz,
    deleted_by text,
    -- Of the newest snapshot, with everything in it or not, and of the newest with everything.
    last_snapshot_at timestamptz,
    last_ok_at timestamptz
);

create unique index volumes_names on volumes (host_id, name) where deleted_at is null;

create table volume_keys (
    volume_id uuid not null references volumes (volume_id),
    key_id bytea not null,
    -- An age file.
    wrapped bytea not null,
    recipients text[] not null,
    created_at timestamptz not null,
    primary key (volume_id, key_id)
);

create table backup_runs (
    run_id uuid primary key,
    volume_id uuid not null references volumes (volume_id),
    host_id uuid not null,
    trigger text not null,
    state text not null check (state in ('running', 'ok', 'incomplete', 'failed', 'cancelled')),
    -- Of `wire::backup::reason`; null while it runs, and where it is ok.
    reason text,
    detail text,
    started_at timestamptz not null,
    host_started_at timestamptz not null,
    ended_at timestamptz,
    -- Null: its host said how it ended. Else, where it has ended, the lease ran out, and the host may still say.
    lease_until timestamptz,
    orders text not null default 'go_on' check (orders in ('go_on', 'pause', 'cancel')),
    -- The snapshot whose chunks the host relies on.
    parent_id uuid,
    key_id bytea,
    -- As `wire::backup::Progress`.
    progress jsonb not null default '{}',
    files bigint,
    bytes bigint,
    new_bytes bigint,
    sent_bytes bigint,
    cpu_ms bigint,
    errors text[] not null default '{}',
    errors_total bigint not null default 0,
    snapshot_id uuid,
    agent text not null
);

create index backup_runs_of_volume on backup_runs (volume_id, started_at desc, run_id desc);
create index backup_runs_of_host on backup_runs (host_id, started_at desc, run_id desc);
create index backup_runs_running on backup_runs (lease_until) where state = 'running';
-- At most one at a time.
create unique index backup_runs_alone on backup_runs (volume_id) where state = 'running';
