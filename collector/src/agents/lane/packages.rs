//! `packages`: a whole or a delta becomes rows, and the difference a host's history.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use infratrack_shared::digest::Digest;
use infratrack_shared::wire::packages::{Database, Manager, Package, PackageKey, PackagesPart};
use rmpv::Value;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::dictionary::digest;
use super::{Incoming, Keeper, Taken, decoded, is_name};
use crate::store::host_packages::{self as rows, Change, Known, Row};
use crate::store::packages::{Entry, manager_name, sort_key};
use crate::store::storable;

/// A host's packages at most; more are left out, and counted.
const MOST: usize = 100_000;

/// Everything that a version says.
struct Inventory {
    databases: Vec<Database>,
    entries: BTreeMap<Digest, Entry>,
    rows: BTreeMap<Digest, Package>,
    gone: Vec<(Manager, PackageKey)>,
    skipped: usize,
}

/// A package that stays, comes or goes, in the same words on both sides.
#[derive(Default)]
struct Side {
    version: String,
    sort_key: Option<Vec<u8>>,
    held: bool,
    broken: bool,
}

/// Stores a version whose parts are all here.
pub(super) async fn apply(
    keeper: &Keeper,
    connection: &mut PgConnection,
    incoming: &Incoming<'_>,
    bodies: &[Value],
) -> anyhow::Result<Taken> {
    let parts = match decoded(bodies) {
        Ok(parts) => parts,
        Err(taken) => return Ok(taken),
    };
    let inventory = inventory(parts);
    let ids = keeper
        .dictionary
        .ids(connection, &inventory.entries)
        .await?;
    let now = keeper.clock.now();
    let host = incoming.version.host;
    let mut transaction = connection.begin().await?;
    let stored = match incoming.begin(&mut transaction).await? {
        Ok(stored) => stored,
        Err(taken) => return Ok(taken),
    };
    let put = put(&inventory, &ids);
    let ids_put: Vec<i64> = put.iter().map(|row| row.package_id).collect();
    let (before, gone) = if incoming.base.is_some() {
        let before = rows::list_rows_of(&mut transaction, host, &ids_put).await?;
        let gone = gone_of_delta(&mut transaction, incoming, &inventory, &put).await?;
        (before, gone)
    } else {
        let before = rows::list_rows(&mut transaction, host).await?;
        let gone = gone_of_whole(&mut transaction, incoming, &inventory, &put, &before).await?;
        (before, gone)
    };
    let before: HashMap<_, _> = before
        .into_iter()
        .map(|row| (row.package_id, row))
        .collect();
    let changed: Vec<_> = put
        .into_iter()
        .filter(|row| {
            let known = before.get(&row.package_id);
            known.is_none_or(|known| {
                (known.installed_at, known.held, &known.broken)
                    != (row.installed_at, row.held, &row.broken)
            })
        })
        .collect();
    if !gone.is_empty() {
        let ids: Vec<_> = gone.iter().map(|known| known.package_id).collect();
        rows::delete(&mut transaction, host, &ids).await?;
    }
    if !changed.is_empty() {
        rows::upsert(&mut transaction, host, &changed).await?;
    }
    // What is told first is no change.
    if stored.is_some() {
        let changes = changes(&inventory, &ids, &changed, &before, &gone);
        if !changes.is_empty() {
            rows::insert_changes(&mut transaction, host, &changes, now).await?;
        }
    }
    let body = json!({"databases": inventory.databases});
    incoming
        .end(&mut transaction, &body, inventory.skipped, now)
        .await?;
    transaction.commit().await?;
    Ok(Taken::Stored)
}

fn inventory(parts: Vec<PackagesPart>) -> Inventory {
    let mut inventory = Inventory {
        databases: Vec::new(),
        entries: BTreeMap::new(),
        rows: BTreeMap::new(),
        gone: Vec::new(),
        skipped: 0,
    };
    for part in parts {
        inventory.databases.extend(part.databases);
        for group in part.put {
            for package in group.packages {
                inventory.add(group.manager, package);
            }
        }
        for group in part.gone {
            let gone = group.packages.into_iter();
            inventory.gone.extend(gone.map(|key| (group.manager, key)));
        }
    }
    for database in &mut inventory.databases {
        database.unknown = database.unknown.as_deref().map(storable);
    }
    inventory
}

