//! Who watches which hosts on open pages, and what is sent to them. One reader a collector looks the hosts up for all
//! (`web/live.rs`); what it sends is made once and shared.
//!
//! Everything is bounded: clients, clients of one caller, hosts of a client, and what waits for a client that is slow:
//! that one is sent away, and is told to come back for the whole.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::login::session::Client as Address;
use crate::roles::Role;

/// Hosts that one client watches.
pub const MOST_HOSTS: usize = 100;
/// A client is asked this often whether it may still watch.
const CHECK: Duration = Duration::minutes(1);
/// A check that fails for so long, for the database is away, ends what it checks.
const UNCHECKED: Duration = Duration::minutes(3);
/// Nobody watches for longer without coming anew.
const LIFETIME: Duration = Duration::minutes(10);

/// What may be under way.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub clients: usize,
    /// Of one user or token.
    pub of_one: usize,
    /// Messages that wait for one client.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 500,
            of_one: 250,
            // Every host of a client, and what is sent to all meanwhile.
            queue: MOST_HOSTS + 28,
        }
    }
}

/// Why nobody more may watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Why a client's stream ends; it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is to come back: after a while, or to another collector.
    Again,
    /// It was too slow; what it shows may be old.
    Resync,
    /// Whoever it was may not watch any more.
    Login,
}

impl End {
    /// The last event of the stream.
    fn event(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Again => b"event: end\ndata: again\n\n",
            Self::Resync => b"event: end\ndata: resync\n\n",
            Self::Login => b"event: end\ndata: login\n\n",
        })
    }
}

/// What a client came with, to ask again whether it still holds.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Those that say who it is.
    pub headers: HeaderMap,
    pub address: Address,
    pub role: Option<Role>,
    /// A proxy's word is for one request and can't be asked for again.
    pub is_asked_again: bool,
}

/// A client that wants to watch.
#[derive(Debug)]
pub struct Watcher {
    /// Whose it is.
    pub who: String,
    pub hosts: Vec<Uuid>,
    /// How its page shows hosts; see `web/hosts/columns.rs`.
    pub view: u32,
    pub credential: Credential,
}

#[derive(Debug)]
struct Client {
    watcher: Watcher,
    queue: mpsc::Sender<Bytes>,
    end: Arc<OnceLock<End>>,
    until: OffsetDateTime,
    checked_at: OffsetDateTime,
    /// It has not got its hosts yet.
    is_fresh: bool,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<u64, Client>,
    next_id: u64,
    is_read: bool,
}

/// All clients of a collector.
#[derive(Debug, Default)]
pub struct Live {
    limits: Limits,
    state: Mutex<State>,
    arrived: Notify,
}

/// What the reader is to look up.
#[derive(Debug, Default)]
pub struct Wanted {
    pub hosts: Vec<Uuid>,
    /// Those of clients that have not got theirs yet.
    pub fresh_hosts: Vec<Uuid>,
    /// Whether there are such clients.
    pub has_fresh: bool,
    /// Each host in each way in which it is shown.
    pub rows: HashSet<(Uuid, u32)>,
    fresh: HashSet<u64>,
}

/// A client's stream; what it was told is in it when it ends, and it is forgotten when this is dropped.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    live: Arc<Live>,
    queue: mpsc::Receiver<Bytes>,
    end: Arc<OnceLock<End>>,
    is_over: bool,
}

impl Subscription {
    /// The next message; `None` after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(message) = self.queue.recv().await {
            return Some(message);
        }
        let end = self.end.get().filter(|_| !self.is_over)?;
        self.is_over = true;
        Some(end.event())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.live.lock().clients.remove(&self.id);
    }
}

impl Live {
    /// With other limits than usual.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Begins a client's stream.
    pub fn watch(
        self: &Arc<Self>,
        mut watcher: Watcher,
        now: OffsetDateTime,
    ) -> Result<Subscription, Full> {
        watcher.hosts.truncate(MOST_HOSTS);
        let mut state = self.lock();
        let of_one = state.clients.values();
        let of_one = of_one.filter(|client| client.watcher.who == watcher.who);
        if state.clients.len() >= self.limits.clients || of_one.count() >= self.limits.of_one {
            return Err(Full);
        }
        let (queue, receiver) = mpsc::channel(self.limits.queue);
        let end = Arc::new(OnceLock::new());
        let id = state.next_id;
        state.next_id += 1;
        // Not all at once, where all came at once.
        let lifetime = LIFETIME.as_seconds_f64() * rand::random_range(0.8..1.0);
        let client = Client {
            watcher,
            queue,
            end: Arc::clone(&end),
            until: now + Duration::seconds_f64(lifetime),
            checked_at: now,
            is_fresh: true,
        };
        state.clients.insert(id, client);
        drop(state);
        self.arrived.notify_one();
        Ok(Subscription {
            id,
            live: Arc::clone(self),
            queue: receiver,
            end,
            is_over: false,
        })
    }

