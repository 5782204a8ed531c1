//! What was imported of advisories: feeds, advisories, statements, and what of it is open in the fleet.

use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;

/// A feed, and what came of it.
#[derive(Clone, Debug, serde::Serialize, ToSchema)]
#[schema(as = AdvisoryFeed)]
pub struct FeedRow {
    #[serde(skip)]
    pub feed_id: i64,
    pub name: String,
    /// `osv | debian-tracker | oval`.
    pub format: String,
    pub location: String,
    #[serde(skip)]
    pub fingerprint: Option<String>,
    #[serde(with = "rfc3339")]
    pub looked_at: OffsetDateTime,
    /// When what is known of it was read; null where nothing was yet.
    #[serde(with = "rfc3339::option")]
    pub imported_at: Option<OffsetDateTime>,
    /// Why it could not be read last; what was known of it stands.
    pub error: Option<String>,
    pub advisory_count: i64,
    pub statement_count: i64,
    /// What was left out: of distributions that are not known here, say.
    pub skipped_count: i64,
}

/// An advisory as it is stored.
#[derive(Clone, Debug, Default)]
pub struct Advisory {
    pub id: String,
    pub names: Vec<String>,
    pub severity: Option<String>,
    pub summary: String,
}

/// A statement as it is stored.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Statement {
    pub advisory_id: String,
    pub distribution: String,
    pub manager: &'static str,
    pub package: String,
    pub applies: &'static str,
    pub state: &'static str,
    pub fixed_version: Option<String>,
    /// In hexadecimal digits.
    pub from_key: Option<String>,
    pub before_key: Option<String>,
    pub is_extra: bool,
    pub is_module: bool,
    pub note: Option<String>,
}

/// What an import counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub advisories: i64,
    pub statements: i64,
    pub skipped: i64,
}

/// All feeds, by name.
pub async fn list_feeds(connection: &mut PgConnection) -> sqlx::Result<Vec<FeedRow>> {
    sqlx::query_as!(
        FeedRow,
        "select feed_id, name, format, location, fingerprint, looked_at, imported_at, error, advisory_count,
             statement_count, skipped_count
         from advisory_feeds order by name"
    )
    .fetch_all(connection)
    .await
}

/// Notes that a feed was looked at. Answers its id.
pub async fn upsert_feed(
    connection: &mut PgConnection,
    name: &str,
    format: &str,
    location: &str,
    error: Option<&str>,
    now: OffsetDateTime,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        "insert into advisory_feeds (name, format, location, looked_at, error) values ($1, $2, $3, $5, $4)
         on conflict (name) do update
         set format = excluded.format, location = excluded.location, looked_at = excluded.looked_at,
             error = excluded.error
         returning feed_id",
        name,
        format,
        location,
        error,
        now,
    )
    .fetch_one(connection)
    .await
}

