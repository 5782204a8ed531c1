//! The lane of large state: `packages` and `updates`, apart from the writers, so that a thousand rows of one host never
//! delay another's heartbeat.
//!
//! A batch's parts come here after the rest of it was committed, and are acknowledged by a frame of their own later in
//! the same answer. Where there is no room, no frame comes, and the agent sends them again with a later batch. A version
//! takes effect in one transaction when all its parts are there; one that is stored already costs one row.

mod dictionary;
mod packages;
mod updates;

use std::sync::Arc;
use std::time::Duration;

use infratrack_shared::codec::{self, DecodeError};
use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::wire::answer::{Ack, Rejected, StateAck, WantWhole};
use infratrack_shared::wire::batch::StatePart;
use infratrack_shared::wire::packages::{PACKAGES, UPDATES};
use rmpv::Value;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::Patches;
use crate::patches;
use crate::store::host_patches::Rule;
use crate::store::host_states::{self as states, Stored, Version};
use crate::store::{self, agent_streams, locks};
use dictionary::Dictionary;

/// Hosts are spread over so many workers, each with a connection of its own.
const WORKERS: usize = 2;
/// Batches that may wait for each.
const QUEUE: usize = 256;
/// Bytes of parts that may wait, decoded.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// For one part.
const LIMIT: Duration = Duration::from_secs(30);
/// Texts that are in an index; an entry with a longer one is left out, and counted.
const NAME_BYTES: usize = 255;

/// Whether a state goes through the lane.
pub fn is_for_lane(state: &StatePart) -> bool {
    state.key == PACKAGES || state.key == UPDATES
}

/// The parts of one batch, and whose they are.
#[derive(Debug)]
pub struct Parts {
    pub host: HostId,
    pub stream: StreamId,
    pub instance: InstanceId,
    pub parts: Vec<StatePart>,
}

struct Queued {
    parts: Parts,
    reply: oneshot::Sender<Ack>,
    _bytes: OwnedSemaphorePermit,
}

/// The way in.
#[derive(Debug)]
pub struct Lane {
    queues: Vec<mpsc::Sender<Queued>>,
    bytes: Arc<Semaphore>,
}

impl Lane {
    /// Starts the workers; they end when this is dropped and their queues are empty.
    pub fn start(pool: &PgPool, clock: &Clock, policy: &Patches) -> Self {
        let options = PgPool::connect_options(pool);
        let own = store::pool::options(u32::try_from(WORKERS).unwrap_or(1))
            .connect_lazy_with((*options).clone());
        let keeper = Keeper::new(clock, policy);
        let queues = (0..WORKERS).map(|_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let worker = Worker {
                pool: own.clone(),
                keeper: keeper.clone(),
            };
            tokio::spawn(worker.run(receiver));
            sender
        });
        Self {
            queues: queues.collect(),
            bytes: Arc::new(Semaphore::new(QUEUE_BYTES)),
        }
    }

    /// Queues parts of `size` decoded bytes; their Ack comes where they are stored or refused. None: there is no room.
    pub fn submit(&self, parts: Parts, size: usize) -> Option<oneshot::Receiver<Ack>> {
        let permits = u32::try_from(size).ok()?;
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(permits)
            .ok()?;
        let shard = usize::from(parts.host.0.as_bytes().last().copied().unwrap_or(0));
        let queue = self.queues.get(shard % self.queues.len())?;
        let (reply, answer) = oneshot::channel();
        let queued = Queued {
            parts,
            reply,
            _bytes: bytes,
        };
        queue.try_send(queued).ok()?;
        Some(answer)
    }
}

/// What became of a part.
enum Taken {
    /// It is stored, alone or with the others of its version; or a newer version is.
    Stored,
    /// It changes what is not stored.
    WantWhole,
    Invalid(String),
    /// Another collector is at this host's.
    Busy,
}

/// Stores versions.
#[derive(Clone)]
pub struct Keeper {
    clock: Clock,
    dictionary: Arc<Dictionary>,
    /// By when updates are due.
    rules: Arc<[Rule]>,
}

impl Keeper {
    /// One with a dictionary of its own.
    pub fn new(clock: &Clock, policy: &Patches) -> Self {
        Self {
            clock: clock.clone(),
            dictionary: Arc::default(),
            rules: patches::rules(policy).into(),
        }
    }

