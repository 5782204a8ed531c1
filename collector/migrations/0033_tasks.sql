-- An operator's log of what was done on a host.

create table tasks (
    task_id     uuid primary key,
    host_id     uuid        not null references hosts on delete cascade,
    kind        text        not null check (kind in ('patch', 'reboot', 'installation', 'other')),
    status      text        not null check (status in ('planned', 'in_progress', 'done', 'failed')),
    title       text        not null,
    notes       text        not null,
    -- When it was, or is to be.
    at          timestamptz not null,
    created_at  timestamptz not null,
    created_by  text        not null,
    updated_at  timestamptz not null,
    updated_by  text        not null
);

create index tasks_host on tasks (host_id, at desc, task_id desc);
create index tasks_at on tasks (at desc, task_id desc);
