-- A key whose collector ended in the middle of the work can be taken over: the work's own transaction says whether it
-- was carried out, and only whoever holds the claim can say it.

alter table idempotency_keys
    -- Of the request that holds the key.
    add column claim        uuid    not null default gen_random_uuid(),
    add column collector_id uuid,
    add column carried_out  boolean not null default false;
