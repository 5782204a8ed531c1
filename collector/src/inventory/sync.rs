//! One sync: a document of a source becomes hosts and ledger rows, in one transaction; a dry run is the same, undone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use infratrack_shared::ids::HostId;
use serde_json::json;
use sqlx::PgConnection;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use super::change::{changed, difference};
use super::documents::{self, Document, Entry, Kind, Refused};
use super::linking::{Link, link};
use super::names;
use super::report::{SyncReport, SyncedChange, SyncedHost};
use crate::app::App;
use crate::audit::{self, Actor, Change};
use crate::store::expected_hosts::{self, LedgerRow};
use crate::store::hosts::{edit, merge};
use crate::store::inventories::{self, InventoryRow, KnownHost};
use crate::store::unix_millis;

/// Rows of a statement.
const CHUNK: usize = 5000;

/// How a document is to be taken.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Options {
    pub source: String,
    pub kind: Kind,
    pub dry_run: bool,
    /// Also where nothing is left of a source that had hosts.
    pub allow_empty: bool,
    /// Also where more than half of a source's hosts are gone.
    pub allow_shrink: bool,
    /// Names in place of addresses are looked up: the document makes this collector ask the DNS.
    pub resolve_names: bool,
}

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum SyncError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the source {source_name} was of kind {was}; name another source, or send that kind")]
    OtherKind { source_name: String, was: String },
    #[error(
        "the document has no hosts, and the source had {before}: allow_empty says that it is meant"
    )]
    Empty { before: usize },
    #[error(
        "{gone} of the source's {before} hosts are gone, more than half: allow_shrink says that it is meant"
    )]
    Shrunk { gone: usize, before: usize },
    #[error("cannot read or write hosts in the database")]
    Database(#[from] sqlx::Error),
}

/// Takes a document over, or says what that would do.
pub async fn sync(
    app: &App,
    actor: &Actor,
    options: Options,
    bytes: impl AsRef<[u8]> + Send + 'static,
) -> Result<SyncReport, SyncError> {
    let kind = options.kind;
    // Tens of milliseconds for a large one.
    let read = tokio::task::spawn_blocking(move || documents::read(kind, bytes.as_ref()));
    let mut document = read
        .await
        .map_err(|_| Refused::whole("could not be read"))??;
    if options.resolve_names {
        names::resolve(&mut document).await;
    }
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    merge::allow_time(&mut transaction).await?;
    inventories::lock(&mut transaction).await?;
    let dry_run = options.dry_run;
    let mut run = Run {
        actor,
        now,
        report: SyncReport {
            source: options.source.clone(),
            kind: kind.name().to_owned(),
            dry_run,
            entries: document.entries.len(),
            ..SyncReport::default()
        },
        options,
        audit: Vec::new(),
    };
    run.carry_out(&mut transaction, document).await?;
    if dry_run {
        transaction.rollback().await?;
    } else {
        transaction.commit().await?;
    }
    Ok(run.report)
}

struct Run<'a> {
    actor: &'a Actor,
    now: OffsetDateTime,
    options: Options,
    report: SyncReport,
    audit: Vec<Change<'static>>,
}

