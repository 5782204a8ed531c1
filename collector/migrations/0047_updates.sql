-- What there is to install on hosts, and what there was.

create table pending_updates (
    host_id        uuid        not null references hosts on delete cascade,
    manager        text        not null,
    name           text        not null,
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
    primary key (host_id, manager, name, arch)
);

create index pending_updates_name on pending_updates (name, host_id);
create index pending_updates_security on pending_updates (security_since, host_id) where is_security;

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
