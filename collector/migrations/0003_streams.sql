-- How far each host's numbering is stored, and what will never come.

-- One row a stream: locked by the transaction that moves its cursors.
create table agent_streams (
    host_id       uuid        not null references hosts on delete cascade,
    stream        uuid        not null,
    -- Orders a host's streams by when they were first seen, whatever its clock said.
    ordinal       bigint      not null generated always as identity,
    instance      uuid        not null,
    critical_seq  bigint      not null default 0,
    critical_hash bytea,
    beat_seq      bigint      not null default 0,
    beat_hash     bytea,
    created_at    timestamptz not null,
    primary key (host_id, stream)
);

create table gaps (
    host_id     uuid        not null references hosts on delete cascade,
    stream      uuid        not null,
    class       text        not null check (class in ('critical', 'beat')),
    from_seq    bigint      not null,
    to_seq      bigint      not null,
    reason      text        not null,
    received_at timestamptz not null,
    primary key (host_id, stream, class, from_seq),
    check (from_seq <= to_seq)
);

-- Records that can't be stored as what they are, whole, with the reason.
create table dead_letters (
    host_id     uuid        not null references hosts on delete cascade,
    stream      uuid        not null,
    class       text        not null,
    seq         bigint      not null,
    kind        text        not null,
    claimed_at  timestamptz not null,
    received_at timestamptz not null,
    error       text        not null,
    body        bytea       not null,
    primary key (host_id, stream, class, seq)
);
