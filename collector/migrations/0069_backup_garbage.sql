-- What goes of backups, and what was read again.
alter table volumes
    -- When all of its packs were last held against what its snapshots need.
    add column collected_at timestamptz;

alter table snapshots
    -- When its object was last read and found as it was stored.
    add column verified_at timestamptz,
    -- Its object is gone, or is another.
    add column lost_at timestamptz;

create index packs_of_volume on packs (volume_id, pack_id);
create index snapshots_to_verify on snapshots (coalesce(verified_at, arrived_at))
    where deleted_at is null and lost_at is null and size_bytes is not null;
