//! What a list of hosts could be narrowed to: how many of those that match are in each status, and which values the
//! fleet's hosts have.

use sqlx::{PgConnection, QueryBuilder};

use crate::store::hosts::Cutoffs;
use crate::store::hosts::filter::Filter;
use crate::store::hosts::list::push_matching;

/// How many of the hosts that match are in each status; a status of the filter is left out of account.
pub async fn count_by_status(
    connection: &mut PgConnection,
    filter: &Filter,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<(String, i64)>> {
    let filter = Filter {
        status: Vec::new(),
        ..filter.clone()
    };
    let mut query = QueryBuilder::new("select j.status, count(*)");
    push_matching(&mut query, &filter, cutoffs, true, true);
    query.push(" group by 1");
    query.build_query_as().fetch_all(connection).await
}

/// A value that hosts at work have, and how many do.
#[derive(Clone, Debug)]
pub struct Value {
    /// `tag`, `owner`, `environment`, `os` or `agent_version`.
    pub field: String,
    pub value: String,
    pub count: i64,
}

/// The values that most hosts at work have, at most `most` of each field, the commonest first.
pub async fn list_values(connection: &mut PgConnection, most: i64) -> sqlx::Result<Vec<Value>> {
    sqlx::query_as!(
        Value,
        r#"with working as (
               select h.tags, h.owner, h.environment, h.os_id, l.agent_version
               from hosts h join host_liveness l using (host_id)
               where h.retired_at is null and h.conflict_of is null and h.deleted_at is null
           ), told as (
               select case grouping(owner, environment, os_id, agent_version)
                          when 7 then 'owner' when 11 then 'environment' when 13 then 'os' else 'agent_version' end as field,
                   coalesce(owner, environment, os_id, agent_version) as value, count(*) as count
               from working group by grouping sets ((owner), (environment), (os_id), (agent_version))
               union all
               select 'tag', tag, count(*) from working, unnest(tags) as tag group by 2
           )
           select field as "field!", value as "value!", count as "count!"
           from (select told.*, row_number() over (partition by field order by count desc, value) as place
                 from told where value is not null) as placed
           where place <= $1 order by field, place"#,
        most,
    )
    .fetch_all(connection)
    .await
}
