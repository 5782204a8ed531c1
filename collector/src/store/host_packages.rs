//! Which host has which package, and what a newer report changed.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A package on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub package_id: i64,
    pub installed_at: Option<OffsetDateTime>,
    pub held: bool,
    pub broken: Option<String>,
}

/// A package on a host, with what it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub package_id: i64,
    pub manager: String,
    pub name: String,
    pub version: String,
    pub arch: String,
    pub sort_key: Option<Vec<u8>>,
    pub installed_at: Option<OffsetDateTime>,
    pub held: bool,
    pub broken: Option<String>,
}

/// One line of a host's history of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub action: &'static str,
    pub manager: &'static str,
    pub name: String,
    pub arch: String,
    pub was_version: Option<String>,
    pub is_version: Option<String>,
    pub is_logged: bool,
}

/// All of a host.
pub async fn list_rows(connection: &mut PgConnection, host: HostId) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        "select package_id, installed_at, held, broken from host_packages where host_id = $1",
        host.0
    )
    .fetch_all(connection)
    .await
}

/// Those of a host with these ids, without what they are known by.
pub async fn list_rows_of(
    connection: &mut PgConnection,
    host: HostId,
    ids: &[i64],
) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        "select package_id, installed_at, held, broken from host_packages
         where host_id = $1 and package_id = any($2)",
        host.0,
        ids,
    )
    .fetch_all(connection)
    .await
}

/// Those of a host with these ids.
pub async fn list_known(
    connection: &mut PgConnection,
    host: HostId,
    ids: &[i64],
) -> sqlx::Result<Vec<Known>> {
    sqlx::query_as!(
        Known,
        "select package_id, manager, name, version, arch, sort_key, installed_at, held, broken
         from host_packages h join packages p using (package_id)
         where h.host_id = $1 and h.package_id = any($2)",
        host.0,
        ids,
    )
    .fetch_all(connection)
    .await
}

/// Those of a host with these names, whatever their manager.
pub async fn list_named(
    connection: &mut PgConnection,
    host: HostId,
    names: &[String],
) -> sqlx::Result<Vec<Known>> {
    sqlx::query_as!(
        Known,
        "select package_id, manager, name, version, arch, sort_key, installed_at, held, broken
         from host_packages h join packages p using (package_id)
         where h.host_id = $1 and p.name = any($2)",
        host.0,
        names,
    )
    .fetch_all(connection)
    .await
}

/// Stores rows of a host, sorted by id, without duplicates.
pub async fn upsert(
    connection: &mut PgConnection,
    host: HostId,
    rows: &[Row],
) -> sqlx::Result<u64> {
    let ids: Vec<_> = rows.iter().map(|row| row.package_id).collect();
    let installed: Vec<_> = rows.iter().map(|row| row.installed_at).collect();
    let held: Vec<_> = rows.iter().map(|row| row.held).collect();
    let broken: Vec<_> = rows.iter().map(|row| row.broken.clone()).collect();
    let done = sqlx::query!(
        "insert into host_packages (host_id, package_id, installed_at, held, broken)
         select $1, i.* from unnest($2::int8[], $3::timestamptz[], $4::bool[], $5::text[])
             as i (package_id, installed_at, held, broken)
         on conflict (host_id, package_id) do update
         set installed_at = excluded.installed_at, held = excluded.held, broken = excluded.broken",
        host.0,
        &ids,
        &installed as &[Option<OffsetDateTime>],
        &held,
        &broken as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes rows of a host.
pub async fn delete(connection: &mut PgConnection, host: HostId, ids: &[i64]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from host_packages where host_id = $1 and package_id = any($2)",
        host.0,
        ids
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Adds to a host's history.
pub async fn insert_changes(
    connection: &mut PgConnection,
    host: HostId,
    changes: &[Change],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let text = |of: fn(&Change) -> &str| -> Vec<String> {
        changes.iter().map(|change| of(change).to_owned()).collect()
    };
    let was: Vec<_> = changes.iter().map(|one| one.was_version.clone()).collect();
    let is: Vec<_> = changes.iter().map(|one| one.is_version.clone()).collect();
    let logged: Vec<_> = changes.iter().map(|one| one.is_logged).collect();
    let done = sqlx::query!(
        "insert into package_changes
             (host_id, changed_at, action, manager, name, arch, was_version, is_version, is_logged)
         select $1, $2, i.* from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                                        $9::bool[]) as i",
        host.0,
        now,
        &text(|change| change.action),
        &text(|change| change.manager),
        &text(|change| &change.name),
        &text(|change| &change.arch),
        &was as &[Option<String>],
        &is as &[Option<String>],
        &logged,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
