//! The tables that tell of hosts. One more is a constant here, its name in [`ALL`], and its words in
//! `collector/src/timeline/words.rs`.
//!
//! Each statement finds a host's rows in order of time by an index; a test reads their plans.

use super::Source;

/// All of them.
pub const ALL: [&Source; 15] = [
    &EVENTS, &CHANGES, &PACKAGES, &BACKUPS, &DRILLS, &GAPS, &REFUSED, &DOWNTIMES, &FACTS,
    &COMMANDS, &TASKS, &ISSUED, &REVOKED, &DROPPED, &AUDIT,
];

/// What agents and the collector itself reported.
pub const EVENTS: Source = Source {
    name: "event",
    kinds: &["state", "event", "package", "conflict", "command", "certificate"],
    select: "at, null::timestamptz as until, received_at, kind as what, null::text as by,
        case when pg_column_size(body) <= 16384 and octet_length(body::text) <= 16384 then body
             when kind = 'package_transaction' then jsonb_build_object('change_count', jsonb_array_length(body->'changes'),
                 'command', left(body->>'command', 1000), 'requested_by', left(body->>'requested_by', 100),
                 'via', left(body->>'via', 100), 'error', left(body->>'error', 1000), 'part', body->'part',
                 'parts', body->'parts') end as body,
        case when pg_column_size(body) > 16384 then true
             else octet_length(body::text) > 16384 end as is_cut
        from events where host_id = $1",
    at: "at",
    id: "lpad(event_id::text, 19, '0')",
};

/// Runs that touched it, and what somebody says did: one for each. What a run is to the host stands in its links, of
/// which it may have many.
pub const CHANGES: Source = Source {
    name: "change",
    kinds: &["change"],
    select: "h.at as at, coalesce(r.ended_at, h.until) as until, null::timestamptz as received_at,
        coalesce(r.tool || ' ' || r.kind, 'manual') as what, left(coalesce(c.actor, r.brought_by), 200) as by,
        jsonb_build_object('change_id', h.change_id, 'run_id', h.run_id, 'title', left(c.title, 300),
            'outcome', coalesce(r.outcome, c.outcome), 'is_check', coalesce(r.detail->>'check' = 'true', false),
            'method', h.method, 'confidence', h.confidence, 'commit', left(c.commit_id, 100),
            'repository', left(c.repository, 300), 'pull_request', left(c.pull_request, 300),
            'run_url', left(c.run_url, 1000),
            'links', coalesce((select jsonb_agg(jsonb_build_object('role', role, 'address', left(name, 200),
                 'action', action))
             from (select l.role, l.name, (select action from change_resources a where a.run_id = l.run_id
                                               and a.ordinal = l.ordinal and l.role <> 'play') as action
                   from change_links l where l.host_id = h.host_id and l.run_id = h.run_id
                   order by l.ordinal, l.role limit 20) as first), '[]'),
            'link_count', (select count(*) from change_links l where l.host_id = h.host_id and l.run_id = h.run_id),
            'recap', (select p.recap from change_links l
                      join play_hosts p on p.run_id = l.run_id and p.number = l.ordinal
                      where l.host_id = h.host_id and l.run_id = h.run_id and l.role = 'play'
                        and octet_length(p.recap::text) <= 2000 order by l.ordinal limit 1)) as body,
        false as is_cut
        from change_hosts h join changes c on c.change_id = h.change_id left join change_runs r on r.run_id = h.run_id
        where h.host_id = $1",
    at: "h.at",
    id: "h.change_id || ':' || coalesce(h.run_id::text, '')",
};

