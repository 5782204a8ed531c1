-- Lists of updates begin with those that are due first.
create index pending_updates_due on pending_updates (coalesce(due_at, 'infinity'), name);

-- The host has updates of the same package for several architectures: where hosts are counted, these need a look, and
-- all others are counted as they are.
alter table pending_updates add column is_multiarch boolean not null default false;

update pending_updates u set is_multiarch = true
where exists (select 1 from pending_updates o
              where o.host_id = u.host_id and o.manager = u.manager and o.name = u.name and o.arch <> u.arch);
