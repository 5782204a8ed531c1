-- Which hosts changes touch: what may name a host in each run, and the hosts that it was found to be.

-- What agents say of the machine, by which resources find it. MAC addresses and ids in lower case.
alter table hosts
    add column dmi_uuid      text,
    add column dmi_serial    text,
    add column macs          text[] not null default '{}',
    -- When anything by which a link finds the host last moved.
    add column identified_at timestamptz not null default now();

-- The MAC addresses in the body of `facts.network`, at most 64.
create function network_macs(body jsonb) returns text[] language sql immutable as $$
    select coalesce(array_agg(mac order by mac), '{}')
    from (
        select distinct lower(left(told #>> '{}', 64)) as mac from jsonb_path_query(body, '$.interfaces.*.mac') as told
        order by mac limit 64
    ) as found
$$;

update hosts h
set dmi_uuid = lower(left(f.facts #>> '{facts.dmi,uuid}', 64)),
    dmi_serial = left(f.facts #>> '{facts.dmi,serial}', 128),
    macs = coalesce(network_macs(f.facts -> 'facts.network'), '{}'),
    instance_id = coalesce(h.instance_id, left(f.facts #>> '{facts.dmi,cloud,instance_id}', 128))
from (
    select host_id, jsonb_object_agg(key, body) as facts from facts
    where key in ('facts.network', 'facts.dmi') group by host_id
) as f
where h.host_id = f.host_id;

create index hosts_dmi_uuid on hosts (dmi_uuid) where dmi_uuid is not null;
create index hosts_dmi_serial on hosts (dmi_serial) where dmi_serial is not null;
create index hosts_machine_id on hosts (machine_id) where machine_id is not null;
create index hosts_macs on hosts using gin (macs);
create index hosts_addresses on hosts using gin (addresses);
-- Without the domain.
create index hosts_label on hosts (split_part(lower(name), '.', 1));
create index hosts_identified on hosts (identified_at);

create function mark_identified() returns trigger language plpgsql as $$
begin
    new.identified_at = clock_timestamp();
    return new;
end
$$;

create trigger hosts_identified before update on hosts for each row
    when ((old.name, old.machine_id, old.addresses, old.instance_id, old.dmi_uuid, old.dmi_serial, old.macs,
           old.conflict_of, old.merged_into) is distinct from
          (new.name, new.machine_id, new.addresses, new.instance_id, new.dmi_uuid, new.dmi_serial, new.macs,
           new.conflict_of, new.merged_into))
    execute function mark_identified();

-- What may be a host in a run, one row for each resource (twice where it is replaced) and each host of a play.
create table change_links (
    link_id    bigint      generated always as identity primary key,
    run_id     uuid        not null references change_runs on delete cascade,
    -- The resource's, or the number of the play's host.
    ordinal    integer     not null,
    -- `is`: the resource after the run; `was`: what it destroys or replaces; `drift`: found to be different;
    -- `affects`: it refers to the host; `play`: a host of a play.
    role       text        not null check (role in ('is', 'was', 'drift', 'affects', 'play')),
    -- The resource's address, or the name in the play's inventory.
    name       text        not null,
    -- `{mark: [value]}`.
    marks      jsonb       not null,
    state      text        not null check (state in ('linked', 'pending', 'ambiguous', 'expired')),
    host_id    uuid        references hosts on delete cascade,
    -- The mark by which the host was found, and how sure that is: `certain`, `high`, `medium`, `low`.
    method     text,
    confidence text,
    -- It has an id, and was found by something else.
    is_weak    boolean     not null default false,
    -- What was there before is not it, unless an id says so.
    new_since  timestamptz,
    created_at timestamptz not null,
    tried_at   timestamptz not null,
    unique (run_id, ordinal, role),
    check ((state = 'linked') = (host_id is not null))
);

create index change_links_host on change_links (host_id) where host_id is not null;
create index change_links_waiting on change_links (tried_at) where state in ('pending', 'ambiguous') or is_weak;

-- Hosts that a run touched, or that somebody says a change touched: without a run.
create table change_hosts (
    change_id  uuid        not null references changes on delete cascade,
    run_id     uuid        references change_runs on delete cascade,
    host_id    uuid        not null references hosts on delete cascade,
    -- The run's times, or the change's.
    at         timestamptz not null,
    until      timestamptz not null,
    -- Of the surest link; `manual` and `certain` where somebody said so.
    method     text        not null,
    confidence text        not null,
    unique nulls not distinct (change_id, run_id, host_id)
);

create index change_hosts_host on change_hosts (host_id, at desc);
create index change_hosts_run on change_hosts (run_id);
