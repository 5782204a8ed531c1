-- Who changed what: rows that are only ever added, and the hash chain that seals them (docs/audit.md).

create table audit_log (
    audit_id      bigint generated always as identity primary key,
    at            timestamptz not null,
    actor_kind    text        not null check (actor_kind in
        ('user', 'token', 'proxy', 'agent', 'job', 'command_line')),
    actor_name    text        not null,
    actor_id      text,
    actor_address inet,
    request_id    text,
    action        text        not null,
    subject_kind  text        not null,
    subject_id    text        not null,
    -- json and not jsonb: its text is what is sealed.
    before        json,
    after         json
);

create index audit_log_at on audit_log (at, audit_id);
create index audit_log_actor on audit_log (actor_name, at, audit_id);
create index audit_log_action on audit_log (action, at, audit_id);
create index audit_log_subject on audit_log (subject_kind, subject_id, at, audit_id);
create index audit_log_request on audit_log (request_id) where request_id is not null;

-- The chain. No foreign key: its checks would need the right to update, which nobody has.
create table audit_seals (
    seq      bigint primary key,
    audit_id bigint not null unique,
    hash     bytea  not null check (length(hash) = 32)
);

-- Rows that are not sealed yet: what a transaction adds here is seen when it commits, whatever its ids are.
create table audit_pending (
    audit_id bigint primary key
);

create function audit_refuse() returns trigger language plpgsql as $$
begin
    raise exception '% of % is refused: its rows are only ever added', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create function audit_add_pending() returns trigger language plpgsql as $$
begin
    insert into audit_pending (audit_id) values (new.audit_id);
    return null;
end
$$;

create trigger audit_log_pending after insert on audit_log
    for each row execute function audit_add_pending();
create trigger audit_log_append_only before update or delete or truncate on audit_log
    for each statement execute function audit_refuse();
create trigger audit_seals_append_only before update or delete or truncate on audit_seals
    for each statement execute function audit_refuse();

-- In a session that applies a replica's changes too.
alter table audit_log enable always trigger audit_log_append_only;
alter table audit_seals enable always trigger audit_seals_append_only;

revoke all on audit_log, audit_seals, audit_pending from public;
revoke update, delete, truncate on audit_log, audit_seals from current_user;

-- Which signed checkpoints of the chain are in the blob store; those are what counts, this finds the last one.
create table audit_checkpoints (
    seq  bigint primary key,
    hash bytea       not null,
    at   timestamptz not null
);

create trigger audit_checkpoints_append_only before update or delete or truncate on audit_checkpoints
    for each statement execute function audit_refuse();
alter table audit_checkpoints enable always trigger audit_checkpoints_append_only;
revoke all on audit_checkpoints from public;
revoke update, delete, truncate on audit_checkpoints from current_user;
