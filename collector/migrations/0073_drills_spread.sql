-- A period in seconds times a part of 65,536 is no integer.

create or replace view volume_drills as
select v.volume_id, d.drill_id, d.state, d.reason, d.started_at, d.ended_at, d.is_sampled, d.restore_ms, d.rto_s,
    case
        when p.every_s is null then null
        when d.drill_id is null
            then v.created_at + make_interval(secs => p.every_s * (('x' || right(v.volume_id::text, 4))::bit(16)::integer / 65536.0))
        when d.state = 'ok' then d.started_at + make_interval(secs => p.every_s)
        else d.started_at + make_interval(secs => least(p.every_s, 86400))
    end as due_at,
    coalesce(v.last_good_drill_at, v.created_at) + make_interval(secs => p.every_s * 1.25) as overdue_at
from volumes v
cross join lateral (select case when v.kind <> 'external' then v.drill_every_s end as every_s) p
left join drills d on d.drill_id = v.last_drill_id
where v.deleted_at is null;
