-- Two instances of one host: who reported as it when, and which of them were set apart.

create table host_instances (
    host_id       uuid        not null references hosts on delete cascade,
    instance      uuid        not null,
    -- Orders a host's instances by when each of them took over, whatever clocks said.
    ordinal       bigint      not null generated always as identity,
    boot_id       uuid        not null,
    address       inet        not null,
    first_seen_at timestamptz not null,
    -- When its successor's first batch was committed. Null for the one that is in place, and for a moment
    -- after the commit: nothing received before the instant counts as coming back.
    replaced_at   timestamptz,
    primary key (host_id, instance)
);

-- Where the host's cursors stood when an instance took over.
create table agent_stream_marks (
    host_id       uuid   not null,
    instance      uuid   not null,
    stream        uuid   not null,
    mover         uuid   not null,
    critical_seq  bigint not null,
    critical_hash bytea,
    beat_seq      bigint not null,
    beat_hash     bytea,
    primary key (host_id, instance, stream),
    foreign key (host_id, instance) references host_instances on delete cascade
);

create table host_conflicts (
    conflict_id       uuid primary key,
    -- The host that the shared certificate names.
    host_id           uuid        not null references hosts on delete cascade,
    -- Where the clone's rows are; a host of its own after a split.
    hidden_host_id    uuid        not null unique references hosts on delete cascade,
    detected_at       timestamptz not null,
    -- The one that came back and keeps the host.
    kept_instance     uuid        not null,
    kept_boot_id      uuid        not null,
    kept_address      inet        not null,
    kept_first_seen_at timestamptz not null,
    -- The one that had come between.
    clone_instance    uuid        not null,
    clone_boot_id     uuid        not null,
    clone_address     inet        not null,
    clone_first_seen_at timestamptz not null,
    state             text        not null default 'open'
        check (state in ('open', 'splitting', 'split', 'dropped')),
    resolved_at       timestamptz,
    resolved_by       text,
    check ((resolved_at is not null) = (state in ('split', 'dropped')))
);

create index host_conflicts_host on host_conflicts (host_id, detected_at desc);

-- Read under the row's lock, which orders the batches of a host over all collectors.
alter table host_liveness add column clone_count integer not null default 0;
alter table host_liveness add column open_conflict_count integer not null default 0;
