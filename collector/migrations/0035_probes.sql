-- Hosts without an agent are probed: they are seen when they answer, and judged by how many probes they missed.

create table probes (
    host_id  uuid        not null references hosts on delete cascade,
    at       timestamptz not null,
    ok       boolean     not null,
    -- What answered: `icmp`, `tcp/22`.
    via      text,
    rtt_ms   real,
    error    text,
    primary key (host_id, at)
);

alter table host_liveness
    add column probed_at    timestamptz,
    -- Probes since the last one that was answered; null where there was none.
    add column probe_misses integer,
    -- What the last probe found is not believed for longer.
    add column probed_until timestamptz;

-- What a host's silence is called: an agent's by time, that of a host without one by the probes it missed.
create function host_liveness_word(
    host              host_liveness,
    late_before       timestamptz,
    offline_before    timestamptz
) returns text language sql immutable parallel safe as $$
    select case
        when host.instance is null and host.probe_misses >= 3 then 'offline'
        when host.instance is null and host.probe_misses = 2 then 'late'
        when host.last_seen_at is null then 'never'
        when host.instance is null and host.probe_misses is not null then 'online'
        when host.last_seen_at < offline_before then 'offline'
        when host.last_seen_at < late_before then 'late'
        else 'online'
    end
$$;

create or replace function host_reasons(
    host              host_liveness,
    cert_not_after    timestamptz,
    now               timestamptz,
    late_before       timestamptz,
    offline_before    timestamptz
) returns text[] language sql immutable parallel safe as $$
    select array_remove(array[
        case when (host.instance is not null or host.probe_misses is null) and host.last_seen_at < offline_before
                  or host.instance is null and host.probe_misses >= 3 and host.probed_until >= now
             then 'offline' end,
        case when host.open_conflict_count > 0 then 'identity_conflict' end,
        case when host.disk_used_ratio >= 0.95 then 'disk_critical' end,
        case when (host.instance is not null or host.probe_misses is null)
                  and host.last_seen_at < late_before and host.last_seen_at >= offline_before
                  or host.instance is null and host.probe_misses = 2 and host.probed_until >= now
             then 'late' end,
        case when host.instance is null and host.probed_until < now then 'unprobed' end,
        case when host.disk_used_ratio >= 0.85 and host.disk_used_ratio < 0.95 then 'disk_warning' end,
        case when host.failed_unit_count > 0 then 'failed_units' end,
        case when host.reboot_required and host.reboot_required_since < now - interval '7 days'
             then 'reboot_required' end,
        case when abs(host.skew_ms) >= 30000 then 'clock_skew' end,
        case when cert_not_after < now + interval '10 days' then 'certificate_expiring' end
    ], null)
$$;

-- A host that was seen by probes only, and is not probed any more, is unknown again.
create or replace function host_status(last_seen_at timestamptz, reasons text[]) returns text
    language sql immutable parallel safe as $$
    select case
        when reasons && array['offline', 'identity_conflict', 'disk_critical'] then 'unhealthy'
        when last_seen_at is null and not reasons && array['late'] or reasons && array['unprobed'] then 'unknown'
        when cardinality(reasons) > 0 then 'degraded'
        else 'healthy'
    end
$$;
