-- Which certificates and revocations are in the signed log beside the database, too.

alter table agent_certs
    add column issue_logged_at      timestamptz,
    add column revocation_logged_at timestamptz,
    -- When this database learned of the revocation: later than revoked_at where the log told it.
    add column revocation_stored_at timestamptz;

create index agent_certs_unlogged on agent_certs (issued_at)
    where issue_logged_at is null or (revoked_at is not null and revocation_logged_at is null);
create index agent_certs_revocation_stored on agent_certs (revocation_stored_at)
    where revocation_stored_at is not null;
