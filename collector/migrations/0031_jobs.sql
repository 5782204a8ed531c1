-- What collectors do by themselves: how it went last, and the last runs of each job.

create table jobs (
    name             text primary key,
    -- fleet: one collector does it for all; collector: each for itself.
    scope            text        not null check (scope in ('fleet', 'collector')),
    interval_ms      bigint      not null,
    last_started_at  timestamptz not null,
    last_finished_at timestamptz not null,
    last_outcome     text        not null check (last_outcome in ('ok', 'failed', 'timed_out', 'interrupted')),
    last_error       text,
    last_duration_ms bigint      not null,
    -- The collector that ran it; of a fleet's job, the leader.
    last_leader      uuid        not null,
    runs_total       bigint      not null,
    failures_total   bigint      not null
);

create table job_runs (
    run_id       bigint generated always as identity primary key,
    job          text        not null references jobs on delete cascade,
    collector_id uuid        not null,
    started_at   timestamptz not null,
    finished_at  timestamptz not null,
    outcome      text        not null,
    error        text
);

create index job_runs_job on job_runs (job, run_id);
