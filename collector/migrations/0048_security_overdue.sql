-- A host with a security update that should have been installed by now is degraded.

create or replace function host_reasons(
    host              host_liveness,
    cert_not_after    timestamptz,
    now               timestamptz,
    late_before       timestamptz,
    offline_before    timestamptz
) returns text[] language sql stable parallel safe as $$
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
        case when host.patch_due_at < now then 'security_overdue' end,
        case when abs(host.skew_ms) >= 30000 then 'clock_skew' end,
        case when cert_not_after < now + interval '10 days' then 'certificate_expiring' end
    ], null)
$$;