/// What inventories showed to have changed where no log tells it, all of one inventory together.
pub const PACKAGES: Source = Source {
    name: "package",
    kinds: &["package"],
    select: "changed_at as at, null::timestamptz as until, null::timestamptz as received_at, 'inventory' as what,
        null::text as by,
        (select jsonb_build_object('changes', jsonb_agg(jsonb_build_object('action', action, 'manager', manager,
             'name', name, 'arch', arch, 'from', was_version, 'to', is_version)), 'change_count', max(total))
         from (select o.*, count(*) over () as total from package_changes o
               where o.host_id = p.host_id and o.changed_at = p.changed_at and not o.is_logged
               order by change_id limit 100) as o) as body,
        false as is_cut
        from package_changes p where host_id = $1 and not is_logged
          and not exists (select from package_changes e where e.host_id = p.host_id and e.changed_at = p.changed_at
                              and e.change_id < p.change_id and not e.is_logged)",
    at: "changed_at",
    id: "lpad(change_id::text, 19, '0')",
};

/// Runs of backups, those that are under way too.
pub const BACKUPS: Source = Source {
    name: "backup",
    kinds: &["backup"],
    select: "started_at as at, ended_at as until, null::timestamptz as received_at, r.state as what, null::text as by,
        jsonb_build_object('volume_id', r.volume_id, 'volume', v.name, 'run_id', r.run_id, 'trigger', r.trigger,
            'reason', r.reason, 'detail', left(r.detail, 2000), 'files', r.files, 'bytes', r.bytes,
            'sent_bytes', r.sent_bytes, 'errors_total', r.errors_total, 'snapshot_id', r.snapshot_id) as body,
        false as is_cut
        from backup_runs r join volumes v on v.volume_id = r.volume_id where r.host_id = $1",
    at: "started_at",
    id: "run_id",
};

/// Restores that were rehearsed, and those that are under way.
const DRILLS: Source = Source {
    name: "drill",
    kinds: &["drill"],
    select: "started_at as at, ended_at as until, null::timestamptz as received_at, d.state as what, left(d.asked_by, 200) as by,
        jsonb_build_object('volume_id', d.volume_id, 'volume', v.name, 'drill_id', d.drill_id, 'trigger', d.trigger,
            'mode', d.mode, 'reason', d.reason, 'detail', left(d.detail, 2000), 'is_sampled', d.is_sampled, 'files', d.files,
            'bytes', d.bytes, 'mismatches', d.mismatches, 'restore_ms', d.restore_ms, 'rto_s', d.rto_s,
            'snapshot_id', d.snapshot_id) as body,
        false as is_cut
        from drills d join volumes v on v.volume_id = d.volume_id where d.host_id = $1",
    at: "started_at",
    id: "drill_id",
};

/// Records that will never come.
const GAPS: Source = Source {
    name: "gap",
    kinds: &["gap"],
    select: "received_at as at, null::timestamptz as until, null::timestamptz as received_at, reason as what,
        null::text as by, jsonb_build_object('class', class, 'stream', stream, 'from_seq', from_seq, 'to_seq', to_seq)
        as body, false as is_cut
        from gaps where host_id = $1",
    at: "gaps.received_at",
    id: "stream || ':' || class || ':' || lpad(from_seq::text, 20, '0')",
};

/// Records that came and could not be stored as what they are.
const REFUSED: Source = Source {
    name: "refused",
    kinds: &["gap"],
    select: "received_at as at, null::timestamptz as until, null::timestamptz as received_at, kind as what,
        null::text as by, jsonb_build_object('class', class, 'stream', stream, 'seq', seq, 'error', left(error, 2000),
            'bytes', octet_length(body)) as body, false as is_cut
        from dead_letters where host_id = $1",
    at: "dead_letters.received_at",
    id: "stream || ':' || class || ':' || lpad(seq::text, 20, '0')",
};

/// Times in which nobody listened, while the host was known.
const DOWNTIMES: Source = Source {
    name: "downtime",
    kinds: &["downtime"],
    select: "from_at as at, to_at as until, null::timestamptz as received_at, 'collector' as what, null::text as by,
        null::jsonb as body, false as is_cut
        from collector_downtimes where to_at > (select created_at from hosts where host_id = $1)",
    at: "from_at",
    id: "''",
};

