-- What happened, by month; and what is, as facts with their history.

create table events (
    host_id     uuid        not null,
    at          timestamptz not null,
    event_id    bigint      not null generated always as identity,
    claimed_at  timestamptz not null,
    received_at timestamptz not null,
    -- Null where the collector itself says it.
    stream      uuid,
    seq         bigint,
    boot_id     uuid,
    mono_ms     bigint,
    kind        text        not null,
    body        jsonb       not null,
    primary key (host_id, at, event_id)
) partition by range (at);

create table facts (
    host_id        uuid        not null references hosts on delete cascade,
    key            text        not null,
    stream_ordinal bigint      not null,
    version        bigint      not null,
    hash           bytea       not null,
    body           jsonb       not null,
    changed_at     timestamptz not null,
    primary key (host_id, key)
);

create table fact_changes (
    host_id    uuid        not null references hosts on delete cascade,
    changed_at timestamptz not null,
    key        text        not null,
    old_body   jsonb,
    new_body   jsonb       not null,
    primary key (host_id, changed_at, key)
);
