//! Resources of runs as they are looked at: page by page, drift by what differs, and the addresses by which a plan is held
//! against what was applied.

use serde::Serialize;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::change_runs::ResourceRow;

/// Resources are counted up to here.
pub const COUNTED: i64 = 100_000;
/// Drifted resources of a run that are put into groups.
const GROUPED: i64 = 5_000;

/// Which resources.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub part: Option<String>,
    /// Those that stay as they are, too.
    pub with_unchanged: bool,
}

/// Resources that drifted alike.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DriftGroup {
    #[serde(rename = "type")]
    pub kind: String,
    /// `update`, or `delete` where they are gone.
    pub action: String,
    /// What differs, without numbers of items.
    pub attributes: Vec<String>,
    /// Of the run's first 5,000 that drifted.
    pub count: i64,
    /// Some of them.
    pub addresses: Vec<String>,
}

/// Addresses and actions of resources; with how an apply ended them.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    pub addresses: Vec<String>,
    pub actions: Vec<String>,
    pub outcomes: Vec<Option<String>>,
}

/// Resources of a run in the document's order: those after this one.
pub async fn list(
    connection: &mut PgConnection,
    run_id: Uuid,
    which: &Which,
    after: i32,
    limit: i64,
) -> sqlx::Result<Vec<ResourceRow>> {
    let mut sql = QueryBuilder::new("");
    push_list(&mut sql, run_id, which, after, limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How they are looked for.
pub async fn explain(
    connection: &mut PgConnection,
    run_id: Uuid,
    which: &Which,
) -> sqlx::Result<String> {
    let mut sql = QueryBuilder::new("explain ");
    push_list(&mut sql, run_id, which, -1, 50);
    let lines: Vec<String> = sql.build_query_scalar().fetch_all(connection).await?;
    Ok(lines.join("\n"))
}

fn push_list(
    sql: &mut QueryBuilder<Postgres>,
    run_id: Uuid,
    which: &Which,
    after: i32,
    limit: i64,
) {
    sql.push("select * from change_resources where true");
    push(sql, run_id, which);
    sql.push(" and ordinal > ").push_bind(after);
    sql.push(" order by ordinal limit ").push_bind(limit);
}

/// How many those are, up to [`COUNTED`].
pub async fn count(
    connection: &mut PgConnection,
    run_id: Uuid,
    which: &Which,
) -> sqlx::Result<i64> {
    let mut sql =
        QueryBuilder::new("select count(*) from (select from change_resources where true");
    push(&mut sql, run_id, which);
    sql.push(" limit ").push_bind(COUNTED).push(") as counted");
    sql.build_query_scalar().fetch_one(connection).await
}

fn push(sql: &mut QueryBuilder<Postgres>, run_id: Uuid, which: &Which) {
    sql.push(" and run_id = ").push_bind(run_id);
    if let Some(part) = &which.part {
        sql.push(" and part = ").push_bind(part.clone());
    }
    if !which.with_unchanged {
        sql.push(" and (action <> 'no_op' or is_imported or previous_address is not null)");
    }
}

/// A run's drift by type and by what differs, the largest groups first.
pub async fn list_drift_groups(
    connection: &mut PgConnection,
    run_id: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<DriftGroup>> {
    let mut groups = sqlx::query_as!(
        DriftGroup,
        r#"select type as "kind!", action as "action!", attributes as "attributes!", count(*) as "count!",
             (array_agg(address order by ordinal))[1:3] as "addresses!"
           from (
               select d.type, d.action, d.address, d.ordinal, array(
                   -- Paths as JSON, without the numbers of items.
                   select distinct regexp_replace(attribute->>'path', ', "[0-9]+"', '', 'g')
                   from jsonb_array_elements(d.attributes) as a (attribute) order by 1
               ) as attributes
               from (
                   select * from change_resources
                   where run_id = $1 and part = 'drift' and action <> 'no_op' order by ordinal limit $3
               ) as d
           ) as drifted
           group by type, action, attributes order by count(*) desc, type, action, attributes limit $2"#,
        run_id,
        limit,
        GROUPED,
    )
    .fetch_all(connection)
    .await?;
    for path in groups.iter_mut().flat_map(|group| &mut group.attributes) {
        let names: Vec<String> = serde_json::from_str(path).unwrap_or_default();
        *path = names.join(".");
    }
    Ok(groups)
}

/// What a plan changes, in the document's order.
pub async fn find_planned(connection: &mut PgConnection, run_id: Uuid) -> sqlx::Result<Columns> {
    sqlx::query_as!(
        Columns,
        r#"select coalesce(array_agg(address), '{}') as "addresses!", coalesce(array_agg(action), '{}') as "actions!",
             '{}'::text[] as "outcomes!: Vec<Option<String>>"
           from (
               select address, action from change_resources
               where run_id = $1 and part = 'change' and action not in ('no_op', 'read')
                 and (action <> 'no_op' or is_imported or previous_address is not null)
               order by ordinal
           ) as planned"#,
        run_id
    )
    .fetch_one(connection)
    .await
}

/// What an apply did, in the order in which it began.
pub async fn find_operations(connection: &mut PgConnection, run_id: Uuid) -> sqlx::Result<Columns> {
    sqlx::query_as!(
        Columns,
        r#"select coalesce(array_agg(address), '{}') as "addresses!", coalesce(array_agg(action), '{}') as "actions!",
             coalesce(array_agg(outcome), '{}') as "outcomes!: Vec<Option<String>>"
           from (
               select address, action, outcome from change_resources
               where run_id = $1 and part = 'operation' and action <> 'no_op' order by ordinal
           ) as operations"#,
        run_id
    )
    .fetch_one(connection)
    .await
}
