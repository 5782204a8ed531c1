//! Which changes a host's moments lie in. `crate::timeline::attribution` says how far around a change is.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How far around a change is.
#[derive(Clone, Copy, Debug)]
pub struct Margins {
    /// So long before its start,
    pub before: Duration,
    /// and after its end.
    pub after: Duration,
    /// One that began so long ago is not looked for.
    pub longest: Duration,
}

/// The change around a moment.
#[derive(Clone, Debug)]
pub struct Around {
    /// The moment's place among those that were asked for, from 1.
    pub nth: i64,
    pub change_id: Uuid,
    /// None where somebody wrote the change down.
    pub run_id: Option<Uuid>,
    pub title: String,
}

/// For each of these moments the change around it, where there is one: one that goes on at that moment rather than one that
/// has ended, and of several the last that began. What only plans, or only checks, changes nothing and is none.
pub async fn list(
    connection: &mut PgConnection,
    host: HostId,
    moments: &[OffsetDateTime],
    margins: Margins,
) -> sqlx::Result<Vec<Around>> {
    sqlx::query_as!(
        Around,
        r#"select m.nth as "nth!", f.change_id as "change_id!", f.run_id as "run_id?", f.title as "title!"
         from unnest($2::timestamptz[]) with ordinality as m (at, nth)
         cross join lateral (
             select h.change_id, h.run_id, left(c.title, 300) as title
             from change_hosts h join changes c on c.change_id = h.change_id left join change_runs r on r.run_id = h.run_id
             where h.host_id = $1 and h.at <= m.at + make_interval(secs => $3)
               and h.at >= m.at - make_interval(secs => $5)
               -- A run that goes on has told more than when its hosts were linked.
               and greatest(h.until, r.ended_at) >= m.at - make_interval(secs => $4)
               and (h.run_id is null or r.kind = 'apply'
                    or r.kind = 'play' and r.detail->>'check' is distinct from 'true')
             order by m.at between h.at and greatest(h.until, r.ended_at) desc, h.at desc, h.change_id, h.run_id
             limit 1
         ) as f"#,
        host.0,
        moments,
        margins.before.as_seconds_f64(),
        margins.after.as_seconds_f64(),
        margins.longest.as_seconds_f64(),
    )
    .fetch_all(connection)
    .await
}
