//! Backups beside the run loop: which volumes there are, when each is due, and what became of runs whose end the collector did
//! not hear. The runs themselves are processes of a unit of its own, root's, which a connection to a socket starts; all that is
//! said there is which volume, and why.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{BootId, HostId, VolumeId};
use infratrack_shared::limits::RECORD_BYTES;
use infratrack_shared::wire::backup::{EndRun, Volume};
use infratrack_shared::wire::batch::{Body, Class};
use infratrack_shared::wire::event::Event;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::backup::due::{Begun, is_closed};
use crate::backup::remote::Collector;
use crate::clock::Clock;
use crate::collect::{self, Root};
use crate::config::Config;
use crate::spool::{NewRecord, Spool, SpoolError};

/// What starts the unit, below the root.
const SOCKET: &str = "run/infratrack-backup.sock";
/// What runs could not tell the collector, below the root.
const RESULTS_DIR: &str = "var/lib/infratrack-backup/results";
/// The value in the spool.
const NAME: &str = "backups";
/// How often it is looked what is due, and what was left to be told.
const LOOK: Duration = Duration::from_secs(20);
/// How often the collector is asked what there is to protect, if it says nothing itself.
const REFRESH: Duration = Duration::from_secs(600);
/// For a connection to the unit, and for saying what to run.
const CONNECT: Duration = Duration::from_secs(5);
/// Runs at the same time; others wait for their turn.
const AT_ONCE: usize = 2;
/// Requests of the run loop that may wait.
const ASKED: usize = 64;
/// Results that are read at a time.
const RESULTS: usize = 100;

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    volumes: Vec<Volume>,
    begun: Begun,
}

enum Asked {
    Refresh(oneshot::Sender<Result<(), String>>),
    Run(VolumeId, oneshot::Sender<Result<(), String>>),
    Drill(VolumeId, oneshot::Sender<Result<(), String>>),
}

/// The task; ends when it is dropped.
pub(super) struct Backups {
    asked: mpsc::Sender<Asked>,
    told: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Backups {
    pub(super) fn start(
        config: &Config,
        root: &Root,
        spool: Spool,
        clock: Clock,
        (host, boot_id): (HostId, BootId),
    ) -> Self {
        let told = Arc::new(Notify::new());
        let (asked, questions) = mpsc::channel(ASKED);
        let task = Task {
            collector: Collector::new(config.state_dir.clone(), config.endpoints.clone()),
            results: root.path(RESULTS_DIR),
            socket: root.path(SOCKET),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            drills: Arc::new(Semaphore::new(1)),
            told: Arc::clone(&told),
            state: State::default(),
            refresh_at: Instant::now(),
            backoff: Backoff::default(),
            host,
            boot_id,
            spool,
            clock,
        };
        let task = tokio::spawn(task.run(questions));
        Self { asked, told, task }
    }

    /// Asks the collector what there is to protect.
    pub(super) async fn refresh(&self) -> Result<(), String> {
        self.ask(Asked::Refresh).await
    }

    /// Begins a run of this volume, or says why not. How it goes is told by the run.
    pub(super) async fn run(&self, volume: &str) -> Result<(), String> {
        let volume = volume.parse().map_err(|_| "no volume's id".to_owned())?;
        self.ask(|answer| Asked::Run(volume, answer)).await
    }

    /// Likewise, to rehearse restoring it.
    pub(super) async fn drill(&self, volume: &str) -> Result<(), String> {
        let volume = volume.parse().map_err(|_| "no volume's id".to_owned())?;
        self.ask(|answer| Asked::Drill(volume, answer)).await
    }

    async fn ask(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Asked,
    ) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "backups are not looked after".to_owned();
        let sent = self.asked.try_send(question(answer));
        sent.map_err(|_| "too much is asked at once".to_owned())?;
        let answered = timeout(2 * CONNECT, answered).await;
        answered
            .map_err(|_| "the collector did not say in time which volumes there are".to_owned())?
            .map_err(gone)?
    }

