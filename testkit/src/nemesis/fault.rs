//! The kinds of faults, what each does to a world, and how it is known to have happened.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::world::World;
use crate::proxy;

/// One kind of fault. Those with a proxy last until the burst's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of the collector that agents talk to, and its restart.
    KillCollector,
    /// SIGTERM of it: it drains.
    StopCollector,
    /// SIGSTOP and SIGCONT of it.
    PauseCollector,
    /// Agents are sent to the other collector, in the middle of what they do.
    SwitchCollector,
    /// kill -9 of the postmaster; the supervisor starts it again.
    KillPostgres,
    /// kill -9 of one of the collectors' backends: Postgres restarts all of them.
    KillBackend,
    /// A backend is told to end (57P01).
    TerminateBackend,
    /// Somebody holds a lock on the cursors.
    LockCursors,
    /// Every backend of the collectors stands still.
    PausePostgres,
    SlowDatabase,
    CutDatabase,
    /// The connection to Postgres breaks in the middle of an answer.
    TruncateDatabase,
    SilentDatabase,
    SlowAgents,
    CutAgents,
    /// An answer to an agent ends in the middle.
    TruncateAgents,
    /// Nothing passes and nobody is told.
    SilentAgents,
    RefuseAgents,
    /// kill -9 of every agent.
    KillAgents,
    PauseAgents,
    /// The hosts' wall clock jumps, by up to 20 years.
    StepClock,
    /// The file system of the spools is full, and then has room again.
    FillDisk,
}

/// What a fault is done to: a burst has one fault a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Collector,
    Postgres,
    Database,
    Network,
    Agents,
    Clock,
    Disk,
}

impl Fault {
    /// Every kind that needs no rights.
    pub const ALL: &[Self] = &[
        Self::KillCollector,
        Self::StopCollector,
        Self::PauseCollector,
        Self::SwitchCollector,
        Self::KillPostgres,
        Self::KillBackend,
        Self::TerminateBackend,
        Self::LockCursors,
        Self::PausePostgres,
        Self::SlowDatabase,
        Self::CutDatabase,
        Self::TruncateDatabase,
        Self::SilentDatabase,
        Self::SlowAgents,
        Self::CutAgents,
        Self::TruncateAgents,
        Self::SilentAgents,
        Self::RefuseAgents,
        Self::KillAgents,
        Self::PauseAgents,
        Self::StepClock,
    ];

    pub(super) fn target(self) -> Target {
        match self {
            Self::KillCollector | Self::StopCollector | Self::PauseCollector => Target::Collector,
            Self::KillPostgres
            | Self::KillBackend
            | Self::TerminateBackend
            | Self::LockCursors
            | Self::PausePostgres => Target::Postgres,
            Self::SlowDatabase
            | Self::CutDatabase
            | Self::TruncateDatabase
            | Self::SilentDatabase => Target::Database,
            Self::SwitchCollector
            | Self::SlowAgents
            | Self::CutAgents
            | Self::TruncateAgents
            | Self::SilentAgents
            | Self::RefuseAgents => Target::Network,
            Self::KillAgents | Self::PauseAgents => Target::Agents,
            Self::StepClock => Target::Clock,
            Self::FillDisk => Target::Disk,
        }
    }

    /// Has it happen for as long as it `lasts`; `draw`, 0 to 1, is its share of chance. Answers whether it
    /// did; a proxy's answer comes with [`World::heal`].
    pub(super) async fn happen(
        self,
        world: &mut World,
        lasts: Duration,
        draw: f64,
    ) -> anyhow::Result<bool> {
        let late = Duration::from_millis(20).mul_f64(draw);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 3000"
        )]
        let bytes = (draw * 3000.0) as u64;
        match self {
            Self::KillCollector => world.kill_collector(lasts).await,
            Self::StopCollector => world.stop_collector(lasts).await,
            Self::PauseCollector => {
                let collector = world.collector();
                collector.signal(Signal::SIGSTOP);
                tokio::time::sleep(lasts).await;
                let stopped = collector.state() == Some('T');
                collector.signal(Signal::SIGCONT);
                Ok(stopped)
            }
            Self::KillPostgres => Ok(world.kill_postgres()),
            Self::KillBackend => world.signal_backends(Signal::SIGKILL, 1).await,
            Self::TerminateBackend => world.signal_backends(Signal::SIGTERM, 3).await,
            Self::LockCursors => world.lock_cursors(lasts).await,
            Self::PausePostgres => {
                let paused = world.signal_backends(Signal::SIGSTOP, usize::MAX).await?;
                tokio::time::sleep(lasts).await;
                world.signal_backends(Signal::SIGCONT, usize::MAX).await?;
                Ok(paused)
            }
            Self::SlowDatabase => {
                world
                    .database_fault(self, proxy::Fault::Delay(late), lasts)
                    .await
            }
            Self::CutDatabase => world.database_fault(self, proxy::Fault::Reset, lasts).await,
            Self::TruncateDatabase => {
                let cut = proxy::Fault::Truncate(bytes);
                world.database_fault(self, cut, lasts).await
            }
            Self::SilentDatabase => {
                world
                    .database_fault(self, proxy::Fault::HalfOpen, lasts)
                    .await
            }
            Self::SlowAgents => {
                world
                    .network_fault(self, proxy::Fault::Delay(late), lasts)
                    .await
            }
            Self::CutAgents => world.network_fault(self, proxy::Fault::Reset, lasts).await,
            Self::TruncateAgents => {
                let cut = proxy::Fault::Truncate(bytes);
                world.network_fault(self, cut, lasts).await
            }
            Self::SilentAgents => {
                world
                    .network_fault(self, proxy::Fault::HalfOpen, lasts)
                    .await
            }
            Self::RefuseAgents => world.network_fault(self, proxy::Fault::Refuse, lasts).await,
            Self::SwitchCollector => world.switch_collector().await,
            Self::KillAgents => world.kill_agents(lasts).await,
            Self::PauseAgents => world.pause_agents(lasts).await,
            Self::StepClock => world.step_clock(draw).await,
            Self::FillDisk => world.fill_disk(lasts).await,
        }
    }
}
