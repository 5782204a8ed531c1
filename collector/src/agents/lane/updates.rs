//! `updates`: what is pending becomes rows that keep their age, and what is pending no more goes to what was.

use std::collections::{BTreeMap, HashMap, HashSet};

use infratrack_shared::wire::packages::{PendingUpdate, UpdateCheck, UpdatesPart};
use rmpv::Value;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::{Incoming, Keeper, Taken, decoded, is_name};
use crate::store::host_packages::{self, Known};
use crate::store::host_patches::{self, Asked};
use crate::store::packages::{manager_name, sort_key};
use crate::store::pending_updates::{self as rows, Past, Row};
use crate::store::storable;

/// A host's updates at most; more are left out, and counted.
const MOST: usize = 50_000;
/// Of one update.
const ADVISORIES: usize = 100;

type Key = (String, String, String);

/// Stores a version whose parts are all here.
pub(super) async fn apply(
    keeper: &Keeper,
    connection: &mut PgConnection,
    incoming: &Incoming<'_>,
    bodies: &[Value],
) -> anyhow::Result<Taken> {
    let parts: Vec<UpdatesPart> = match decoded(bodies) {
        Ok(parts) => parts,
        Err(taken) => return Ok(taken),
    };
    let (checks, pending, skipped) = told(parts);
    let now = keeper.clock.now();
    let host = incoming.version.host;
    let mut transaction = connection.begin().await?;
    if let Err(taken) = incoming.begin(&mut transaction).await? {
        return Ok(taken);
    }
    let before = rows::list_rows(&mut transaction, host).await?;
    let before: HashMap<_, _> = before.into_iter().map(|row| (key(&row), row)).collect();
    let unknown: HashSet<_> = checks
        .iter()
        .filter(|check| check.unknown.is_some())
        .map(|check| manager_name(check.manager))
        .collect();
    let gone: Vec<_> = before
        .iter()
        .filter(|(key, _)| !pending.contains_key(*key) && !unknown.contains(key.0.as_str()))
        .map(|(_, row)| row)
        .collect();
    if !gone.is_empty() {
        let mut names: Vec<_> = gone.iter().map(|row| row.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let installed = host_packages::list_named(&mut transaction, host, &names).await?;
        let past: Vec<_> = gone.iter().map(|row| past(row, &installed)).collect();
        rows::retire(&mut transaction, host, &past, now).await?;
    }
    let changed = pending
        .into_iter()
        .filter(|(key, row)| before.get(key) != Some(row));
    let changed: Vec<_> = changed.map(|(_, row)| row).collect();
    if !changed.is_empty() {
        rows::upsert(&mut transaction, host, &changed, now).await?;
    }
    let known = checks.iter().filter_map(|check| check.metadata_at_s);
    let asked = Asked {
        unknown: unknown_words(&checks),
        metadata_at: known.min().and_then(instant),
    };
    rows::mark_multiarch(&mut transaction, host).await?;
    host_patches::update_due(&mut transaction, Some(host.0), &keeper.rules).await?;
    host_patches::refresh(&mut transaction, host, &asked, now).await?;
    host_patches::update_liveness(&mut transaction, Some(host.0)).await?;
    let body = json!({"checks": checks});
    incoming.end(&mut transaction, &body, skipped, now).await?;
    transaction.commit().await?;
    Ok(Taken::Stored)
}

/// Why it is not known what there is to install: nobody was asked, or some did not know.
fn unknown_words(checks: &[UpdateCheck]) -> Option<String> {
    let unknown = checks.iter().filter_map(|check| {
        let reason = check.unknown.as_ref()?;
        Some(format!("{}: {reason}", check.tool))
    });
    let unknown: Vec<_> = unknown.collect();
    if checks.is_empty() {
        return Some("no package manager was asked".to_owned());
    }
    (!unknown.is_empty()).then(|| unknown.join("; "))
}

fn instant(unix_s: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix_s).ok()?).ok()
}

fn key(row: &Row) -> Key {
    (row.manager.clone(), row.name.clone(), row.arch.clone())
}

/// Who was asked, what is pending, and how much of it is left out.
fn told(parts: Vec<UpdatesPart>) -> (Vec<UpdateCheck>, BTreeMap<Key, Row>, usize) {
    let (mut checks, mut pending, mut skipped) = (Vec::new(), BTreeMap::new(), 0);
    for part in parts {
        checks.extend(part.checks);
        for group in part.pending {
            for update in group.packages {
                let names = [&update.name, &update.installed, &update.candidate];
                let has_names = names.into_iter().all(|name| is_name(name));
                if !has_names || update.arch.len() > super::NAME_BYTES || pending.len() >= MOST {
                    skipped += 1;
                    continue;
                }
                let candidate = sort_key(group.manager, &update.candidate);
                let row = Row::of(manager_name(group.manager), clean(update), candidate);
                // Of many versions of one package the newest is what there is to install.
                let newest = pending.entry(key(&row)).or_insert_with(|| row.clone());
                if newest.candidate_key < row.candidate_key {
                    *newest = row;
                }
            }
        }
    }
    for check in &mut checks {
        check.unknown = check.unknown.as_deref().map(storable);
        check.tool = storable(&check.tool);
        check.warnings = check.warnings.iter().map(|text| storable(text)).collect();
    }
    (checks, pending, skipped)
}

fn clean(mut update: PendingUpdate) -> PendingUpdate {
    let texts = [
        &mut update.name,
        &mut update.arch,
        &mut update.installed,
        &mut update.candidate,
    ];
    for text in texts {
        *text = storable(text);
    }
    let optional = [
        &mut update.source,
        &mut update.repository,
        &mut update.severity,
    ];
    for text in optional {
        *text = text.as_deref().map(storable);
    }
    update.advisories.truncate(ADVISORIES);
    for advisory in &mut update.advisories {
        *advisory = storable(advisory);
    }
    if let Some(blocked) = &mut update.blocked {
        blocked.detail = blocked.detail.as_deref().map(storable);
    }
    update
}

/// What became of an update that is pending no more: the packages of the host tell.
fn past(row: &Row, installed: &[Known]) -> Past {
    let mut same = installed
        .iter()
        .filter(|known| (&*known.manager, &*known.name, &*known.arch) == row.key())
        .peekable();
    let outcome = if same.peek().is_none() {
        "removed"
    } else if same.any(|known| {
        known.version == row.candidate
            || known.sort_key.is_some() && known.sort_key >= row.candidate_key
    }) {
        "installed"
    } else {
        "withdrawn"
    };
    Past {
        manager: row.manager.clone(),
        name: row.name.clone(),
        arch: row.arch.clone(),
        outcome,
    }
}
