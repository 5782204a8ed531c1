-- Hosts that may read another host's volume, sealed as it is, for a while.

create table backup_grants (
    grant_id uuid primary key,
    volume_id uuid not null references volumes (volume_id),
    host_id uuid not null references hosts (host_id),
    reason text not null,
    created_at timestamptz not null,
    created_by text not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);

create index backup_grants_of_host on backup_grants (host_id, volume_id, expires_at);
