//! Changes that touched the same hosts at about the same time as another one.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// A change that may have to do with another.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RelatedChange)]
pub struct RelatedRow {
    #[serde(rename = "id")]
    pub change_id: Uuid,
    pub title: String,
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub ended_at: OffsetDateTime,
    pub outcome: String,
    pub tools: Vec<String>,
    pub actor: Option<String>,
    pub repository: Option<String>,
    /// Hosts that both touched within two hours of each other.
    pub shared_host_count: i64,
}

/// Changes that touched a host of this one while it did, or within two hours before or after: those with the most of
/// them first. Of more than 200 changes at that time the latest are looked at.
pub async fn list(
    connection: &mut PgConnection,
    change_id: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<RelatedRow>> {
    sqlx::query_as!(
        RelatedRow,
        r#"with near as (
             select c.* from changes mine
             join changes c on tstzrange(c.started_at, greatest(c.started_at, c.ended_at), '[]')
                 && tstzrange(mine.started_at - interval '2 hours',
                     greatest(mine.started_at, mine.ended_at) + interval '2 hours', '[]')
             where mine.change_id = $1 and c.change_id <> $1 and c.host_count > 0
             order by c.started_at desc limit 200
           ), shared as (
             select other.change_id, count(distinct other.host_id) as host_count
             from change_hosts mine join change_hosts other on other.host_id = mine.host_id
                 and other.at <= mine.until + interval '2 hours' and other.until >= mine.at - interval '2 hours'
             where mine.change_id = $1 and other.change_id in (select change_id from near)
             group by other.change_id
           )
           select n.change_id, n.title, n.started_at, n.ended_at, n.outcome, n.tools, n.actor, n.repository,
               s.host_count as "shared_host_count!"
           from near n join shared s using (change_id)
           order by s.host_count desc, n.started_at desc, n.change_id limit $2"#,
        change_id,
        limit,
    )
    .fetch_all(connection)
    .await
}