/// What became of facts.
pub const FACTS: Source = Source {
    name: "fact",
    kinds: &["fact"],
    select: "changed_at as at, null::timestamptz as until, null::timestamptz as received_at, key as what,
        null::text as by,
        jsonb_build_object('was_there', old_body is not null, 'is_there', new_body is not null,
            'was', case when pg_column_size(old_body) > 8192 then null
                        when octet_length(old_body::text) > 16384 then null else old_body end,
            'is', case when pg_column_size(new_body) > 8192 then null
                       when octet_length(new_body::text) > 16384 then null else new_body end) as body,
        case when greatest(pg_column_size(old_body), pg_column_size(new_body)) > 8192 then true
             else coalesce(greatest(octet_length(old_body::text), octet_length(new_body::text)) > 16384, false)
        end as is_cut
        from fact_changes where host_id = $1",
    at: "changed_at",
    id: "key",
};

/// What the agent was asked to do.
const COMMANDS: Source = Source {
    name: "command",
    kinds: &["command"],
    select: "created_at as at, null::timestamptz as until, null::timestamptz as received_at, action as what,
        created_by as by, jsonb_build_object('target', target, 'outcome', outcome, 'detail', left(detail, 2000),
            'expires_at', extract(epoch from expires_at)::bigint, 'is_sent', sent_at is not null,
            'is_confirmed', confirmed_at is not null) as body, false as is_cut
        from commands where host_id = $1",
    at: "created_at",
    id: "command_id",
};

/// What operators wrote down.
const TASKS: Source = Source {
    name: "task",
    kinds: &["task"],
    select: "at, null::timestamptz as until, null::timestamptz as received_at, title as what, created_by as by,
        jsonb_build_object('kind', kind, 'status', status, 'notes', left(notes, 2000)) as body, false as is_cut
        from tasks where host_id = $1",
    at: "at",
    id: "task_id",
};

/// Certificates that were made for it.
const ISSUED: Source = Source {
    name: "issued",
    kinds: &["certificate"],
    select: "issued_at as at, null::timestamptz as until, null::timestamptz as received_at, 'issued' as what,
        null::text as by, jsonb_build_object('serial', encode(serial, 'hex'),
            'not_after', extract(epoch from not_after)::bigint, 'token_id', token_id) as body, false as is_cut
        from agent_certs where host_id = $1",
    at: "issued_at",
    id: "encode(serial, 'hex')",
};

/// Those that were revoked: few, for a host has few and those that ended are deleted.
const REVOKED: Source = Source {
    name: "revoked",
    kinds: &["certificate"],
    select: "revoked_at as at, null::timestamptz as until, null::timestamptz as received_at, 'revoked' as what,
        revoked_by as by, jsonb_build_object('serial', encode(serial, 'hex'), 'reason', left(revoked_reason, 2000))
        as body, false as is_cut
        from agent_certs where host_id = $1 and revoked_at is not null",
    at: "revoked_at",
    id: "encode(serial, 'hex')",
};

/// Machines that reported as this host and are refused since.
const DROPPED: Source = Source {
    name: "dropped",
    kinds: &["conflict"],
    select: "resolved_at as at, null::timestamptz as until, null::timestamptz as received_at, 'dropped' as what,
        resolved_by as by, jsonb_build_object('conflict', conflict_id, 'hidden_host', hidden_host_id,
            'address', host(clone_address)) as body, false as is_cut
        from host_conflicts where host_id = $1 and state = 'dropped'",
    at: "resolved_at",
    id: "conflict_id",
};

/// Who changed what of it. Tasks are told by themselves.
pub const AUDIT: Source = Source {
    name: "audit",
    kinds: &["audit"],
    select: "at, null::timestamptz as until, null::timestamptz as received_at, action as what, actor_name as by,
        case when coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0) > 16384 then null
             else jsonb_build_object('actor_kind', actor_kind, 'before', before, 'after', after) end as body,
        coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0) > 16384 as is_cut
        from audit_log where subject_kind = 'host' and subject_id = $1::text and action <> 'task.create'",
    at: "at",
    id: "lpad(audit_id::text, 19, '0')",
};
