//! Failed logins in a row.

use sqlx::PgConnection;
use time::OffsetDateTime;

/// How often a subject failed, and when last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    pub subject: String,
    pub failures: i32,
    pub last_at: OffsetDateTime,
}

/// The failures of these subjects since `since`.
pub async fn list(
    connection: &mut PgConnection,
    subjects: &[String],
    since: OffsetDateTime,
) -> sqlx::Result<Vec<Failures>> {
    sqlx::query_as!(
        Failures,
        "select subject, failures, last_at from login_failures where subject = any($1) and last_at > $2",
        subjects,
        since,
    )
    .fetch_all(connection)
    .await
}

/// Adds a failure to each; those from before `since` are forgotten. Subjects come sorted.
pub async fn add(
    connection: &mut PgConnection,
    subjects: &[String],
    now: OffsetDateTime,
    since: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into login_failures as f (subject, failures, last_at)
         select subject, 1, $2 from unnest($1::text[]) as subject
         on conflict (subject) do update
             set failures = case when f.last_at > $3 then least(f.failures, 1000000) + 1 else 1 end, last_at = $2",
        subjects,
        now,
        since,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets the failures of these subjects.
pub async fn delete(connection: &mut PgConnection, subjects: &[String]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from login_failures where subject = any($1)",
        subjects
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets those from before `since`.
pub async fn delete_before(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from login_failures where last_at <= $1", since)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
