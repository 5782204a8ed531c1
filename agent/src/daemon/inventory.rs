//! Packages and updates between reading and Ack: what is known, and which of it the collector still needs.
//!
//! The heartbeat says the hash; where the collector has another it asks for the whole, and from then on it is sent what
//! changes. One part is under way at a time. One that is not acknowledged, because the collector had no room for
//! it, is sent again after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use infratrack_shared::codec::{self, Limits};
use infratrack_shared::digest::Digest;
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::StatePart;
use infratrack_shared::wire::packages::{
    Database, Group, Manager, PACKAGES, Package, PackageKey, PackagesPart, UPDATES, UpdatesPart,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::collect::{Found, InventorySource};
use crate::reporter::{STATE_BYTES, STATE_ITEMS};
use crate::spool::{Spool, SpoolError};
use crate::watch::{Area, Changes, Watch};

/// A part leaves room for facts in its batch.
const PART_BYTES: usize = STATE_BYTES / 4 * 3;
const PART_ITEMS: usize = STATE_ITEMS / 4 * 3;
/// What is not acknowledged by then is sent again.
const AGAIN: Duration = Duration::from_secs(30);
/// A package manager that goes on writing is read when it pauses, or after the longer of these.
const GATHER: Duration = Duration::from_secs(1);
const GATHER_MOST: Duration = Duration::from_secs(3);
/// Where the kernel tells nothing of a change, it is found by looking.
const LOOK: Duration = Duration::from_secs(600);

/// What is installed, and what there is to install.
pub(super) struct Inventory {
    source: InventorySource,
    databases: Changes,
    update_inputs: Changes,
    /// Held for its task.
    _watch: Watch,
    next: Instant,
    /// What changed is read by then, however much more changes.
    latest: Option<Instant>,
    packages: Option<Packages>,
    updates: Option<Digest>,
    sending_packages: Option<Sending<PackagesPart>>,
    sending_updates: Option<Sending<UpdatesPart>>,
}

/// What was read last: enough to tell what changed.
struct Packages {
    hash: Digest,
    databases: Vec<Database>,
    digests: BTreeMap<(Manager, PackageKey), Digest>,
}

/// A version under way.
struct Sending<P> {
    version: u64,
    base: Option<Digest>,
    hash: Digest,
    parts: Vec<P>,
    /// The first that is not acknowledged.
    next: usize,
    /// When that was sent.
    sent_at: Option<Instant>,
}

impl Inventory {
    pub(super) fn new(source: InventorySource, watch: Watch) -> Self {
        Self {
            source,
            databases: watch.of(Area::Databases),
            update_inputs: watch.of(Area::UpdateInputs),
            _watch: watch,
            next: Instant::now(),
            latest: None,
            packages: None,
            updates: None,
            sending_packages: None,
            sending_updates: None,
        }
    }

    /// Waits for a change of what is read. It may be given up and asked again.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = self.databases.next() => {}
            () = self.update_inputs.next() => {}
        }
        let now = Instant::now();
        let latest = *self.latest.get_or_insert(now + GATHER_MOST);
        self.next = latest.min(now + GATHER);
    }

    /// When to read again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Over both: what the heartbeat says. None until both were read.
    pub(super) fn hash(&self) -> Option<Digest> {
        let packages = self.packages.as_ref()?.hash;
        let updates = self.updates?;
        Some(Digest::of_set([(PACKAGES, packages), (UPDATES, updates)]))
    }

    /// Reads both; what changed since the last time is to be sent. Answers whether anything is.
    pub(super) async fn read(&mut self, spool: &Spool) -> Result<bool, SpoolError> {
        self.next = Instant::now() + LOOK;
        self.latest = None;
        match self.source.packages().await {
            Ok(found) => self.packages_read(found, spool).await?,
            Err(reason) => tracing::warn!(reason, "packages can't be read"),
        }
        match self.source.updates().await {
            Ok(part) => self.updates_read(part, spool).await?,
            Err(reason) => tracing::warn!(reason, "updates can't be read"),
        }
        Ok(self.has_next())
    }

    async fn packages_read(&mut self, found: Vec<Found>, spool: &Spool) -> Result<(), SpoolError> {
        let read = Read::of(found, &self.source);
        let Some(before) = &self.packages else {
            // What the collector has is told by its answer to the hash.
            self.packages = Some(read.packages(None));
            return Ok(());
        };
        let now = read.packages(Some(before));
        if now.hash == before.hash {
            return Ok(());
        }
        let unknown = |packages: &Packages| -> Vec<_> {
            let databases = packages.databases.iter();
            let unknown = databases.filter(|database| database.unknown.is_some());
            unknown.map(|database| database.manager).collect()
        };
        // While a version is under way the collector has this one or that; after a database could not be read, what
        // went meanwhile is not known.
        let delta = if self.sending_packages.is_none() && unknown(before) == unknown(&now) {
            Some((before.hash, read.delta(before, &now)))
        } else {
            None
        };
        let (base, parts) = match delta {
            Some((base, parts)) => (Some(base), parts),
            None => (None, read.whole(&now)),
        };
        self.sending_packages = Some(Sending::new(now.hash, base, parts, spool).await?);
        self.packages = Some(now);
        Ok(())
    }

    async fn updates_read(&mut self, part: UpdatesPart, spool: &Spool) -> Result<(), SpoolError> {
        let hash = Digest::of(&codec::encode(&part).unwrap_or_default());
        if self.updates.is_some_and(|before| before != hash) {
            self.sending_updates =
                Some(Sending::new(hash, None, updates_parts(part), spool).await?);
        }
        self.updates = Some(hash);
        Ok(())
    }

    /// Takes over what the collector wants whole.
    async fn want(&mut self, key: &str, spool: &Spool) -> Result<(), SpoolError> {
        if key == PACKAGES {
            // A whole under way explains the difference.
            let is_whole = |sending: &Sending<_>| sending.base.is_none();
            if self.sending_packages.as_ref().is_some_and(is_whole) {
                return Ok(());
            }
            if let Ok(found) = self.source.packages().await {
                let read = Read::of(found, &self.source);
                let now = read.packages(self.packages.as_ref());
                let parts = read.whole(&now);
                self.sending_packages = Some(Sending::new(now.hash, None, parts, spool).await?);
                self.packages = Some(now);
            }
        } else if key == UPDATES
            && self.sending_updates.is_none()
            && let Ok(part) = self.source.updates().await
        {
            let hash = Digest::of(&codec::encode(&part).unwrap_or_default());
            let parts = updates_parts(part);
            self.sending_updates = Some(Sending::new(hash, None, parts, spool).await?);
            self.updates = Some(hash);
        }
        Ok(())
    }

    /// The part to be sent next: packages before updates, so that what became of an update can be told.
    pub(super) fn offered(&self) -> Option<StatePart> {
        let now = Instant::now();
        let packages = self.sending_packages.as_ref();
        match packages {
            Some(sending) => sending.offered(PACKAGES, now),
            None => self.sending_updates.as_ref()?.offered(UPDATES, now),
        }
    }

    /// What was offered last has left.
    pub(super) fn sent(&mut self) {
        let now = Some(Instant::now());
        if let Some(sending) = &mut self.sending_packages {
            sending.sent_at = now;
        } else if let Some(sending) = &mut self.sending_updates {
            sending.sent_at = now;
        }
    }

    /// Whether a part waits to be sent.
    pub(super) fn has_next(&self) -> bool {
        self.offered().is_some()
    }

    /// The collector refused these versions even alone: they are given up.
    pub(super) fn refused(&mut self, key: &str, version: u64) {
        let is_given_up = match key {
            PACKAGES => give_up(&mut self.sending_packages, version),
            UPDATES => give_up(&mut self.sending_updates, version),
            _ => false,
        };
        if is_given_up {
            tracing::error!(key, "the collector refuses this state");
        }
    }

    /// Takes over what the collector has, refuses, or wants.
    pub(super) async fn acknowledged(
        &mut self,
        ack: &Ack,
        spool: &Spool,
    ) -> Result<(), SpoolError> {
        for state in &ack.state {
            match state.key.as_str() {
                PACKAGES => take(&mut self.sending_packages, state.version, state.part),
                UPDATES => take(&mut self.sending_updates, state.version, state.part),
                _ => {}
            }
        }
        for rejected in &ack.rejected {
            if let (Some(key), Some(version)) = (&rejected.key, rejected.version) {
                self.refused(key, version);
            }
        }
        for want in &ack.want_whole {
            self.want(&want.key, spool).await?;
        }
        Ok(())
    }
}