/// Notes that a feed's documents were imported.
pub async fn update_imported(
    connection: &mut PgConnection,
    feed: i64,
    fingerprint: &str,
    counts: Counts,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update advisory_feeds
         set fingerprint = $2, imported_at = $6, error = null, advisory_count = $3, statement_count = $4,
             skipped_count = $5
         where feed_id = $1",
        feed,
        fingerprint,
        counts.advisories,
        counts.statements,
        counts.skipped,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the feeds that are none of these, with all that they said.
pub async fn delete_feeds_but(
    connection: &mut PgConnection,
    names: &[String],
) -> sqlx::Result<u64> {
    let sql = sqlx::query!("delete from advisory_feeds where name <> all($1)", names);
    Ok(sql.execute(connection).await?.rows_affected())
}

/// Lets the statements of this transaction take as long as an import does.
pub async fn allow_minutes(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select set_config('statement_timeout', '5min', true)")
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// Deletes what a feed said of packages.
pub async fn delete_statements(connection: &mut PgConnection, feed: i64) -> sqlx::Result<u64> {
    let sql = sqlx::query!("delete from advisory_statements where feed_id = $1", feed);
    Ok(sql.execute(connection).await?.rows_affected())
}

/// Deletes the advisories of a feed.
pub async fn delete_advisories(connection: &mut PgConnection, feed: i64) -> sqlx::Result<u64> {
    let sql = sqlx::query!("delete from advisories where feed_id = $1", feed);
    Ok(sql.execute(connection).await?.rows_affected())
}

/// Stores advisories of a feed, each once; where one is there, its severity is filled in.
pub async fn upsert_advisories(
    connection: &mut PgConnection,
    feed: i64,
    advisories: &[Advisory],
) -> sqlx::Result<u64> {
    let rows = advisories.iter().map(|one| {
        serde_json::json!({
            "id": one.id, "names": one.names, "severity": one.severity, "summary": one.summary,
        })
    });
    let rows = serde_json::Value::Array(rows.collect());
    let done = sqlx::query!(
        "insert into advisories (feed_id, advisory_id, names, severity, summary)
         select $1, id, names, severity, summary
         from jsonb_to_recordset($2) as i (id text, names text[], severity text, summary text)
         on conflict (advisory_id, feed_id) do update
         set severity = coalesce(advisories.severity, excluded.severity)",
        feed,
        rows,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores statements of a feed.
pub async fn insert_statements(
    connection: &mut PgConnection,
    feed: i64,
    statements: &[Statement],
) -> sqlx::Result<u64> {
    let rows = serde_json::to_value(statements).unwrap_or_default();
    let done = sqlx::query!(
        "insert into advisory_statements (feed_id, advisory_id, distribution, manager, package, applies, state,
             fixed_version, from_key, before_key, is_extra, is_module, note)
         select $1, advisory_id, distribution, manager, package, applies, state, fixed_version,
             decode(from_key, 'hex'), decode(before_key, 'hex'), is_extra, is_module, note
         from jsonb_to_recordset($2) as i (advisory_id text, distribution text, manager text, package text, applies text,
             state text, fixed_version text, from_key text, before_key text, is_extra bool, is_module bool, note text)",
        feed,
        rows,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whether the findings were made of what there is, at this time or later.
pub async fn is_counted(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from advisory_counted
               where counted_at >= $1
                 and newest_package = (select coalesce(max(package_id), 0) from packages)
                 and newest_statement = (select coalesce(max(statement_id), 0) from advisory_statements)
           ) as "is_counted!""#,
        since,
    )
    .fetch_one(connection)
    .await
}

/// Notes of what the findings are made.
pub async fn upsert_counted(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into advisory_counted (counted_at, newest_package, newest_statement)
         select $1, (select coalesce(max(package_id), 0) from packages),
             (select coalesce(max(statement_id), 0) from advisory_statements)
         on conflict (is_only) do update
         set counted_at = excluded.counted_at, newest_package = excluded.newest_package,
             newest_statement = excluded.newest_statement",
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets the findings.
pub async fn delete_findings(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let sql = sqlx::query!("delete from advisory_findings");
    Ok(sql.execute(connection).await?.rows_affected())
}

/// Makes the findings: what is not fixed, of packages that a host of the distribution has.
pub async fn insert_findings(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into advisory_findings (advisory_id, package_id, distribution, state)
         select advisory_id, package_id, distribution, verdict
         from (select distinct on (advisory_id, package_id, distribution) advisory_id, package_id, distribution, verdict
               from advisory_verdicts
               where distribution in (select host_distribution(body) from facts where key = 'facts.os')
               order by advisory_id, package_id, distribution, verdict_rank(verdict, is_extra)) as v
         where verdict <> 'fixed' and exists (
             select from host_packages p join facts f on f.host_id = p.host_id and f.key = 'facts.os'
             where p.package_id = v.package_id and host_distribution(f.body) = v.distribution)"
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