impl Inventory {
    fn add(&mut self, manager: Manager, package: Package) {
        let has_names = is_name(&package.name) && is_name(&package.version);
        if !has_names || package.arch.len() > super::NAME_BYTES || self.rows.len() >= MOST {
            self.skipped += 1;
            return;
        }
        let text = |text: &Option<String>| text.as_deref().map_or_else(String::new, storable);
        let entry = Entry {
            manager,
            name: storable(&package.name),
            version: storable(&package.version),
            arch: storable(&package.arch),
            source: cut(text(&package.source)),
            source_version: cut(text(&package.source_version)),
            vendor: text(&package.vendor),
            sort_key: sort_key(manager, &package.version),
        };
        let digest = digest(&entry);
        self.entries.insert(digest, entry);
        self.rows.insert(digest, package);
    }

    fn is_logged(&self, manager: Manager) -> bool {
        let mut databases = self.databases.iter();
        databases.any(|database| database.manager == manager && database.has_log)
    }
}

/// A source is in an index.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(super::NAME_BYTES));
    text
}

/// The rows that are to be there, sorted by id.
fn put(inventory: &Inventory, ids: &HashMap<Digest, i64>) -> Vec<Row> {
    let rows = inventory.rows.iter().filter_map(|(digest, package)| {
        let installed_at = package.installed_at_s;
        let installed_at = installed_at.and_then(|at| i64::try_from(at).ok());
        Some(Row {
            package_id: *ids.get(digest)?,
            installed_at: installed_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
            held: package.held,
            broken: package.broken.as_deref().map(storable),
        })
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable_by_key(|row| row.package_id);
    rows
}

/// What a whole leaves out, unless its database could not be read.
async fn gone_of_whole(
    connection: &mut PgConnection,
    incoming: &Incoming<'_>,
    inventory: &Inventory,
    put: &[Row],
    before: &[Row],
) -> sqlx::Result<Vec<Known>> {
    let host = incoming.version.host;
    let stay: HashSet<_> = put.iter().map(|row| row.package_id).collect();
    let missing = before.iter().map(|row| row.package_id);
    let missing: Vec<_> = missing.filter(|id| !stay.contains(id)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let unknown: HashSet<_> = inventory
        .databases
        .iter()
        .filter(|database| database.unknown.is_some())
        .map(|database| manager_name(database.manager))
        .collect();
    let mut gone = rows::list_known(connection, host, &missing).await?;
    gone.retain(|known| !unknown.contains(known.manager.as_str()));
    Ok(gone)
}

/// What a delta says is gone, and what another entry of the same package takes the place of.
async fn gone_of_delta(
    connection: &mut PgConnection,
    incoming: &Incoming<'_>,
    inventory: &Inventory,
    put: &[Row],
) -> sqlx::Result<Vec<Known>> {
    let stay: HashSet<_> = put.iter().map(|row| row.package_id).collect();
    let put_keys = inventory.entries.values().map(|entry| {
        let manager = manager_name(entry.manager);
        (manager, &*entry.name, &*entry.version, &*entry.arch)
    });
    let gone_keys = inventory.gone.iter().map(|(manager, key)| {
        let manager = manager_name(*manager);
        (manager, &*key.name, &*key.version, &*key.arch)
    });
    let keys: HashSet<_> = put_keys.chain(gone_keys).collect();
    let names: BTreeSet<_> = keys.iter().map(|key| storable(key.1)).collect();
    let names: Vec<_> = names.into_iter().collect();
    let mut gone = rows::list_named(connection, incoming.version.host, &names).await?;
    gone.retain(|known| {
        let key = (&*known.manager, &*known.name, &*known.version, &*known.arch);
        keys.contains(&key) && !stay.contains(&known.package_id)
    });
    Ok(gone)
}

/// One package's two sides; more where it is there in many versions.
#[derive(Default)]
struct Sides {
    was: Vec<Side>,
    is: Vec<Side>,
}

fn changes(
    inventory: &Inventory,
    ids: &HashMap<Digest, i64>,
    changed: &[Row],
    before: &HashMap<i64, Row>,
    gone: &[Known],
) -> Vec<Change> {
    let entries: HashMap<_, _> = inventory
        .entries
        .iter()
        .filter_map(|(digest, entry)| Some((*ids.get(digest)?, entry)))
        .collect();
    let mut by_name: BTreeMap<(&'static str, &str, &str), (Manager, Sides)> = BTreeMap::new();
    let mut sides = |manager: Manager, name, arch, side: Side, is_new: bool| {
        let key = (manager_name(manager), name, arch);
        let (_, sides) = by_name
            .entry(key)
            .or_insert_with(|| (manager, Sides::default()));
        if is_new {
            sides.is.push(side);
        } else {
            sides.was.push(side);
        }
    };
    for row in changed {
        let Some(entry) = entries.get(&row.package_id) else {
            continue;
        };
        let side = |row: &Row| Side {
            version: entry.version.clone(),
            sort_key: entry.sort_key.clone(),
            held: row.held,
            broken: row.broken.is_some(),
        };
        sides(entry.manager, &entry.name, &entry.arch, side(row), true);
        if let Some(before) = before.get(&row.package_id) {
            sides(entry.manager, &entry.name, &entry.arch, side(before), false);
        }
    }
    for known in gone {
        let manager = crate::store::packages::manager(&known.manager);
        sides(manager, &known.name, &known.arch, Side::of(known), false);
    }
    let mut changes = Vec::new();
    for ((_, name, arch), (manager, sides)) in by_name {
        let is_logged = inventory.is_logged(manager);
        for (action, was, is) in sides.actions() {
            changes.push(Change {
                action,
                manager: manager_name(manager),
                name: name.to_owned(),
                arch: arch.to_owned(),
                was_version: was,
                is_version: is,
                // No manager logs who holds what.
                is_logged: is_logged && !["held", "released"].contains(&action),
            });
        }
    }
    changes
}

impl Side {
    fn of(known: &Known) -> Self {
        Self {
            version: known.version.clone(),
            sort_key: known.sort_key.clone(),
            held: known.held,
            broken: known.broken.is_some(),
        }
    }
}

type Action = (&'static str, Option<String>, Option<String>);

impl Sides {
    /// What happened. Versions that are on both sides are the same package; of what is left, one that went and one
    /// that came are an upgrade or its reverse.
    fn actions(mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut left = Vec::new();
        for is in self.is {
            let same = self.was.iter().position(|was| was.version == is.version);
            match same {
                Some(place) => marks(&self.was.swap_remove(place), &is, &mut actions),
                None => left.push(is),
            }
        }
        if let ([was], [is]) = (self.was.as_slice(), left.as_slice()) {
            let action = match (&was.sort_key, &is.sort_key) {
                (Some(was), Some(is)) if was < is => "upgraded",
                (Some(was), Some(is)) if was > is => "downgraded",
                _ => "changed",
            };
            let versions = (Some(was.version.clone()), Some(is.version.clone()));
            actions.push((action, versions.0, versions.1));
            marks(was, is, &mut actions);
            return actions;
        }
        let gone = self.was.into_iter();
        actions.extend(gone.map(|was| ("removed", Some(was.version), None)));
        for is in left {
            actions.push(("installed", None, Some(is.version.clone())));
            marks(&Side::default(), &is, &mut actions);
        }
        actions
    }
}

/// What is said of a package beside its version.
fn marks(was: &Side, is: &Side, actions: &mut Vec<Action>) {
    let version = Some(is.version.clone());
    match (was.held, is.held) {
        (false, true) => actions.push(("held", None, version.clone())),
        (true, false) => actions.push(("released", None, version.clone())),
        _ => {}
    }
    match (was.broken, is.broken) {
        (false, true) => actions.push(("broken", None, version)),
        (true, false) => actions.push(("mended", None, version)),
        _ => {}
    }
}
