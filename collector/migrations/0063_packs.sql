-- What the store of objects has of volumes. A chunk is found by its id, and known by origin and counter: two of the same id may
-- have been sealed, and a snapshot needs the one that it names, or where that is lost, any other.

create table origins (
    origin_id bigint generated always as identity primary key,
    volume_id uuid not null references volumes (volume_id),
    salt bytea not null,
    algorithm smallint not null,
    unique (volume_id, salt)
);

create table packs (
    pack_id bigint generated always as identity primary key,
    volume_id uuid not null references volumes (volume_id),
    hash bytea not null,
    -- 1: content, 2: trees.
    kind smallint not null,
    key_id bytea not null,
    size_bytes integer not null,
    stored_at timestamptz not null,
    -- When all of it was last read and found as it was stored.
    verified_at timestamptz,
    -- Nothing needs it any more; it goes when this is long enough ago.
    condemned_at timestamptz,
    lost_at timestamptz,
    unique (volume_id, hash)
);

create index packs_to_verify on packs (coalesce(verified_at, stored_at)) where lost_at is null;
create index packs_condemned on packs (condemned_at) where condemned_at is not null;

create table chunks (
    origin_id bigint not null references origins (origin_id),
    counter integer not null,
    chunk_id bytea not null,
    pack_id bigint not null references packs (pack_id),
    offset_bytes integer not null,
    length_bytes integer not null,
    is_lost boolean not null default false,
    primary key (origin_id, counter)
);

create index chunks_by_id on chunks (chunk_id);
create index chunks_of_pack on chunks (pack_id);
create index chunks_lost on chunks (origin_id, counter) where is_lost;

create table snapshots (
    snapshot_id uuid primary key,
    volume_id uuid not null references volumes (volume_id),
    run_id uuid not null references backup_runs (run_id),
    host_id uuid not null,
    -- Null: another tool has it, and no key of ours.
    key_id bytea,
    kind text not null check (kind in ('files', 'command', 'external')),
    is_whole boolean not null,
    -- By the host's clock; by the collector's where that was wrong.
    at timestamptz not null,
    is_clock_wrong boolean not null default false,
    arrived_at timestamptz not null,
    files bigint not null,
    bytes bigint not null,
    -- Of the object; null: there is none, another tool has it.
    size_bytes integer,
    -- BLAKE3 of the object.
    hash bytea,
    -- As `shared::backup::Refs` are on the wire.
    refs bytea,
    chunks bigint not null default 0,
    -- Somebody wants it kept, whatever the rules say.
    held_at timestamptz,
    held_by text,
    held_because text,
    -- No longer there for anybody; its object goes before its row.
    deleted_at timestamptz
);

create index snapshots_of_volume on snapshots (volume_id, at desc, snapshot_id desc) where deleted_at is null;
create index snapshots_deleted on snapshots (deleted_at) where deleted_at is not null;
