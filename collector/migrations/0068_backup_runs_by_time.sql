-- Runs of all volumes, newest first.
create index backup_runs_by_time on backup_runs (started_at desc, run_id desc);