impl Run<'_> {
    async fn carry_out(
        &mut self,
        connection: &mut PgConnection,
        document: Document,
    ) -> Result<(), SyncError> {
        let source = self.options.source.clone();
        let known = inventories::list(connection).await?;
        let before = known.iter().find(|row| row.source == source);
        if let Some(before) = before.filter(|row| row.kind != self.options.kind.name()) {
            let (source_name, was) = (source, before.kind.clone());
            return Err(SyncError::OtherKind { source_name, was });
        }
        let rows = expected_hosts::list_of_source(connection, &source).await?;
        let ledger: BTreeMap<String, LedgerRow> =
            rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        let keys: BTreeSet<&str> = document
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        let was_listed = ledger.values().filter(|row| row.gone_at.is_none());
        let (before, gone) = was_listed.fold((0, Vec::new()), |(count, mut gone), row| {
            if !keys.contains(row.key.as_str()) {
                gone.push(row.clone());
            }
            (count + 1, gone)
        });
        self.check(document.entries.is_empty(), gone.len(), before)?;
        self.report.warnings.items.clone_from(&document.warnings);
        self.report.warnings.total = document.warning_count;
        let row = InventoryRow {
            source: source.clone(),
            kind: self.options.kind.name().to_owned(),
            synced_at: self.now,
            synced_by: self.actor.name.clone(),
            entry_count: i32::try_from(document.entries.len()).unwrap_or(i32::MAX),
        };
        inventories::upsert(connection, &row).await?;
        let mut rows = self.listed(connection, &document.entries, &ledger).await?;
        // A host under another key is not gone.
        let listed: BTreeSet<Uuid> = rows.iter().filter_map(|row| row.host_id).collect();
        let is_listed = |row: &LedgerRow| row.host_id.is_some_and(|id| listed.contains(&id));
        let (renamed, gone): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_listed);
        let renamed: Vec<_> = renamed.into_iter().map(|row| row.key).collect();
        expected_hosts::delete(connection, &source, &renamed).await?;
        rows.extend(self.gone(connection, gone).await?);
        for chunk in rows.chunks(CHUNK) {
            expected_hosts::upsert(connection, &source, chunk).await?;
        }
        let report = &self.report;
        let summary = json!({
            "kind": report.kind, "entries": report.entries, "created": report.created.total,
            "updated": report.updated.total, "unchanged": report.unchanged, "missing": report.missing.total,
            "returned": report.returned.total, "conflicts": report.conflicts.total,
        });
        self.audit
            .push(Change::new("inventory.sync", "inventory", source).after(summary));
        let changes = std::mem::take(&mut self.audit);
        audit::record_all(connection, self.actor, changes, self.now).await?;
        Ok(())
    }

    /// A broken inventory is not to make a fleet missing.
    fn check(&self, is_empty: bool, gone: usize, before: usize) -> Result<(), SyncError> {
        if is_empty {
            return if before > 0 && !self.options.allow_empty {
                Err(SyncError::Empty { before })
            } else {
                Ok(())
            };
        }
        if gone * 2 > before && !self.options.allow_shrink {
            return Err(SyncError::Shrunk { gone, before });
        }
        Ok(())
    }

    /// Makes hosts of entries, and changes those they mean.
    async fn listed(
        &mut self,
        connection: &mut PgConnection,
        entries: &[Entry],
        ledger: &BTreeMap<String, LedgerRow>,
    ) -> Result<Vec<LedgerRow>, SyncError> {
        let known = inventories::list_known(connection, None).await?;
        let (links, conflicts) = link(entries, ledger, &known);
        drop(known);
        for conflict in conflicts {
            self.report.conflicts.push(conflict);
        }
        let linked = links.iter().filter_map(|link| match link {
            Link::Host { host_id, .. } => Some(*host_id),
            Link::None | Link::Conflict => None,
        });
        let hosts = self.locked(connection, linked.collect()).await?;
        let (mut created, mut updated, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (entry, link) in entries.iter().zip(&links) {
            let before = ledger.get(&entry.key);
            let host_id = match link {
                Link::Conflict => None,
                Link::None => self.create(entry, &mut created),
                Link::Host { host_id, .. } => {
                    if let Some(host) = hosts.get(host_id) {
                        self.update(host, entry, before, &mut updated);
                    }
                    Some(*host_id)
                }
            };
            rows.push(self.row(entry, link, host_id, before));
        }
        for chunk in created.chunks(CHUNK) {
            inventories::insert_hosts(connection, &chunk.iter().collect::<Vec<_>>(), self.now)
                .await?;
        }
        self.write(connection, &updated).await?;
        Ok(rows)
    }

    /// The hosts as they are, and stay until the end of the transaction.
    async fn locked(
        &self,
        connection: &mut PgConnection,
        mut ids: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, KnownHost>, SyncError> {
        ids.sort();
        let mut hosts = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            edit::lock(connection, chunk).await?;
            let known = inventories::list_known(connection, Some(chunk)).await?;
            hosts.extend(known.into_iter().map(|host| (host.host_id, host)));
        }
        Ok(hosts)
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        hosts: &[KnownHost],
    ) -> Result<(), SyncError> {
        for chunk in hosts.chunks(CHUNK) {
            inventories::update_hosts(connection, &chunk.iter().collect::<Vec<_>>(), self.now)
                .await?;
        }
        Ok(())
    }

    fn create(&mut self, entry: &Entry, created: &mut Vec<KnownHost>) -> Option<Uuid> {
        if entry.destroyed {
            self.report.unchanged += 1;
            return None;
        }
        let id = HostId::at(unix_millis(self.now));
        let empty = KnownHost {
            host_id: id.0,
            origin: "inventory".to_owned(),
            ..KnownHost::default()
        };
        let host = changed(&empty, entry, None, self.now);
        let mut shown = synced(entry, Some(id.0));
        // Another run would give it another.
        shown.host_id = shown.host_id.filter(|_| !self.options.dry_run);
        self.report.created.push(shown);
        let change = Change::new("host.create", "host", id).after(json!(host));
        self.audit.push(change);
        created.push(host);
        Some(id.0)
    }

    fn update(
        &mut self,
        host: &KnownHost,
        entry: &Entry,
        before: Option<&LedgerRow>,
        updated: &mut Vec<KnownHost>,
    ) {
        let shown = synced(entry, Some(host.host_id));
        if before.is_some_and(|row| row.gone_at.is_some()) {
            self.report.returned.push(shown.clone());
        }
        if host.is_retired {
            let words = format!(
                "{}: its host {} is retired, and stays so",
                entry.key, host.host_id
            );
            self.report.warnings.push(words);
        }
        let made = changed(host, entry, before.map(|row| &row.entry), self.now);
        if made == *host {
            self.report.unchanged += 1;
            return;
        }
        let (was, is) = difference(host, &made);
        let change = Change::new("host.update", "host", host.host_id);
        self.audit
            .push(change.before(was.clone()).after(is.clone()));
        self.report.updated.push(SyncedChange {
            host: shown,
            before: was,
            after: is,
        });
        updated.push(made);
    }

    fn row(
        &self,
        entry: &Entry,
        link: &Link,
        host_id: Option<Uuid>,
        before: Option<&LedgerRow>,
    ) -> LedgerRow {
        let (linked_by, duplicate_id) = match link {
            Link::Host {
                by, duplicate_id, ..
            } => {
                let by = by.name().map(str::to_owned);
                let was = before.and_then(|row| row.duplicate_id);
                (
                    by.or_else(|| before?.linked_by.clone()),
                    duplicate_id.or(was),
                )
            }
            Link::None | Link::Conflict => (None, None),
        };
        let destroyed = before.and_then(|row| row.destroyed_at).or(Some(self.now));
        LedgerRow {
            key: entry.key.clone(),
            entry: entry.clone(),
            host_id,
            linked_by,
            duplicate_id,
            first_seen_at: before.map_or(self.now, |row| row.first_seen_at),
            last_seen_at: self.now,
            gone_at: None,
            destroyed_at: destroyed.filter(|_| entry.destroyed),
        }
    }

    /// What left the source is missing, and stays. Out of a state of Terraform goes what was destroyed.
    async fn gone(
        &mut self,
        connection: &mut PgConnection,
        mut rows: Vec<LedgerRow>,
    ) -> Result<Vec<LedgerRow>, SyncError> {
        let ids: Vec<_> = rows.iter().filter_map(|row| row.host_id).collect();
        let elsewhere =
            expected_hosts::list_listed_elsewhere(connection, &self.options.source, &ids).await?;
        let elsewhere: BTreeSet<_> = elsewhere.into_iter().collect();
        let hosts = self.locked(connection, ids).await?;
        let (mut missing, mut seen) = (Vec::new(), BTreeSet::new());
        for row in &mut rows {
            row.gone_at = Some(self.now);
            if self.options.kind == Kind::Terraform {
                row.destroyed_at = row.destroyed_at.or(Some(self.now));
            }
            self.report.missing.push(synced(&row.entry, row.host_id));
            let host = row.host_id.and_then(|id| hosts.get(&id));
            let is_new = |host: &&KnownHost| {
                host.missing_since.is_none()
                    && !elsewhere.contains(&host.host_id)
                    && seen.insert(host.host_id)
            };
            if let Some(host) = host.filter(is_new) {
                let mut made = host.clone();
                made.missing_since = Some(self.now);
                let (was, is) = difference(host, &made);
                let change = Change::new("host.missing", "host", host.host_id);
                self.audit.push(change.before(was).after(is));
                missing.push(made);
            }
        }
        self.write(connection, &missing).await?;
        Ok(rows)
    }
}

fn synced(entry: &Entry, host_id: Option<Uuid>) -> SyncedHost {
    SyncedHost {
        key: entry.key.clone(),
        name: entry.name.clone(),
        host_id,
    }
}
