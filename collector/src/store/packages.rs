//! The dictionary of packages: each name, version and origin once, however many hosts have it.
//!
//! Rows are added and never changed or deleted, so that nobody waits on a row that hosts share.

use infratrack_shared::digest::Digest;
use infratrack_shared::version::{deb, rpm};
use infratrack_shared::wire::packages::Manager;
use sqlx::PgConnection;

/// A package as the dictionary has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub manager: Manager,
    pub name: String,
    pub version: String,
    pub arch: String,
    /// Empty where it is built from what it is called.
    pub source: String,
    pub source_version: String,
    pub vendor: String,
    /// Sorts as the manager orders versions.
    pub sort_key: Option<Vec<u8>>,
}

/// What a manager is called in the tables and the API.
pub fn manager_name(manager: Manager) -> &'static str {
    match manager {
        Manager::Apk => "apk",
        Manager::Dpkg => "dpkg",
        Manager::Flatpak => "flatpak",
        Manager::Rpm => "rpm",
        Manager::Snap => "snap",
        Manager::Other => "other",
    }
}

/// The manager of that name.
pub fn manager(name: &str) -> Manager {
    let all = [
        Manager::Apk,
        Manager::Dpkg,
        Manager::Flatpak,
        Manager::Rpm,
        Manager::Snap,
    ];
    let found = all
        .into_iter()
        .find(|manager| manager_name(*manager) == name);
    found.unwrap_or_default()
}

/// Sorts as `manager` orders versions, where that order is known here.
pub fn sort_key(manager: Manager, version: &str) -> Option<Vec<u8>> {
    match manager {
        Manager::Dpkg => Some(deb::Version::split(version).sort_key()),
        Manager::Rpm => {
            let (epoch, version, release) = rpm::split(version);
            Some(rpm::sort_key(epoch, version, release))
        }
        Manager::Apk | Manager::Flatpak | Manager::Snap | Manager::Other => None,
    }
}

/// Sorts as `manager` orders versions of what a package was built from. None: it is not known, as of a package of rpm whose
/// source has another version, for rpm keeps that without its epoch.
pub fn source_key(manager: Manager, version: &str, source_version: &str) -> Option<Vec<u8>> {
    if source_version.is_empty() {
        return sort_key(manager, version);
    }
    let has_epoch = manager == Manager::Rpm && rpm::split(version).0.is_some();
    if has_epoch {
        return None;
    }
    sort_key(manager, source_version)
}

/// Entries whose source's place in the order was not stored: by a collector of before.
pub async fn list_without_source_key(
    connection: &mut PgConnection,
    after: i64,
) -> sqlx::Result<Vec<(i64, String, String, String)>> {
    let rows = sqlx::query!(
        "select package_id, manager, version, source_version from packages
         where source_key is null and sort_key is not null and package_id > $1 order by package_id limit 5000",
        after,
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.package_id, row.manager, row.version, row.source_version))
        .collect())
}

/// Stores their sources' places in the order.
pub async fn update_source_keys(
    connection: &mut PgConnection,
    keys: &[(i64, Vec<u8>)],
) -> sqlx::Result<u64> {
    let (ids, keys): (Vec<_>, Vec<_>) = keys.iter().cloned().unzip();
    let done = sqlx::query!(
        "update packages p set source_key = i.key from unnest($1::int8[], $2::bytea[]) as i (id, key)
         where p.package_id = i.id",
        &ids,
        &keys,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What stands in the dictionary of these packages: `(manager, name, arch, version)` to source, its version and vendor.
pub async fn list_sources(
    connection: &mut PgConnection,
    names: &[String],
    versions: &[String],
) -> sqlx::Result<Vec<Entry>> {
    let rows = sqlx::query!(
        "select p.manager, p.name, p.version, p.arch, p.source, p.source_version, p.vendor
         from unnest($1::text[], $2::text[]) as i (name, version)
         join packages p on p.name = i.name and p.version = i.version",
        names,
        versions,
    )
    .fetch_all(connection)
    .await?;
    let entry = rows.into_iter().map(|row| Entry {
        manager: manager(&row.manager),
        name: row.name,
        version: row.version,
        arch: row.arch,
        source: row.source,
        source_version: row.source_version,
        vendor: row.vendor,
        sort_key: None,
    });
    Ok(entry.collect())
}

/// The ids of the entries with those digests that are there.
pub async fn find_ids(
    connection: &mut PgConnection,
    digests: &[Digest],
) -> sqlx::Result<Vec<(Digest, i64)>> {
    let digests: Vec<_> = digests.iter().map(|one| one.as_bytes().to_vec()).collect();
    let rows = sqlx::query!(
        "select digest, package_id from packages where digest = any($1)",
        &digests
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((Digest::from_slice(&row.digest)?, row.package_id)))
        .collect())
}

/// Adds the entries that are not there. Sorted by digest, without duplicates.
pub async fn insert(
    connection: &mut PgConnection,
    entries: &[(Digest, &Entry)],
) -> sqlx::Result<u64> {
    let text = |of: fn(&Entry) -> &str| -> Vec<String> {
        let texts = entries.iter().map(|(_, entry)| of(entry).to_owned());
        texts.collect()
    };
    let digests: Vec<_> = entries
        .iter()
        .map(|(digest, _)| digest.as_bytes().to_vec())
        .collect();
    let keys: Vec<_> = entries
        .iter()
        .map(|(_, entry)| entry.sort_key.clone())
        .collect();
    let source_keys: Vec<_> = entries
        .iter()
        .map(|(_, entry)| source_key(entry.manager, &entry.version, &entry.source_version))
        .collect();
    let done = sqlx::query!(
        "insert into packages (digest, manager, name, version, arch, source, source_version, vendor, sort_key, source_key)
         select * from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                              $8::text[], $9::bytea[], $10::bytea[])
         on conflict (digest) do nothing",
        &digests,
        &text(|entry| manager_name(entry.manager)),
        &text(|entry| &entry.name),
        &text(|entry| &entry.version),
        &text(|entry| &entry.arch),
        &text(|entry| &entry.source),
        &text(|entry| &entry.source_version),
        &text(|entry| &entry.vendor),
        &keys as &[Option<Vec<u8>>],
        &source_keys as &[Option<Vec<u8>>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