/// Sends no more of a version, where it is under way.
fn give_up<P>(sending: &mut Option<Sending<P>>, version: u64) -> bool {
    let given_up = sending.take_if(|sending| sending.version == version);
    given_up.is_some()
}

/// Notes a part as stored; the last one ends the version.
fn take<P>(sending: &mut Option<Sending<P>>, version: u64, part: u32) {
    let Some(under_way) = sending else { return };
    if under_way.version == version && usize::try_from(part) == Ok(under_way.next) {
        under_way.next += 1;
        under_way.sent_at = None;
        if under_way.next == under_way.parts.len() {
            *sending = None;
        }
    }
}

impl<P: Serialize> Sending<P> {
    /// Versions count with the heartbeats: durable, and never the same twice in a stream.
    async fn new(
        hash: Digest,
        base: Option<Digest>,
        parts: Vec<P>,
        spool: &Spool,
    ) -> Result<Self, SpoolError> {
        Ok(Self {
            version: spool.heartbeat_number().await?,
            base,
            hash,
            parts,
            next: 0,
            sent_at: None,
        })
    }

    fn offered(&self, key: &str, now: Instant) -> Option<StatePart> {
        let waits = |sent_at: Instant| now < sent_at + AGAIN;
        if self.sent_at.is_some_and(waits) {
            return None;
        }
        let part = self.parts.get(self.next)?;
        Some(StatePart {
            key: key.to_owned(),
            version: self.version,
            base_hash: self.base,
            new_hash: self.hash,
            part: u32::try_from(self.next).ok()?,
            parts: u32::try_from(self.parts.len()).ok()?,
            body: codec::to_value(part).ok()?,
        })
    }
}

