-- People who log in by name, what they are logged in with, and who failed to.

create table users (
    user_id       uuid primary key,
    -- In lower case.
    name          text        not null unique,
    role          text        not null check (role in ('viewer', 'operator', 'lead', 'admin')),
    -- A PHC string of argon2id.
    password_hash text        not null,
    created_at    timestamptz not null,
    created_by    text        not null,
    disabled_at   timestamptz
);

-- A browser that is logged in, with a name or with a token.
create table sessions (
    session_id  uuid primary key,
    secret_hash bytea       not null unique,
    user_id     uuid references users on delete cascade,
    token_id    text references api_tokens on delete cascade,
    created_at  timestamptz not null,
    -- To the minute.
    used_at     timestamptz not null,
    expires_at  timestamptz not null,
    address     inet        not null,
    user_agent  text        not null,
    check (num_nonnulls(user_id, token_id) = 1)
);

create index sessions_user on sessions (user_id);
create index sessions_token on sessions (token_id);
create index sessions_expires on sessions (expires_at);

-- Failed logins in a row, whether there is such a user or not: of a name, and of a name from an address.
create table login_failures (
    subject  text primary key,
    failures integer     not null,
    last_at  timestamptz not null
);

create index login_failures_last on login_failures (last_at);