    /// Waits for records that it has put into the spool.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// What was not told is told after the next start.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Backups {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Task {
    collector: Collector,
    host: HostId,
    boot_id: BootId,
    spool: Spool,
    clock: Clock,
    results: PathBuf,
    socket: PathBuf,
    turns: Arc<Semaphore>,
    /// A host has one drill at a time.
    drills: Arc<Semaphore>,
    told: Arc<Notify>,
    state: State,
    refresh_at: Instant,
    backoff: Backoff,
}

impl Task {
    async fn run(mut self, mut questions: mpsc::Receiver<Asked>) {
        if let Ok(Some(saved)) = self.spool.get(NAME).await {
            self.state = serde_json::from_slice(&saved).unwrap_or_default();
        }
        loop {
            if Instant::now() >= self.refresh_at {
                self.refresh().await.ok();
            }
            self.tell_results().await;
            self.begin_due().await;
            self.begin_drill();
            let look = sleep_until(Instant::now() + LOOK);
            tokio::select! {
                () = look => {}
                asked = questions.recv() => match asked {
                    Some(Asked::Refresh(answer)) => {
                        answer.send(self.refresh().await).ok();
                    }
                    Some(Asked::Run(volume, answer)) => {
                        answer.send(self.begin(volume).await).ok();
                    }
                    Some(Asked::Drill(volume, answer)) => {
                        answer.send(self.begin_asked_drill(volume).await).ok();
                    }
                    None => return,
                }
            }
        }
    }

    /// Learns what there is to protect. What is known holds while nobody answers.
    async fn refresh(&mut self) -> Result<(), String> {
        let asked = timeout(CONNECT, self.collector.volumes()).await;
        // Not kept for minutes: a collector has a connection of each host as it is.
        self.collector.hang_up();
        let volumes = match asked {
            Ok(Ok(said)) => said.volumes,
            Ok(Err(error)) => return Err(self.failed(&error.to_string())),
            Err(_) => return Err(self.failed("the collector does not answer")),
        };
        self.backoff.reset();
        let jitter = rand::random_range(0.8..1.2);
        self.refresh_at = Instant::now() + REFRESH.mul_f64(jitter);
        let now = self.clock.now();
        let mut state = State {
            volumes,
            begun: self.state.begun.clone(),
        };
        state.begun.keep(&state.volumes, now);
        if state.volumes != self.state.volumes {
            tracing::info!(volumes = state.volumes.len(), "volumes to protect");
        }
        self.state = state;
        self.save().await;
        Ok(())
    }

    fn failed(&mut self, error: &str) -> String {
        self.refresh_at = Instant::now() + self.backoff.after_failure();
        tracing::debug!(error, "the collector did not say which volumes there are");
        error.to_owned()
    }

    async fn save(&self) {
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        if let Err(error) = self.spool.put(NAME, Bytes::from(text)).await {
            tracing::warn!(%error, "which backups were begun is not remembered over a restart");
        }
    }

    /// Begins the runs that are due.
    async fn begin_due(&mut self) {
        let now = self.clock.now();
        let due = self.state.begun.due(self.host, &self.state.volumes, now);
        let due: Vec<_> = due.map(|volume| volume.id).collect();
        for volume in &due {
            // Before it begins: what is begun twice costs more than what is begun late.
            self.state.begun.begin(*volume, now);
        }
        if !due.is_empty() {
            self.save().await;
        }
        for volume in due {
            self.launch(volume, "schedule");
        }
    }

    /// Begins the drill that the collector says is due.
    fn begin_drill(&mut self) {
        let now = self.clock.now();
        let mut volumes = self.state.volumes.iter_mut();
        let due =
            volumes.find(|volume| volume.is_drill_due && !is_closed(&volume.closed_windows, now));
        let Some(volume) = due else {
            return;
        };
        // It says so again where this one does not even begin.
        volume.is_drill_due = false;
        let id = volume.id;
        self.launch_drill(id, "schedule");
    }

    /// Begins a drill that somebody asked for.
    async fn begin_asked_drill(&mut self, volume: VolumeId) -> Result<(), String> {
        self.find(volume).await?;
        self.launch_drill(volume, "command");
        Ok(())
    }

