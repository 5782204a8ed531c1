-- What goes down to agents, and who is there to send it.

create table commands (
    command_id   uuid primary key,
    host_id      uuid        not null references hosts on delete cascade,
    action       text        not null,
    target       text,
    created_at   timestamptz not null,
    created_by   text        not null,
    expires_at   timestamptz not null,
    -- Written to a connection; says nothing of its arrival.
    sent_at      timestamptz,
    -- The agent has it, durably.
    confirmed_at timestamptz,
    finished_at  timestamptz,
    outcome      text,
    detail       text
);

create index commands_open on commands (host_id, created_at) where confirmed_at is null;
create index commands_host on commands (host_id, created_at desc);

-- The newest version is in force.
create table policies (
    version    bigint primary key generated always as identity,
    body       jsonb       not null,
    created_at timestamptz not null,
    created_by text        not null
);

create table collectors (
    collector_id uuid primary key,
    hostname     text        not null,
    version      text        not null,
    started_at   timestamptz not null,
    alive_at     timestamptz not null,
    stopped_at   timestamptz
);

-- Times in which no collector was alive: hosts were not silent then, nobody listened.
create table collector_downtimes (
    from_at timestamptz primary key,
    to_at   timestamptz not null,
    check (from_at < to_at)
);

create index collector_downtimes_to on collector_downtimes (to_at);
