-- A conflict of identity weighs for as long as nobody resolved it.

create or replace function host_reasons(
    host              host_liveness,
    cert_not_after    timestamptz,
    now               timestamptz,
    late_before       timestamptz,
    offline_before    timestamptz
) returns text[] language sql immutable parallel safe as $$
    select array_remove(array[
        case when host.last_seen_at < offline_before then 'offline' end,
        case when host.open_conflict_count > 0 then 'identity_conflict' end,
        case when host.disk_used_ratio >= 0.95 then 'disk_critical' end,
        case when host.last_seen_at < late_before and host.last_seen_at >= offline_before then 'late' end,
        case when host.disk_used_ratio >= 0.85 and host.disk_used_ratio < 0.95 then 'disk_warning' end,
        case when host.failed_unit_count > 0 then 'failed_units' end,
        case when host.reboot_required and host.reboot_required_since < now - interval '7 days'
             then 'reboot_required' end,
        case when abs(host.skew_ms) >= 30000 then 'clock_skew' end,
        case when cert_not_after < now + interval '10 days' then 'certificate_expiring' end
    ], null)
$$;

alter table host_liveness drop column previous_instance;
alter table host_liveness drop column interleaved_at;