    /// Whether the caller is to be the reader: somebody watches, and nobody reads.
    pub fn begin_reading(&self) -> bool {
        let mut state = self.lock();
        let begins = !state.is_read && !state.clients.is_empty();
        state.is_read |= begins;
        begins
    }

    /// Whether the reader has nothing more to do: from here on another may begin.
    pub fn end_reading(&self) -> bool {
        let mut state = self.lock();
        let ends = state.clients.is_empty();
        state.is_read &= !ends;
        ends
    }

    /// Until a client came.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        self.lock().clients.len()
    }

    /// What is watched.
    pub fn wanted(&self) -> Wanted {
        let state = self.lock();
        let (mut wanted, mut hosts) = (Wanted::default(), HashSet::<Uuid>::new());
        for (id, client) in &state.clients {
            let view = client.watcher.view;
            let watched = client.watcher.hosts.iter();
            wanted.rows.extend(watched.map(|host| (*host, view)));
            if client.is_fresh {
                wanted.has_fresh = true;
                wanted.fresh.insert(*id);
                wanted.fresh_hosts.extend(&client.watcher.hosts);
            }
            hosts.extend(client.watcher.hosts.iter().copied());
        }
        wanted.hosts.extend(hosts);
        wanted
    }

    /// Sends to each client those of its hosts that `changed`; to those that have got nothing yet, `hello` and all.
    pub fn send_rows(
        &self,
        wanted: &Wanted,
        changed: &HashSet<Uuid>,
        rows: &HashMap<(Uuid, u32), Bytes>,
        hello: Option<&Bytes>,
    ) {
        if changed.is_empty() && wanted.fresh.is_empty() {
            return;
        }
        let mut state = self.lock();
        let mut slow = Vec::new();
        for (id, client) in &mut state.clients {
            let is_fresh = wanted.fresh.contains(id);
            client.is_fresh &= !is_fresh;
            if let Some(hello) = hello.filter(|_| is_fresh) {
                // The queue is empty, or too full for what follows too.
                drop(client.queue.try_send(hello.clone()));
            }
            let sent = client.watcher.hosts.iter().all(|host| {
                let row = rows.get(&(*host, client.watcher.view));
                let row = row.filter(|_| is_fresh || changed.contains(host));
                row.is_none_or(|row| client.queue.try_send(row.clone()).is_ok())
            });
            if !sent {
                slow.push(*id);
            }
        }
        state.end(&slow, End::Resync);
    }

    /// Sends the same to all.
    pub fn send_all(&self, message: &Bytes) {
        let mut state = self.lock();
        let slow: Vec<_> = state
            .clients
            .iter()
            .filter(|(_, client)| client.queue.try_send(message.clone()).is_err())
            .map(|(id, _)| *id)
            .collect();
        state.end(&slow, End::Resync);
    }

    /// Ends what lasted its time; answers who is to be asked again whether they may watch.
    pub fn due(&self, now: OffsetDateTime) -> Vec<(u64, Credential)> {
        let mut state = self.lock();
        let clients = state.clients.iter();
        let over: Vec<_> = clients
            .filter(|(_, client)| client.until <= now)
            .map(|(id, _)| *id)
            .collect();
        state.end(&over, End::Again);
        let clients = state.clients.iter();
        clients
            .filter(|(_, client)| client.watcher.credential.is_asked_again)
            .filter(|(_, client)| client.checked_at + CHECK <= now)
            .map(|(id, client)| (*id, client.watcher.credential.clone()))
            .collect()
    }

    /// A client may still watch.
    pub fn is_checked(&self, id: u64, now: OffsetDateTime) {
        if let Some(client) = self.lock().clients.get_mut(&id) {
            client.checked_at = now;
        }
    }

    /// It could not be found out whether a client may still watch: for a while it may.
    pub fn is_unchecked(&self, id: u64, now: OffsetDateTime) {
        let mut state = self.lock();
        let client = state.clients.get(&id);
        if client.is_some_and(|client| client.checked_at + UNCHECKED <= now) {
            state.end(&[id], End::Again);
        }
    }

    /// Ends a client's stream.
    pub fn end(&self, id: u64, end: End) {
        self.lock().end(&[id], end);
    }

    /// Ends all streams.
    pub fn end_all(&self) {
        let mut state = self.lock();
        let all: Vec<_> = state.clients.keys().copied().collect();
        state.end(&all, End::Again);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What waits for them is still sent.
    fn end(&mut self, ids: &[u64], end: End) {
        for id in ids {
            if let Some(client) = self.clients.remove(id) {
                client.end.get_or_init(|| end);
            }
        }
    }
}

#[cfg(test)]
mod tests;