    /// Stores the first version of a host's state, whole and in one part, in the caller's transaction.
    pub async fn store_first(
        &self,
        connection: &mut PgConnection,
        host: HostId,
        key: &str,
        body: Value,
    ) -> anyhow::Result<()> {
        let incoming = Incoming {
            version: Version {
                host,
                key,
                stream_ordinal: 0,
                version: 1,
                hash: Digest::of(&codec::encode(&body)?),
            },
            base: None,
        };
        match self.apply(connection, &incoming, &[body]).await? {
            Taken::Stored => Ok(()),
            Taken::WantWhole | Taken::Invalid(_) | Taken::Busy => {
                anyhow::bail!("{key} of {host} is not stored")
            }
        }
    }

    async fn apply(
        &self,
        connection: &mut PgConnection,
        incoming: &Incoming<'_>,
        bodies: &[Value],
    ) -> anyhow::Result<Taken> {
        if incoming.version.key == PACKAGES {
            packages::apply(self, connection, incoming, bodies).await
        } else {
            updates::apply(self, connection, incoming, bodies).await
        }
    }
}

struct Worker {
    pool: PgPool,
    keeper: Keeper,
}

impl Worker {
    async fn run(self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(Queued { parts, reply, .. }) = queue.recv().await {
            let ack = self.take_all(&parts).await;
            // Whoever asked may be gone; what is stored stays stored.
            drop(reply.send(ack));
        }
    }

    /// Takes parts until one can't be taken now.
    async fn take_all(&self, parts: &Parts) -> Ack {
        let mut ack = Ack::default();
        for part in &parts.parts {
            let taken = timeout(LIMIT, self.take(parts, part)).await;
            let taken = taken.map_err(anyhow::Error::from).and_then(|taken| taken);
            let (key, version) = (part.key.clone(), part.version);
            match taken {
                Ok(Taken::Stored) => ack.state.push(StateAck {
                    key,
                    version,
                    part: part.part,
                }),
                Ok(Taken::WantWhole) => ack.want_whole.push(WantWhole { key }),
                Ok(Taken::Invalid(reason)) => {
                    tracing::warn!(host = %parts.host, key, version, reason, "state is refused");
                    ack.rejected.push(Rejected {
                        key: Some(key),
                        version: Some(version),
                        code: "body_invalid".to_owned(),
                        ..Rejected::default()
                    });
                }
                Ok(Taken::Busy) => break,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(host = %parts.host, key, version, error, "state is not stored");
                    break;
                }
            }
        }
        ack.server_time = self.keeper.clock.unix_millis();
        ack
    }

    async fn take(&self, from: &Parts, part: &StatePart) -> anyhow::Result<Taken> {
        let mut connection = self.pool.acquire().await?;
        let now = self.keeper.clock.now();
        let stream = (from.host, from.stream, from.instance);
        let found = agent_streams::find(&mut connection, from.host, from.stream).await?;
        let row = match found {
            Some(row) => Some(row),
            None => agent_streams::lock(&mut connection, &[stream], now)
                .await?
                .pop(),
        };
        let ordinal = row.map_or(0, |row| row.ordinal);
        let incoming = Incoming {
            version: Version {
                host: from.host,
                key: &part.key,
                stream_ordinal: ordinal,
                version: i64::try_from(part.version).unwrap_or(i64::MAX),
                hash: part.new_hash,
            },
            base: part.base_hash,
        };
        if let Some(taken) = self.settle(&mut connection, &incoming).await? {
            return Ok(taken);
        }
        let bodies = match self.bodies(&mut connection, &incoming, part).await? {
            Ok(bodies) => bodies,
            Err(taken) => return Ok(taken),
        };
        self.keeper.apply(&mut connection, &incoming, &bodies).await
    }

    /// What needs no body: it is stored already, or changes what is not.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        incoming: &Incoming<'_>,
    ) -> anyhow::Result<Option<Taken>> {
        let mut transaction = connection.begin().await?;
        let Version { host, key, .. } = incoming.version;
        let stored = states::lock(&mut transaction, host, key).await?;
        let now = self.keeper.clock.now();
        let taken = match incoming.against(stored.as_ref()) {
            Against::Older => Some(Taken::Stored),
            Against::OtherBase => Some(Taken::WantWhole),
            Against::Same => {
                states::update_version(&mut transaction, &incoming.version, now).await?;
                states::delete_parts(&mut transaction, &incoming.version, true).await?;
                update_hash(&mut transaction, host).await?;
                Some(Taken::Stored)
            }
            Against::Newer => None,
        };
        transaction.commit().await?;
        Ok(taken)
    }

    /// The bodies of a version's parts, where this is the last of them; the part is stored where it is not.
    async fn bodies(
        &self,
        connection: &mut PgConnection,
        incoming: &Incoming<'_>,
        part: &StatePart,
    ) -> anyhow::Result<Result<Vec<Value>, Taken>> {
        if part.parts == 1 {
            return Ok(Ok(vec![part.body.clone()]));
        }
        let body = codec::encode(&part.body)?;
        let mut transaction = connection.begin().await?;
        let number = i32::try_from(part.part)?;
        let version = &incoming.version;
        states::delete_parts(&mut transaction, version, false).await?;
        states::insert_part(
            &mut transaction,
            version,
            number,
            &body,
            self.keeper.clock.now(),
        )
        .await?;
        let count = states::count_parts(&mut transaction, version).await?;
        if count < i64::from(part.parts) {
            transaction.commit().await?;
            return Ok(Err(Taken::Stored));
        }
        let parts = states::list_parts(&mut transaction, version).await?;
        transaction.commit().await?;
        let decoded: Result<_, DecodeError> = parts
            .iter()
            .map(|body| codec::decode(body, &codec::Limits::default()))
            .collect();
        Ok(Ok(decoded?))
    }
}

