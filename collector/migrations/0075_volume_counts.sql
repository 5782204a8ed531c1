-- How many runs of a volume ended, and how many of them failed: runs are deleted, counters are not.

create table volume_counts (
    volume_id uuid primary key references volumes (volume_id) on delete cascade,
    runs bigint not null,
    failures bigint not null
);

insert into volume_counts (volume_id, runs, failures)
select volume_id, count(*), count(*) filter (where state = 'failed')
from backup_runs
where state <> 'running'
group by volume_id;
