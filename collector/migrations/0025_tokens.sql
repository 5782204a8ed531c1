-- What an API token may do beside or without a role, from where, until when, and when it was used.

alter table api_tokens
    alter column role drop not null,
    add column scopes text[] not null default '{}' check (scopes <@ array['backup', 'ingest']),
    add column cidr cidr,
    add column created_by text not null default 'command line',
    -- To the minute.
    add column last_used_at timestamptz,
    add column last_used_from inet,
    add column revoked_by text,
    add check (role is not null or cardinality(scopes) > 0);

-- When whoever is logged in last proved who they are.
alter table sessions add column authenticated_at timestamptz;
update sessions set authenticated_at = created_at;
alter table sessions alter column authenticated_at set not null;

-- What makes the first user, while there is none.
create table setup_links (
    secret_hash bytea primary key,
    created_at  timestamptz not null,
    expires_at  timestamptz not null
);