/// What one reading of the databases says.
struct Read {
    databases: Vec<Database>,
    packages: BTreeMap<(Manager, PackageKey), Package>,
}

impl Read {
    fn of(found: Vec<Found>, source: &InventorySource) -> Self {
        let mut read = Self {
            databases: Vec::new(),
            packages: BTreeMap::new(),
        };
        for found in found {
            read.databases.push(source.database(&found));
            let Found::Known(inventory) = found else {
                continue;
            };
            let manager = inventory.manager;
            for package in inventory.packages {
                let key = PackageKey {
                    name: package.name.clone(),
                    version: package.version.clone(),
                    arch: package.arch.clone(),
                };
                read.packages.insert((manager, key), package);
            }
        }
        read.databases.sort_unstable();
        read
    }

    /// What is known with it: of a database that can't be read, what was known before.
    fn packages(&self, before: Option<&Packages>) -> Packages {
        let digest = |package: &Package| Digest::of(&codec::encode(package).unwrap_or_default());
        let mut digests: BTreeMap<_, _> = self
            .packages
            .iter()
            .map(|(key, package)| (key.clone(), digest(package)))
            .collect();
        let is_unknown = |manager: Manager| {
            let mut databases = self.databases.iter();
            databases.any(|database| database.manager == manager && database.unknown.is_some())
        };
        if let Some(before) = before {
            let kept = before.digests.iter();
            let kept = kept.filter(|((manager, _), _)| is_unknown(*manager));
            digests.extend(kept.map(|(key, digest)| (key.clone(), *digest)));
        }
        Packages {
            hash: hash(&self.databases, &digests),
            databases: self.databases.clone(),
            digests,
        }
    }

