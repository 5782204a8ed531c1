-- A host's timeline reads what each run is to the host.

create index change_links_host_run on change_links (host_id, run_id, ordinal, role) where host_id is not null;
-- The same, but for what follows the host.
drop index change_links_host;
