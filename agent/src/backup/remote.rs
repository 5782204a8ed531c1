//! The collector as backups see it: connections of their own, and answers to the questions of a run. A [`Lane`] is what the pipeline
//! needs of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use infratrack_shared::backup::{
    ChunkId, MAX_PACK_BYTES, MAX_SNAPSHOT_BYTES, PackHash, Refs, joined,
};
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{BackupRunId, DrillId, HostId, SnapshotId, VolumeId};
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{
    Beat, Beaten, BeginRun, Begun, EndRun, Ended, Missing, MissingAsked, Order, PackStored, Places,
    PlacesAsked, Progress, SnapshotStored, Snapshots, SnapshotsAsked, Volumes, VolumesAsked,
    reason,
};
use infratrack_shared::wire::drill::{BeginDrill, BegunDrill, DrillBeat, EndDrill};
use infratrack_shared::wire::problem::code;
use infratrack_shared::wire::{PROTOCOL, path};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pace::Pace;
use crate::identity::Identity;
use crate::tls;
use crate::uplink::{Connection, Endpoint, UplinkError};

/// A collector hangs up an idle connection after 90 s.
const IDLE: Duration = Duration::from_secs(60);

/// Keeps something alive, each clone over a connection of its own.
pub trait Beats: Clone + Send + 'static {
    /// Says how far it is, and hears what is wanted of it.
    fn beat(
        &mut self,
        progress: Progress,
    ) -> impl Future<Output = Result<Order, UplinkError>> + Send;
}

/// What a run asks while it goes on.
pub trait Lane: Beats {
    /// What of these is held.
    fn missing(
        &mut self,
        ids: &[ChunkId],
    ) -> impl Future<Output = Result<Missing, UplinkError>> + Send;

    /// Stores a pack. It may have been there.
    fn put_pack(
        &mut self,
        hash: PackHash,
        pack: Bytes,
        pace: &Pace,
    ) -> impl Future<Output = Result<(), UplinkError>> + Send;
}