    fn whole(&self, now: &Packages) -> Vec<PackagesPart> {
        let all = self.packages.iter();
        let put = all.map(|((manager, _), package)| (*manager, package.clone()));
        parts(now, put.collect(), Vec::new())
    }

    fn delta(&self, before: &Packages, now: &Packages) -> Vec<PackagesPart> {
        let is_other = |key| before.digests.get(key) != now.digests.get(key);
        let put = self.packages.iter().filter(|(key, _)| is_other(key));
        let put = put.map(|((manager, _), package)| (*manager, package.clone()));
        let gone = before.digests.keys();
        let gone = gone.filter(|key| !now.digests.contains_key(*key));
        parts(now, put.collect(), gone.cloned().collect())
    }
}

/// Over the databases and every package's digest by its key.
fn hash(databases: &[Database], digests: &BTreeMap<(Manager, PackageKey), Digest>) -> Digest {
    let databases = codec::encode(&databases).unwrap_or_default();
    let mut names = Vec::with_capacity(digests.len());
    for ((manager, key), digest) in digests {
        let PackageKey {
            name,
            version,
            arch,
        } = key;
        names.push((format!("{manager:?}\0{name}\0{version}\0{arch}"), *digest));
    }
    let packages = names.iter().map(|(name, digest)| (name.as_str(), *digest));
    let all = std::iter::once(("", Digest::of(&databases))).chain(packages);
    Digest::of_set(all)
}

fn parts(
    now: &Packages,
    put: Vec<(Manager, Package)>,
    gone: Vec<(Manager, PackageKey)>,
) -> Vec<PackagesPart> {
    let first = PackagesPart {
        databases: now.databases.clone(),
        ..PackagesPart::default()
    };
    let mut parts = Parts::starting_with(first);
    for (manager, package) in put {
        let part = parts.with_room_for(&package);
        add(&mut part.put, manager, package);
    }
    for (manager, key) in gone {
        let part = parts.with_room_for(&key);
        add(&mut part.gone, manager, key);
    }
    parts.all
}

fn updates_parts(whole: UpdatesPart) -> Vec<UpdatesPart> {
    let first = UpdatesPart {
        checks: whole.checks,
        ..UpdatesPart::default()
    };
    let mut parts = Parts::starting_with(first);
    for group in whole.pending {
        for update in group.packages {
            let part = parts.with_room_for(&update);
            add(&mut part.pending, group.manager, update);
        }
    }
    parts.all
}

fn add<T>(groups: &mut Vec<Group<T>>, manager: Manager, package: T) {
    match groups.last_mut() {
        Some(group) if group.manager == manager => group.packages.push(package),
        _ => groups.push(Group {
            manager,
            packages: vec![package],
        }),
    }
}

/// Parts that are filled one after another.
struct Parts<P> {
    all: Vec<P>,
    bytes: usize,
    items: usize,
}

impl<P: Default + Serialize> Parts<P> {
    fn starting_with(first: P) -> Self {
        let (bytes, items) = size(&first);
        Self {
            all: vec![first],
            bytes,
            items,
        }
    }

    fn with_room_for(&mut self, entry: &impl Serialize) -> &mut P {
        /// What a group's name and array take.
        const GROUP: usize = 32;
        let (bytes, items) = size(entry);
        self.bytes += bytes + GROUP;
        self.items += items;
        if self.bytes > PART_BYTES || self.items > PART_ITEMS || self.all.is_empty() {
            self.all.push(P::default());
            (self.bytes, self.items) = (bytes + GROUP, items);
        }
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}

/// Bytes and items of a document.
fn size(document: &impl Serialize) -> (usize, usize) {
    let encoded = codec::encode(document).unwrap_or_default();
    let items = codec::check(&encoded, &Limits::default()).unwrap_or(PART_ITEMS);
    (encoded.len(), items)
}

#[cfg(test)]
mod tests;