    fn launch_drill(&self, volume: VolumeId, trigger: &'static str) {
        let (drills, socket) = (Arc::clone(&self.drills), self.socket.clone());
        tokio::spawn(async move {
            // Where one is under way, the collector says later what is due then.
            let Ok(_turn) = drills.try_acquire() else {
                return;
            };
            let asked = format!("{volume} {trigger} drill\n");
            if let Err(error) = launch(&socket, &asked).await {
                tracing::error!(%error, %volume, "cannot begin a drill");
            }
        });
    }

    /// Begins a run that somebody asked for.
    async fn begin(&mut self, volume: VolumeId) -> Result<(), String> {
        self.find(volume).await?;
        self.launch(volume, "command");
        Ok(())
    }

    /// Whether this is a volume of this host, and its unit is there.
    async fn find(&mut self, volume: VolumeId) -> Result<(), String> {
        if self.state.volumes.iter().all(|known| known.id != volume) {
            self.refresh().await?;
        }
        if self.state.volumes.iter().all(|known| known.id != volume) {
            return Err("this host has no such volume".to_owned());
        }
        if !self.socket.exists() {
            let socket = self.socket.display();
            return Err(format!(
                "{socket} is not there: does systemctl status infratrack-backup.socket say why?"
            ));
        }
        Ok(())
    }

    fn launch(&self, volume: VolumeId, trigger: &'static str) {
        let (turns, socket) = (Arc::clone(&self.turns), self.socket.clone());
        tokio::spawn(async move {
            let Ok(_turn) = turns.acquire().await else {
                return;
            };
            let asked = format!("{volume} {trigger}\n");
            if let Err(error) = launch(&socket, &asked).await {
                tracing::error!(%error, %volume, "cannot begin a backup");
            }
        });
    }

    /// Puts what runs could not tell the collector into the spool. A file goes when its record is durable.
    async fn tell_results(&mut self) {
        let folder = self.results.clone();
        let found = tokio::task::spawn_blocking(move || results(&folder)).await;
        let Ok(Ok(found)) = found else {
            // Without a backup there is no folder.
            return;
        };
        for (path, end) in found {
            match self.tell(&end).await {
                Ok(()) => {
                    if let Err(error) = std::fs::remove_file(&path) {
                        let path = path.display();
                        tracing::warn!(%error, %path, "a backup's result is told again");
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "results of backups wait for the spool");
                    return;
                }
            }
        }
    }

    async fn tell(&self, end: &EndRun) -> Result<(), SpoolError> {
        let event = Event::BackupResult(end.clone());
        let Ok(body) = event.to_body() else {
            return Ok(());
        };
        let record = NewRecord {
            at: self.clock.now(),
            mono_ms: collect::mono_ms(),
            boot_id: self.boot_id,
            kind: event.kind().unwrap_or_default().to_owned(),
            body: Body::Event(body),
        };
        self.spool.append(Class::Critical, vec![record]).await?;
        self.told.notify_one();
        Ok(())
    }
}

/// Has the unit do what is asked; ends when it has.
async fn launch(socket: &PathBuf, asked: &str) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(CONNECT, UnixStream::connect(socket)).await;
    let mut stream = connected.map_err(late)??;
    let written = timeout(CONNECT, stream.write_all(asked.as_bytes())).await;
    written.map_err(late)??;
    timeout(CONNECT, stream.shutdown()).await.map_err(late)??;
    // The other end closes when the run is over, however that was.
    let mut nothing = [0; 64];
    while stream.read(&mut nothing).await? > 0 {}
    Ok(())
}

/// The results that are left, the first first. What is none is left alone.
fn results(folder: &PathBuf) -> io::Result<Vec<(PathBuf, EndRun)>> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut paths: Vec<_> = entries?.iter().map(std::fs::DirEntry::path).collect();
    // Their names are ids, in the order of time.
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let size = path.symlink_metadata()?.len();
        if size > RECORD_BYTES as u64 || found.len() == RESULTS {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if let Ok(end) = codec::decode(&bytes, &Limits::bytes(RECORD_BYTES)) {
            found.push((path, end));
        }
    }
    Ok(found)
}
