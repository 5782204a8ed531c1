-- A host's timeline reads its gaps and refused records by time.

create index gaps_received on gaps (host_id, received_at desc);
create index dead_letters_received on dead_letters (host_id, received_at desc);
