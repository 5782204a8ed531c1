//! The words of hosts' facts, by which hosts are found; those of a host's own columns are an index's.
//! Kept by whoever changes facts, in the same transaction.

use sqlx::PgConnection;
use uuid::Uuid;

/// Takes the words of the facts of `hosts`, sorted.
pub async fn update_fact_words(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_fact_words as w (host_id, words)
         select host_id, fact_words(host_id) from unnest($1::uuid[]) as host_id
         on conflict (host_id) do update set words = excluded.words
         where w.words is distinct from excluded.words",
        hosts,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
