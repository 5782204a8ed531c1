-- What is installed on hosts: a dictionary of packages, and which host has which.

create table packages (
    package_id     bigint generated always as identity primary key,
    -- Of all columns that follow but `sort_key`.
    digest         bytea not null unique,
    manager        text  not null,
    name           text  collate "C" not null,
    version        text  not null,
    arch           text  not null,
    -- What it was built from; the same as the package where it is empty.
    source         text  not null,
    source_version text  not null,
    vendor         text  not null,
    -- Sorts as the manager orders versions; null where that order is not known here.
    sort_key       bytea
);

create index packages_version on packages (name, manager, sort_key);
create index packages_source on packages (source) where source <> '';

-- No reference to `packages`, whose rows hosts share: the check would lock them. Nothing deletes those.
create table host_packages (
    host_id      uuid        not null references hosts on delete cascade,
    package_id   bigint      not null,
    installed_at timestamptz,
    held         boolean     not null,
    -- Not wholly installed: how it is instead.
    broken       text,
    primary key (host_id, package_id)
);

create index host_packages_package on host_packages (package_id, host_id);

-- The version of `packages` and `updates` that a host's rows are.
create table host_states (
    host_id        uuid        not null references hosts on delete cascade,
    key            text        not null,
    stream_ordinal bigint      not null,
    version        bigint      not null,
    hash           bytea       not null,
    -- How each database was read, or each package manager asked.
    body           jsonb       not null,
    -- Entries that could not be stored.
    skipped        bigint      not null,
    received_at    timestamptz not null,
    changed_at     timestamptz not null,
    primary key (host_id, key)
);

-- Parts of versions that are not there whole yet.
create table host_state_parts (
    host_id        uuid        not null references hosts on delete cascade,
    key            text        not null,
    stream_ordinal bigint      not null,
    version        bigint      not null,
    part           integer     not null,
    body           bytea       not null,
    received_at    timestamptz not null,
    primary key (host_id, key, stream_ordinal, version, part)
);

-- What a newer version of `packages` changed, and package by package.
create table package_changes (
    change_id   bigint generated always as identity primary key,
    host_id     uuid        not null references hosts on delete cascade,
    changed_at  timestamptz not null,
    -- `installed`, `removed`, `upgraded`, `downgraded`, `changed`, `held`, `released`, `broken`, `mended`.
    action      text        not null,
    manager     text        not null,
    name        text        not null,
    arch        text        not null,
    was_version text,
    is_version  text,
    -- The manager keeps a log of such changes, so that an event tells it with who did it.
    is_logged   boolean     not null
);

create index package_changes_host on package_changes (host_id, changed_at, change_id);

-- Of all that the host has: `packages` and `updates`.
alter table host_liveness add column inventory_hash bytea;
