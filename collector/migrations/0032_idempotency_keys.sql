-- Answers to requests that a client may send again, by its key; kept for a day.

create table idempotency_keys (
    -- Of whom the key is.
    credential   text        not null,
    -- SHA-256 of it.
    key_hash     bytea       not null,
    -- Of method, path and body.
    fingerprint  bytea       not null,
    created_at   timestamptz not null,
    -- Null: under way, or interrupted.
    status       integer,
    content_type text,
    etag         text,
    -- Null with a status: it had a secret.
    body         bytea,
    primary key (credential, key_hash)
);

create index idempotency_keys_created on idempotency_keys (created_at);
