-- What one fact of a host was, however often the others change.

create index fact_changes_key on fact_changes (host_id, key, changed_at desc);
