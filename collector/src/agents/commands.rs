//! Commands on their way down: which answers are held here, and what is to be sent on them.
//!
//! A command that was written to a socket is not delivered: it is sent again with every answer until
//! the agent confirms its id.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use infratrack_shared::ids::{CommandId, HostId};
use infratrack_shared::wire::answer::{Action, Command, Frame, Goaway};
use infratrack_shared::wire::frame;
use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::store;

/// Frames that may wait for one held answer; more are sent with the next one.
const HELD_FRAMES: usize = 16;

/// The answers held open by this collector, and the hosts that have commands waiting anywhere.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    held: HashMap<HostId, (u64, mpsc::Sender<Bytes>)>,
    waiting: HashSet<HostId>,
}

/// One held answer; leaves the register when it is dropped.
#[derive(Debug)]
pub struct Held {
    answers: Arc<Answers>,
    host: HostId,
    number: u64,
    frames: mpsc::Receiver<Bytes>,
}

impl Held {
    /// What is to be sent.
    pub fn frames(&mut self) -> &mut mpsc::Receiver<Bytes> {
        &mut self.frames
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.answers.lock();
        if inner
            .held
            .get(&self.host)
            .is_some_and(|(number, _)| *number == self.number)
        {
            inner.held.remove(&self.host);
        }
    }
}

impl Answers {
    /// Registers a held answer; a host's older one ends.
    pub fn hold(self: &Arc<Self>, host: HostId) -> Held {
        let (sender, frames) = mpsc::channel(HELD_FRAMES);
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        inner.held.insert(host, (number, sender));
        Held {
            answers: Arc::clone(self),
            host,
            number,
            frames,
        }
    }

    /// Ends a host's held answer: its certificate was revoked.
    pub fn end(&self, host: HostId) {
        self.lock().held.remove(&host);
    }

    /// How many answers are held.
    pub fn held_count(&self) -> usize {
        self.lock().held.len()
    }

    /// Ends a part of the held answers with a [`Goaway`]; answers how many are left.
    pub fn go_away(&self, count: usize, within_ms: u32) -> usize {
        let goaway = frame::encode(&Frame::from(Goaway { within_ms })).unwrap_or_default();
        let mut inner = self.lock();
        let hosts: Vec<HostId> = inner.held.keys().take(count).copied().collect();
        for host in hosts {
            if let Some((_, sender)) = inner.held.remove(&host) {
                // A full queue ends without the frame: the agent sees the end alone.
                drop(sender.try_send(Bytes::from(goaway.clone())));
            }
        }
        inner.held.len()
    }

    /// Whether any collector has a command for `host`.
    pub fn has_waiting(&self, host: HostId) -> bool {
        self.lock().waiting.contains(&host)
    }

    /// Replaces the set of hosts with commands; answers those whose answer is held here.
    pub fn set_waiting(&self, hosts: HashSet<HostId>) -> Vec<HostId> {
        let mut inner = self.lock();
        let fresh = hosts.iter().filter(|host| !inner.waiting.contains(host));
        let here = fresh
            .filter(|host| inner.held.contains_key(host))
            .copied()
            .collect();
        inner.waiting = hosts;
        here
    }

    /// Notes that `host` has a command.
    pub fn add_waiting(&self, host: HostId) {
        self.lock().waiting.insert(host);
    }

    /// Sends a host's open commands on its held answer, if that is here.
    pub async fn deliver(&self, pool: &PgPool, clock: &Clock, host: HostId) -> sqlx::Result<()> {
        let Some(sender) = self
            .lock()
            .held
            .get(&host)
            .map(|(_, sender)| sender.clone())
        else {
            return Ok(());
        };
        for frame in open_frames(pool, clock, host).await? {
            // Full or gone: the commands stay open and go with the next answer.
            drop(sender.try_send(frame));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host's open commands as frames, oldest first.
pub async fn open_frames(pool: &PgPool, clock: &Clock, host: HostId) -> sqlx::Result<Vec<Bytes>> {
    let mut connection = pool.acquire().await?;
    let open = store::commands::take_open(&mut connection, host, clock.now()).await?;
    let frames = open.into_iter().filter_map(|row| {
        let command = Command {
            id: CommandId(row.command_id),
            expires_at: store::unix_millis(row.expires_at),
            action: action(&row.action),
            target: row.target,
        };
        frame::encode(&Frame::from(command)).ok().map(Bytes::from)
    });
    Ok(frames.collect())
}

/// The name of an action in the tables and the API.
pub fn action_name(action: Action) -> &'static str {
    match action {
        Action::RefreshFacts => "refresh_facts",
        Action::Renew => "renew",
        Action::RefreshVolumes => "refresh_volumes",
        Action::RunBackup => "run_backup",
        Action::RunDrill => "run_drill",
        Action::Verify => "verify",
        Action::Unsupported => "unsupported",
    }
}

/// The action of that name.
pub fn action(name: &str) -> Action {
    let all = [
        Action::RefreshFacts,
        Action::Renew,
        Action::RefreshVolumes,
        Action::RunBackup,
        Action::RunDrill,
        Action::Verify,
    ];
    all.into_iter()
        .find(|action| action_name(*action) == name)
        .unwrap_or(Action::Unsupported)
}