/// A version on its way in.
struct Incoming<'a> {
    version: Version<'a>,
    base: Option<Digest>,
}

/// How a version stands to what is stored.
enum Against {
    /// A newer one is stored, or this one.
    Older,
    /// It changes another than what is stored.
    OtherBase,
    /// Its number is newer, what it says is the same.
    Same,
    Newer,
}

impl Incoming<'_> {
    fn against(&self, stored: Option<&Stored>) -> Against {
        let place = (self.version.stream_ordinal, self.version.version);
        let hash = stored.and_then(|stored| Digest::from_slice(&stored.hash));
        match stored {
            Some(stored) if place <= (stored.stream_ordinal, stored.version) => Against::Older,
            _ if self.base.is_some() && self.base != hash => Against::OtherBase,
            Some(_) if hash == Some(self.version.hash) => Against::Same,
            _ => Against::Newer,
        }
    }

    /// Begins to store it, unless another collector does or has; what is stored is locked until the end.
    async fn begin(
        &self,
        connection: &mut PgConnection,
    ) -> anyhow::Result<Result<Option<Stored>, Taken>> {
        let Version { host, key, .. } = self.version;
        if !locks::try_lock(connection, &format!("infratrack state {host} {key}")).await? {
            return Ok(Err(Taken::Busy));
        }
        let stored = states::lock(connection, host, key).await?;
        Ok(match self.against(stored.as_ref()) {
            Against::Older | Against::Same => Err(Taken::Stored),
            Against::OtherBase => Err(Taken::WantWhole),
            Against::Newer => Ok(stored),
        })
    }

    /// Notes it as stored.
    async fn end(
        &self,
        connection: &mut PgConnection,
        body: &serde_json::Value,
        skipped: usize,
        now: time::OffsetDateTime,
    ) -> anyhow::Result<()> {
        let skipped = i64::try_from(skipped)?;
        states::upsert(connection, &self.version, body, skipped, now).await?;
        states::delete_parts(connection, &self.version, true).await?;
        update_hash(connection, self.version.host).await?;
        Ok(())
    }
}

/// What the host's heartbeats are compared with.
async fn update_hash(connection: &mut PgConnection, host: HostId) -> sqlx::Result<()> {
    let hashes = states::list_hashes(connection, host).await?;
    let set = hashes.iter().map(|(key, hash)| (key.as_str(), *hash));
    states::update_inventory_hash(connection, host, Digest::of_set(set)).await?;
    Ok(())
}

/// Decodes every part's body.
fn decoded<T: serde::de::DeserializeOwned>(bodies: &[Value]) -> Result<Vec<T>, Taken> {
    let parts = bodies.iter().map(codec::decode_value);
    let parts: Result<_, _> = parts.collect();
    parts.map_err(|error| Taken::Invalid(error.to_string()))
}

/// Text that can be stored and found: an entry whose texts are longer, or empty, is left out.
fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len())
}
