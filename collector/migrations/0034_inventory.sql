-- Inventories: what each source said when it was last read, and the hosts it expects.

create table inventories (
    source         text        primary key,
    kind           text        not null check (kind in ('ansible', 'terraform', 'csv')),
    synced_at      timestamptz not null,
    synced_by      text        not null,
    entry_count    integer     not null
);

-- One row an entry of a source, and it stays when the entry goes: what was there once may still report.
create table expected_hosts (
    source         text        not null references inventories on delete cascade,
    -- Names the entry in its source.
    key            text        not null,
    entry          jsonb       not null,
    name           text        not null,
    instance_id    text,
    addresses      inet[]      not null,
    host_id        uuid references hosts,
    -- By what the host was found; null for one that was made of the entry.
    linked_by      text check (linked_by in ('instance_id', 'address', 'name')),
    -- The row made of the entry before its agent enrolled as a host of its own: the two are to be merged.
    duplicate_id   uuid references hosts,
    first_seen_at  timestamptz not null,
    last_seen_at   timestamptz not null,
    -- Since when the source does not list it.
    gone_at        timestamptz,
    -- Since when the source says, or by its absence means, that it was destroyed.
    destroyed_at   timestamptz,
    primary key (source, key)
);

create index expected_hosts_host on expected_hosts (host_id) where host_id is not null;
create index expected_hosts_duplicate on expected_hosts (duplicate_id) where duplicate_id is not null;
create index hosts_instance_id on hosts (instance_id) where instance_id is not null;

-- Every entry with its state, and every agent that no source knows. An agent reports if it was last seen after
-- `offline_before`.
create function expected_ledger(offline_before timestamptz) returns table (
    state text, source text, key text, name text, instance_id text, addresses inet[], host_id uuid, linked_by text,
    duplicate_id uuid, first_seen_at timestamptz, last_seen_in_source_at timestamptz, gone_at timestamptz,
    destroyed_at timestamptz, last_seen_at timestamptz
) language sql stable as $$
    select case
            when e.destroyed_at is not null and r.reports and r.last_seen_at > e.destroyed_at then 'destroyed_reporting'
            when e.gone_at is not null or e.destroyed_at is not null then 'gone'
            when r.reports then 'ok'
            else 'absent'
        end, e.source, e.key, e.name, e.instance_id, e.addresses, e.host_id, e.linked_by, d.host_id, e.first_seen_at,
        e.last_seen_at, e.gone_at, e.destroyed_at, r.last_seen_at
    from expected_hosts e
    left join lateral (
        select l.last_seen_at, l.instance is not null and l.last_seen_at >= offline_before as reports
        from host_liveness l join hosts h using (host_id)
        where l.host_id = e.host_id and h.retired_at is null
    ) r on true
    left join hosts d on d.host_id = e.duplicate_id and d.retired_at is null
    union all
    select 'unexpected', '', h.host_id::text, h.name, h.instance_id, h.addresses, h.host_id, null, null, null, null,
        null, null, l.last_seen_at
    from hosts h join host_liveness l using (host_id)
    where h.retired_at is null and h.conflict_of is null and h.deleted_at is null
      and l.instance is not null and l.last_seen_at >= offline_before
      and not exists (select from expected_hosts e
                      where e.host_id = h.host_id and (e.gone_at is null or e.destroyed_at is not null))
$$;