/// What a failed question means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be asked again; the reason, where that never helps.
    Again(&'static str, Option<Duration>),
    Never(&'static str),
}

impl Verdict {
    pub(super) fn on(error: &UplinkError) -> Self {
        match error {
            UplinkError::Refused {
                status,
                problem,
                retry_after,
            } => {
                // The daemon renews it meanwhile.
                let is_expired = problem.code == code::CERTIFICATE_EXPIRED;
                // A run that died keeps its volume until its lease is over.
                let is_busy = *status == StatusCode::CONFLICT && retry_after.is_some();
                let is_later = *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
                    || is_busy;
                if status.is_server_error() {
                    Self::Again(reason::STORE_AWAY, *retry_after)
                } else if is_later || is_expired {
                    Self::Again(reason::COLLECTOR_AWAY, *retry_after)
                } else {
                    Self::Never(reason::REFUSED)
                }
            }
            UplinkError::Connect { .. }
            | UplinkError::Slow { .. }
            | UplinkError::Tls { .. }
            | UplinkError::Broken(_)
            | UplinkError::Answer(_)
            | UplinkError::Unacknowledged => Self::Again(reason::COLLECTOR_AWAY, None),
            UplinkError::Encode(_) => Self::Never(reason::INTERNAL),
        }
    }
}

/// Who is asked, and as whom. What is known of both is read anew for each connection, since the daemon renews it.
#[derive(Debug)]
pub struct Collector {
    state_dir: PathBuf,
    /// In place of those that the enrollment named.
    endpoints: Vec<String>,
    endpoint: usize,
    connection: Option<(Connection, Instant)>,
}

impl Clone for Collector {
    /// Has no connection yet.
    fn clone(&self) -> Self {
        Self {
            state_dir: self.state_dir.clone(),
            endpoints: self.endpoints.clone(),
            endpoint: self.endpoint,
            connection: None,
        }
    }
}

impl Collector {
    /// With the identity below the agent's state directory.
    pub fn new(state_dir: PathBuf, endpoints: Vec<String>) -> Self {
        Self {
            state_dir,
            endpoints,
            endpoint: 0,
            connection: None,
        }
    }

    /// Who this host is to it.
    pub fn host(&self) -> anyhow::Result<HostId> {
        Ok(Identity::open(&self.state_dir)?.current()?.host)
    }

    /// Keeps no connection open until it is asked again.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// What is to be protected.
    pub async fn volumes(&mut self) -> Result<Volumes, UplinkError> {
        let asked = VolumesAsked { protocol: PROTOCOL };
        self.ask(path::BACKUP_VOLUMES, &asked).await
    }

    pub async fn begin(&mut self, run: &BeginRun) -> Result<Begun, UplinkError> {
        self.ask(path::BACKUP_RUNS, run).await
    }

    pub async fn end(&mut self, run: &EndRun) -> Result<(), UplinkError> {
        let Ended {} = self.ask(path::BACKUP_END, run).await?;
        Ok(())
    }

    pub async fn begin_drill(&mut self, drill: &BeginDrill) -> Result<BegunDrill, UplinkError> {
        self.ask(path::BACKUP_DRILLS, drill).await
    }

    pub async fn end_drill(&mut self, drill: &EndDrill) -> Result<(), UplinkError> {
        let Ended {} = self.ask(path::BACKUP_DRILL_END, drill).await?;
        Ok(())
    }

    /// What can be restored.
    pub async fn snapshots(
        &mut self,
        volume: VolumeId,
        before: Option<SnapshotId>,
    ) -> Result<Snapshots, UplinkError> {
        let asked = SnapshotsAsked { volume, before };
        self.ask(path::BACKUP_SNAPSHOTS, &asked).await
    }

    /// Where chunks are; at most [`limits::BACKUP_PLACES`].
    pub async fn places(
        &mut self,
        volume: VolumeId,
        ids: &[ChunkId],
    ) -> Result<Places, UplinkError> {
        let ids = joined(ids);
        let asked = PlacesAsked {
            volume,
            ids,
            has_neighbors: true,
        };
        self.ask(path::BACKUP_PLACES, &asked).await
    }

    /// Commits a snapshot; or says which chunks it lacks.
    pub async fn put_snapshot(
        &mut self,
        run: BackupRunId,
        id: SnapshotId,
        snapshot: Bytes,
        pace: &Pace,
    ) -> Result<Refs, UplinkError> {
        let path = format!("{}{id}?run={run}", path::SNAPSHOTS);
        let (status, stored): (_, SnapshotStored) = self.put(&path, snapshot, pace).await?;
        if status == StatusCode::CONFLICT && stored.missing.is_empty() {
            return Err(refused(status, "the snapshot was refused"));
        }
        Ok(stored.missing)
    }

    /// A snapshot's object.
    pub async fn snapshot(
        &mut self,
        volume: VolumeId,
        id: SnapshotId,
    ) -> Result<Bytes, UplinkError> {
        let path = format!("{}{volume}/{id}", path::SNAPSHOTS);
        self.get(&path, None, MAX_SNAPSHOT_BYTES).await
    }

    /// Bytes of a pack, from an offset.
    pub async fn pack_bytes(
        &mut self,
        volume: VolumeId,
        pack: PackHash,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, UplinkError> {
        let path = format!("{}{volume}/{pack}", path::PACKS);
        let last = offset.saturating_add(length).saturating_sub(1);
        let limit = usize::try_from(length)
            .unwrap_or(MAX_PACK_BYTES)
            .min(MAX_PACK_BYTES);
        let bytes = self.get(&path, Some((offset, last)), limit).await?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(UplinkError::Answer("the range is cut off".into()))
        }
    }

    async fn ask<T: Serialize, R: DeserializeOwned>(
        &mut self,
        path: &'static str,
        body: &T,
    ) -> Result<R, UplinkError> {
        let mut connection = self.connected().await?;
        let answered = connection.call_packed(path, body).await;
        self.used(connection, answered).map(|(_, answer)| answer)
    }

    async fn put<R: DeserializeOwned>(
        &mut self,
        path: &str,
        bytes: Bytes,
        pace: &Pace,
    ) -> Result<(StatusCode, R), UplinkError> {
        let mut connection = self.connected().await?;
        let length = bytes.len() as u64;
        let feed = |pieces: mpsc::Sender<Bytes>| pace.feed(bytes, pieces);
        let answered = connection.put(path, length, feed).await;
        let (status, body) = self.used(connection, answered)?;
        let answer = codec::decode(&body, &Limits::bytes(limits::FRAME_BYTES));
        Ok((
            status,
            answer.map_err(|error| UplinkError::Answer(error.into()))?,
        ))
    }

    async fn get(
        &mut self,
        path: &str,
        range: Option<(u64, u64)>,
        limit: usize,
    ) -> Result<Bytes, UplinkError> {
        let mut connection = self.connected().await?;
        let answered = connection.get(path, range, limit).await;
        self.used(connection, answered)
    }

    async fn connected(&mut self) -> Result<Connection, UplinkError> {
        let ready = self.connection.take();
        let ready = ready.filter(|(open, used)| open.is_open() && used.elapsed() < IDLE);
        if let Some((connection, _)) = ready {
            return Ok(connection);
        }
        let opened = Connection::open(&self.target()?).await;
        if opened.is_err() {
            self.endpoint = self.endpoint.wrapping_add(1);
        }
        opened
    }

    /// Keeps a connection on which all went well.
    fn used<T>(
        &mut self,
        connection: Connection,
        answered: Result<T, UplinkError>,
    ) -> Result<T, UplinkError> {
        match &answered {
            Ok(_) => self.connection = Some((connection, Instant::now())),
            Err(UplinkError::Refused { status, .. }) if !status.is_server_error() => {}
            Err(_) => self.endpoint = self.endpoint.wrapping_add(1),
        }
        answered
    }

    fn target(&self) -> Result<Endpoint, UplinkError> {
        let target = || -> anyhow::Result<Endpoint> {
            let identity = Identity::open(&self.state_dir)?;
            let collectors = identity.collectors()?;
            let endpoints = if self.endpoints.is_empty() {
                &collectors.endpoints
            } else {
                &self.endpoints
            };
            let count = endpoints.len().max(1);
            let address = endpoints.get(self.endpoint % count).cloned();
            Ok(Endpoint {
                address: address.unwrap_or_default(),
                name: tls::server_name(&collectors.trust_domain)?,
                tls: Arc::new(tls::mutual(&identity.roots()?, identity.current()?)?),
            })
        };
        target().map_err(|error| UplinkError::Answer(error.into()))
    }
}

fn refused(status: StatusCode, title: &str) -> UplinkError {
    UplinkError::Refused {
        status,
        problem: infratrack_shared::wire::problem::Problem {
            title: title.to_owned(),
            ..Default::default()
        },
        retry_after: None,
    }
}

/// The collector, asked by one run.
#[derive(Clone, Debug)]
pub struct RunLane {
    pub collector: Collector,
    pub run: BackupRunId,
}

impl Lane for RunLane {
    async fn missing(&mut self, ids: &[ChunkId]) -> Result<Missing, UplinkError> {
        let (run, ids) = (self.run, joined(ids));
        let asked = MissingAsked { run, ids };
        self.collector.ask(path::BACKUP_MISSING, &asked).await
    }

    async fn put_pack(
        &mut self,
        hash: PackHash,
        pack: Bytes,
        pace: &Pace,
    ) -> Result<(), UplinkError> {
        let path = format!("{}{hash}?run={}", path::PACKS, self.run);
        let (status, stored): (_, PackStored) = self.collector.put(&path, pack, pace).await?;
        if status == StatusCode::CONFLICT || stored.hash != hash {
            return Err(refused(status, "another pack was stored"));
        }
        Ok(())
    }
}

impl Beats for RunLane {
    async fn beat(&mut self, progress: Progress) -> Result<Order, UplinkError> {
        let run = self.run;
        let Beaten { order } = self
            .collector
            .ask(path::BACKUP_BEAT, &Beat { run, progress })
            .await?;
        Ok(order)
    }
}

/// The collector, kept waiting by one drill.
#[derive(Clone, Debug)]
pub(super) struct DrillLane {
    pub(super) collector: Collector,
    pub(super) drill: DrillId,
}

impl Beats for DrillLane {
    async fn beat(&mut self, progress: Progress) -> Result<Order, UplinkError> {
        let drill = self.drill;
        let beat = DrillBeat { drill, progress };
        let Beaten { order } = self.collector.ask(path::BACKUP_DRILL_BEAT, &beat).await?;
        Ok(order)
    }
}
