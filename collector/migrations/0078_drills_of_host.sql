-- A host's timeline reads its drills by time.
create index drills_of_host on drills (host_id, started_at desc, drill_id desc);
