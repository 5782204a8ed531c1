-- People who log in by a provider of OpenID Connect: users without a password.

alter table users alter column password_hash drop not null;

-- Who a user is to the provider. A name links nobody: a provider's "ada" is not the "ada" that has a password here.
create table user_identities (
    issuer        text        not null,
    subject       text        not null,
    user_id       uuid        not null unique references users on delete cascade,
    created_at    timestamptz not null,
    logged_in_at  timestamptz not null,
    primary key (issuer, subject)
);

-- Browsers that were sent to the provider and are not back yet.
create table oidc_logins (
    -- SHA-256 of what comes back by the browser's address bar, and of its cookie.
    state_hash    bytea primary key,
    browser_hash  bytea       not null,
    nonce         text        not null,
    pkce_verifier text        not null,
    -- Where to go on afterwards, here.
    next          text        not null,
    -- Who has to come back, where it is a session's user who proves again who they are.
    user_id       uuid references users on delete cascade,
    -- The session that the browser had; it ends with the login.
    session_id    uuid,
    -- An IPv6 host's network.
    address       inet        not null,
    created_at    timestamptz not null
);

create index oidc_logins_address on oidc_logins (address, created_at);
create index oidc_logins_created on oidc_logins (created_at);
