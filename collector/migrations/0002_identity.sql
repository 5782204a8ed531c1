-- Who may speak as which host.

create table enroll_tokens (
    token_id          text primary key,
    secret_hash       bytea       not null,
    created_at        timestamptz not null,
    expires_at        timestamptz not null,
    max_uses          integer     not null check (max_uses between 1 and 500),
    uses              integer     not null default 0,
    cidr              cidr,
    hostname_pattern  text,
    tags              text[]      not null default '{}',
    -- Re-attaches a re-imaged machine to the host it was.
    host_id           uuid references hosts,
    approval_required boolean     not null default false,
    created_by        text        not null
);

-- One row a token and key: what makes a repeated request the same enrollment.
create table enrollments (
    token_id    text        not null references enroll_tokens on delete cascade,
    spki_sha256 bytea       not null,
    hostname    text        not null,
    machine_id  text,
    peer        inet        not null,
    asked_at    timestamptz not null,
    approved_at timestamptz,
    host_id     uuid references hosts,
    primary key (token_id, spki_sha256)
);

-- Every certificate ever issued: one that is not here is refused.
create table agent_certs (
    serial          bytea primary key,
    host_id         uuid        not null references hosts,
    spki_sha256     bytea       not null,
    certificate     bytea       not null,
    issued_at       timestamptz not null,
    not_after       timestamptz not null,
    token_id        text,
    revoked_at      timestamptz,
    revoked_by      text,
    revoked_reason  text
);

create index agent_certs_host on agent_certs (host_id, issued_at desc);
create index agent_certs_key on agent_certs (spki_sha256);
create index agent_certs_revoked on agent_certs (revoked_at) where revoked_at is not null;

-- Tokens of programs and, until they can log in otherwise, operators.
create table api_tokens (
    token_id    text primary key,
    name        text        not null,
    secret_hash bytea       not null,
    role        text        not null check (role in ('viewer', 'operator', 'lead', 'admin')),
    created_at  timestamptz not null,
    expires_at  timestamptz,
    revoked_at  timestamptz
);
