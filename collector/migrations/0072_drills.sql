-- Restores that are rehearsed: how often each volume's is, and what came of it.

alter table volumes
    -- Null: not at all.
    add column drill_every_s integer default 2592000,
    -- As `wire::drill::DrillMode`.
    add column drill_mode text not null default 'full' check (drill_mode in ('full', 'database', 'validation')),
    -- How long it may take to have it back; null: nothing is promised.
    add column rto_s integer default 1800,
    -- Somebody wants one now.
    add column drill_asked_at timestamptz,
    add column drill_asked_by text,
    add column drill_asked_mode text check (drill_asked_mode in ('full', 'database', 'validation')),
    -- The last that ended `ok` or `failed`.
    add column last_drill_id uuid,
    add column last_good_drill_at timestamptz;

create table drills (
    drill_id uuid primary key,
    volume_id uuid not null references volumes (volume_id),
    host_id uuid not null,
    trigger text not null,
    asked_by text,
    mode text not null check (mode in ('full', 'database', 'validation')),
    state text not null check (state in ('running', 'ok', 'failed', 'cancelled')),
    -- Of `wire::backup::reason`.
    reason text,
    detail text,
    started_at timestamptz not null,
    ended_at timestamptz,
    -- Null: its host said how it ended.
    lease_until timestamptz,
    orders text not null default 'go_on' check (orders in ('go_on', 'cancel')),
    -- As `wire::backup::Progress`.
    progress jsonb not null default '{}',
    snapshot_id uuid,
    is_sampled boolean not null default false,
    files bigint,
    bytes bigint,
    files_total bigint,
    bytes_total bigint,
    read_bytes bigint,
    mismatches bigint,
    differing text[] not null default '{}',
    -- Until it could be used again; of a sample what all of it would take, by its bytes.
    restore_ms bigint,
    -- What was promised when it began.
    rto_s integer,
    -- `[{name, outcome, detail}…]`.
    checks jsonb not null default '[]',
    -- `[[name, version]…]`.
    tools jsonb not null default '[]',
    agent text not null
);

create index drills_of_volume on drills (volume_id, started_at desc, drill_id desc);
create index drills_by_time on drills (started_at desc, drill_id desc);
create index drills_running on drills (lease_until) where state = 'running';
-- At most one at a time: they read much.
create unique index drills_alone on drills (host_id) where state = 'running';

-- When the next drill of each volume is due, and from when on it is overdue. The first is at a time of the volume's own within the first
-- period, so that a fleet which was set up at once is not read at once; one that failed is tried again a day later.
create view volume_drills as
select v.volume_id, d.drill_id, d.state, d.reason, d.started_at, d.ended_at, d.is_sampled, d.restore_ms, d.rto_s,
    case
        when p.every_s is null then null
        when d.drill_id is null
            then v.created_at + make_interval(secs => p.every_s * ('x' || right(v.volume_id::text, 4))::bit(16)::integer / 65536.0)
        when d.state = 'ok' then d.started_at + make_interval(secs => p.every_s)
        else d.started_at + make_interval(secs => least(p.every_s, 86400))
    end as due_at,
    coalesce(v.last_good_drill_at, v.created_at) + make_interval(secs => p.every_s * 1.25) as overdue_at
from volumes v
cross join lateral (select case when v.kind <> 'external' then v.drill_every_s end as every_s) p
left join drills d on d.drill_id = v.last_drill_id
where v.deleted_at is null;
