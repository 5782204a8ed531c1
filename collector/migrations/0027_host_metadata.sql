-- What operators and inventories say of a host, beside what its agent says; what is found in its facts is
-- kept beside its name, so that lists need not look into facts.

alter table hosts
    add column owner         text,
    add column environment   text,
    -- Markdown.
    add column notes         text,
    add column addresses     inet[]      not null default '{}',
    -- The cloud's.
    add column instance_id   text,
    add column os_id         text,
    add column os_name       text,
    add column origin        text        not null default 'agent'
        check (origin in ('agent', 'manual', 'inventory')),
    -- What an operator set by hand: neither facts nor an inventory overwrite it.
    add column edited        text[]      not null default '{}',
    -- Since when its inventory no longer lists it.
    add column missing_since timestamptz,
    add column merged_into   uuid references hosts,
    -- Nothing of it is left but the certificates that were issued to it.
    add column deleted_at    timestamptz,
    -- Of what operators edit: what agents say does not move it.
    add column version       bigint      not null default 1,
    add column updated_at    timestamptz;

-- Where two said the same, an update leaves the row where it is.
alter table hosts set (fillfactor = 90);

create index hosts_conflict_of on hosts (conflict_of) where conflict_of is not null;
create index hosts_merged_into on hosts (merged_into) where merged_into is not null;

-- Until when each host has a certificate, without reading certificates.
create index agent_certs_valid on agent_certs (host_id, not_after) where revoked_at is null;

-- An address, null where the text is none: facts are what agents say.
create function try_inet(address text) returns inet language plpgsql immutable strict as $$
begin
    return host(address::inet)::inet;
exception when others then
    return null;
end
$$;

-- The addresses in the body of `facts.network`, at most 64: those by which others may reach the host.
create function network_addresses(body jsonb) returns inet[] language sql immutable as $$
    select coalesce(array_agg(address order by address), '{}')
    from (
        select distinct address
        from jsonb_path_query(body, '$.interfaces.*.addresses[*]') as told, try_inet(told #>> '{}') as address
        where not (address <<= 'fe80::/10' or address <<= '127.0.0.0/8' or address = '::1')
        order by address limit 64
    ) as found
$$;

-- What the facts of a host, an object by key, say of columns of `hosts`; null where they don't.
create function facts_name(facts jsonb) returns text language sql immutable parallel safe as $$
    select nullif(left(facts #>> '{facts.identity,hostname}', 253), '')
$$;

create function facts_addresses(facts jsonb) returns inet[] language sql immutable as $$
    select case when facts #> '{facts.network,interfaces}' is not null
                then network_addresses(facts -> 'facts.network') end
$$;

update hosts h
set addresses = coalesce(facts_addresses(f.facts), '{}'),
    instance_id = left(f.facts #>> '{facts.cloud,instance_id}', 128),
    os_id = left(f.facts #>> '{facts.os,id}', 64),
    os_name = left(f.facts #>> '{facts.os,pretty_name}', 128)
from (
    select host_id, jsonb_object_agg(key, body) as facts from facts
    where key in ('facts.network', 'facts.cloud', 'facts.os') group by host_id
) as f
where h.host_id = f.host_id;

-- What it does with intervals is stable, not immutable; declared as what it is, it is computed in place, for a fifth of
-- the time, wherever all hosts are judged.
alter function host_reasons(host_liveness, timestamptz, timestamptz, timestamptz, timestamptz) stable;
