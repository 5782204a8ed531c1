-- Which run of an agent process brought a row: what a clone brought can be told from what the host did.
-- Null where the collector itself says it, and for rows of earlier releases.

alter table heartbeats   add column instance uuid;
alter table events       add column instance uuid;
alter table gaps         add column instance uuid;
alter table dead_letters add column instance uuid;
alter table facts        add column instance uuid;
alter table fact_changes add column instance uuid;
