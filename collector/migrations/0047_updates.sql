-- What there is to install on hosts, and what there was.

create table pending_updates (
    host_id        uuid        not null references hosts on delete cascade,
    manager        text        not null,
    name           text        collate "C" not null,
    arch           text        not null,
    installed      text        not null,
    candidate      text        not null,
    candidate_key  bytea,
    source         text,
    repository     text,
    -- Null where nothing says whether it mends a vulnerability.
    is_security    boolean,
    severity       text,
    advisories     text[]      not null,
    blocked_why    text,
    blocked_detail text,
    first_seen_at  timestamptz not null,
    -- Since when one for security is pending, whatever its version.
    security_since timestamptz,
    -- By when it is to be installed, as the policy has it; null where none says so.
    due_at         timestamptz,
    primary key (host_id, manager, name, arch)
);

create index pending_updates_name on pending_updates (name, host_id);
create index pending_updates_security on pending_updates (security_since, host_id) where is_security;

-- What lists and counts show of each host.
create table host_patches (
    host_id        uuid primary key references hosts on delete cascade,
    -- Why it is not known what there is to install; what follows is what was known before.
    unknown        text,
    -- When the lists were brought that the package manager answered from.
    metadata_at    timestamptz,
    checked_at     timestamptz not null,
    update_count   integer     not null,
    security_count integer     not null,
    blocked_count  integer     not null,
    -- Of the security update that is pending for longest.
    security_since timestamptz,
    due_at         timestamptz
);

alter table host_liveness add column patch_due_at timestamptz;

create table past_updates (
    host_id       uuid        not null references hosts on delete cascade,
    gone_at       timestamptz not null,
    manager       text        not null,
    name          text        not null,
    arch          text        not null,
    installed     text        not null,
    candidate     text        not null,
    is_security   boolean,
    severity      text,
    advisories    text[]      not null,
    first_seen_at timestamptz not null,
    security_since timestamptz,
    -- `installed`, `removed` with the package, or `withdrawn`.
    outcome       text        not null,
    primary key (host_id, gone_at, manager, name, arch)
);

create index past_updates_gone on past_updates (gone_at) where is_security;

-- How much was open in the fleet, by the day (UTC).
create table exposure (
    day             date primary key,
    hosts           bigint not null,
    unknown_hosts   bigint not null,
    exposed_hosts   bigint not null,
    security_count  bigint not null,
    overdue_hosts   bigint not null
);
