//! Of each host, how much there is to install and by when: kept beside the updates, so that a list need not count them.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// How long updates of a severity may take on hosts with a tag; on those without any such tag where it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub tag: String,
    pub severity: &'static str,
    pub seconds: i64,
}

/// How a host was asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Why it is not known what there is to install.
    pub unknown: Option<String>,
    pub metadata_at: Option<OffsetDateTime>,
}

/// Says of the security updates of a host, or of all, by when they are due. Answers how many changed.
pub async fn update_due(
    connection: &mut PgConnection,
    host: Option<Uuid>,
    rules: &[Rule],
) -> sqlx::Result<u64> {
    let tags: Vec<_> = rules.iter().map(|rule| rule.tag.clone()).collect();
    let severities: Vec<_> = rules.iter().map(|rule| rule.severity.to_owned()).collect();
    let seconds: Vec<_> = rules.iter().map(|rule| rule.seconds).collect();
    let done = sqlx::query!(
        "with rules as (
             select * from unnest($2::text[], $3::text[], $4::int8[]) as r (tag, severity, seconds)
         ), judged as (
             select u.host_id, u.manager, u.name, u.arch,
                 u.security_since + make_interval(secs => (
                     select min(r.seconds) from rules r
                     where r.severity = case lower(coalesce(u.severity, ''))
                             when 'critical' then 'critical' when 'important' then 'important'
                             when 'high' then 'important' when 'moderate' then 'moderate'
                             when 'medium' then 'moderate' when 'low' then 'low' else 'unrated' end
                       and case when h.tags && (select array_agg(tag) from rules where tag <> '')
                                then r.tag = any(h.tags) else r.tag = '' end
                 )) as due_at
             from pending_updates u join hosts h using (host_id)
             where ($1::uuid is null or u.host_id = $1) and (u.is_security or u.due_at is not null)
         )
         update pending_updates u set due_at = j.due_at
         from judged j
         where u.host_id = j.host_id and u.manager = j.manager and u.name = j.name and u.arch = j.arch
           and u.due_at is distinct from j.due_at",
        host,
        &tags,
        &severities,
        &seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Sums up a host's updates.
pub async fn refresh(
    connection: &mut PgConnection,
    host: HostId,
    asked: &Asked,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_patches
             (host_id, unknown, metadata_at, checked_at, update_count, security_count, blocked_count, security_since,
              due_at)
         select $1, $2, $3, $4, count(*), count(*) filter (where is_security),
             count(*) filter (where blocked_why is not null), min(security_since), min(due_at)
         from pending_updates where host_id = $1
         on conflict (host_id) do update
         set unknown = excluded.unknown, metadata_at = excluded.metadata_at, checked_at = excluded.checked_at,
             update_count = excluded.update_count, security_count = excluded.security_count,
             blocked_count = excluded.blocked_count, security_since = excluded.security_since,
             due_at = excluded.due_at",
        host.0,
        asked.unknown,
        asked.metadata_at,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes over by when each host's first update is due, where its updates say otherwise.
pub async fn update_all_due(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_patches p set due_at = u.due_at
         from (select host_id, min(due_at) as due_at from pending_updates group by host_id) as u
         where u.host_id = p.host_id and p.due_at is distinct from u.due_at"
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes over into the rows that hosts are judged by, of one host or all.
pub async fn update_liveness(
    connection: &mut PgConnection,
    host: Option<Uuid>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness l set patch_due_at = p.due_at from host_patches p
         where p.host_id = l.host_id and ($1::uuid is null or p.host_id = $1)
           and l.patch_due_at is distinct from p.due_at",
        host,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
