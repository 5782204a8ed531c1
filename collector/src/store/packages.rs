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
    let done = sqlx::query!(
        "insert into packages (digest, manager, name, version, arch, source, source_version, vendor, sort_key)
         select * from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                              $8::text[], $9::bytea[])
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
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
