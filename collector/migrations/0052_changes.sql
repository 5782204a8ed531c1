-- What changed the fleet: changes, and the runs of tools that they are made of.

create table changes (
    change_id    uuid primary key,
    -- `captured` of runs, or `manual`: written down by somebody.
    origin       text        not null check (origin in ('captured', 'manual')),
    title        text        not null,
    note         text,
    started_at   timestamptz not null,
    ended_at     timestamptz not null,
    -- `planned`, `running`, `succeeded`, `failed`, `interrupted`; `unknown` where nothing tells.
    outcome      text        not null,
    tools        text[]      not null,
    repository   text,
    commit_id    text,
    branch       text,
    pull_request text,
    actor        text,
    environment  text,
    workspace    text,
    run_url      text,
    -- Of all its runs together.
    add_count     bigint     not null default 0,
    change_count  bigint     not null default 0,
    destroy_count bigint     not null default 0,
    host_count    bigint     not null default 0,
    created_at   timestamptz not null,
    updated_at   timestamptz not null,
    version      bigint      not null default 1
);

create index changes_recent on changes (started_at desc, change_id desc);
create index changes_repository on changes (repository, started_at desc) where repository is not null;
create index changes_actor on changes (actor, started_at desc) where actor is not null;

-- What runs of one change share. A key leads to the change that had it last.
create table change_keys (
    kind      text        not null,
    key       text        not null,
    change_id uuid        not null references changes on delete cascade,
    seen_at   timestamptz not null,
    primary key (kind, key)
);

create index change_keys_change on change_keys (change_id);

create table change_runs (
    run_id       uuid        primary key,
    change_id    uuid        not null references changes on delete cascade,
    -- `terraform`, `ansible`.
    tool         text        not null,
    -- `plan`, `apply`, `state`, `play`.
    kind         text        not null,
    -- Of the document and what was said of it: the same posted again is the same run.
    content_hash bytea       not null unique,
    received_at  timestamptz not null,
    started_at   timestamptz not null,
    ended_at     timestamptz not null,
    outcome      text        not null,
    exit_code    integer,
    tool_version text,
    format       text,
    claims       jsonb       not null,
    -- Who brought it.
    brought_by   text        not null,
    summary      jsonb       not null,
    -- Outputs, checks, diagnostics: what is not by resource or host.
    detail       jsonb       not null,
    warnings     text[]      not null,
    redactions   bigint      not null,
    -- In the blob store; null where there is nothing to download.
    artifact_key   text,
    artifact_bytes bigint,
    artifact_hash  bytea
);

create index change_runs_change on change_runs (change_id, started_at);

create table change_resources (
    run_id           uuid    not null references change_runs on delete cascade,
    ordinal          integer not null,
    -- `change`, `drift`, `deferred`; `operation` of an apply.
    part             text    not null,
    address          text    not null,
    deposed          text,
    module_address   text,
    mode             text    not null,
    type             text    not null,
    name             text    not null,
    provider         text    not null,
    action           text    not null,
    actions          text[]  not null,
    action_reason    text,
    previous_address text,
    is_imported      boolean not null,
    -- How an apply ended it.
    outcome          text,
    -- `[{path, what, before, after}]`; before and after are JSON texts, so that numbers stay as they are.
    attributes       jsonb   not null,
    is_cut           boolean not null,
    primary key (run_id, ordinal)
);

create index change_resources_address on change_resources (address, run_id);
