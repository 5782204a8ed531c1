-- What plays of Ansible did, from the records of their callback.

create table play_runs (
    run_id    uuid   primary key references change_runs on delete cascade,
    -- Up to this record everything is here.
    acked_seq bigint not null
);

-- Hosts as a run's inventory has them, and the recap of each as Ansible gives it.
create table play_hosts (
    run_id               uuid    not null references change_runs on delete cascade,
    number               integer not null,
    name                 text    not null,
    ansible_host         text,
    machine_id           text,
    product_uuid         text,
    fqdn                 text,
    distribution         text,
    distribution_version text,
    recap                jsonb,
    primary key (run_id, number)
);

create table play_batches (
    run_id     uuid        not null references change_runs on delete cascade,
    play       text        not null,
    batch      integer     not null,
    at         timestamptz not null,
    name       text        not null,
    pattern    text,
    strategy   text,
    -- Numbers of hosts: `0-3,7`.
    hosts      text        not null,
    host_count integer     not null,
    primary key (run_id, play, batch)
);

create table change_tasks (
    run_id        uuid    not null references change_runs on delete cascade,
    task          text    not null,
    batch         integer not null,
    -- Of its first record, by which tasks are in order.
    first_seq     bigint  not null,
    play          text    not null,
    at            timestamptz,
    ended_at      timestamptz,
    name          text,
    action        text,
    role          text,
    path          text,
    line          integer,
    tags          text[]  not null,
    is_handler    boolean not null,
    check_mode    boolean not null,
    -- Hosts that it left as they were, and that it passed over.
    ok            bigint  not null,
    ok_hosts      text    not null,
    skipped       bigint  not null,
    skipped_hosts text    not null,
    primary key (run_id, task, batch)
);

create index change_tasks_order on change_tasks (run_id, first_seq);

create table change_results (
    run_id   uuid        not null references change_runs on delete cascade,
    seq      bigint      not null,
    task     text        not null,
    batch    integer     not null,
    host     text        not null,
    -- `changed`, `failed`, `unreachable`, `ok`.
    status   text        not null,
    ignored  boolean     not null,
    ended_at timestamptz not null,
    -- Items, attempts, message, …: as the record has them.
    body     jsonb       not null,
    primary key (run_id, seq)
);

create index change_results_task on change_results (run_id, task, batch);
