-- Hosts that are made up, to look around with. A table of its own, not a tag: nobody but who makes them writes
-- it, and what is not in it is never removed as a sample.

create table sample_hosts (
    host_id   uuid primary key references hosts on delete cascade,
    -- By which all of it is made.
    number    integer     not null unique,
    loaded_at timestamptz not null
);
