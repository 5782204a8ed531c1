-- What the pages of changes read: by the row, and not by the hundred thousand.

-- What overlaps a time.
create index changes_times on changes using gist (tstzrange(started_at, greatest(started_at, ended_at), '[]'));
create index changes_outcome on changes (outcome, started_at desc);
create index changes_tools on changes using gin (tools);

create index change_resources_different on change_resources (run_id, part, ordinal)
    where action <> 'no_op' or is_imported or previous_address is not null;

-- Results of a task, counted as they come.
alter table change_tasks
    add column changed bigint not null default 0,
    -- Failed or unreachable.
    add column failed  bigint not null default 0,
    -- Of those.
    add column ignored bigint not null default 0;

update change_tasks t
set changed = r.changed, failed = r.failed, ignored = r.ignored
from (
    select run_id, task, batch, count(*) filter (where status = 'changed') as changed,
        count(*) filter (where status in ('failed', 'unreachable')) as failed, count(*) filter (where ignored) as ignored
    from change_results group by run_id, task, batch
) as r
where r.run_id = t.run_id and r.task = t.task and r.batch = t.batch;

create index change_results_of_task on change_results (run_id, task, batch, seq);
drop index change_results_task;
create index change_results_failed on change_results (run_id, seq) where status in ('failed', 'unreachable');
