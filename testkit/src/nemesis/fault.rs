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
    /// The same, and the first one stands still meanwhile.
    SwitchFromPaused,
    /// kill -9 of the postmaster; the supervisor starts it again.
    KillPostgres,
    /// kill -9 of one of the collectors' backends: Postgres restarts all of them.
    KillBackend,
    /// A backend is told to end (57P01).
    TerminateBackend,
    /// Somebody holds a lock on the cursors.
    LockCursors,
    /// Deadlocks and lost races (40P01, 40001), by chance.
    FailCommits,
    /// Every backend of the collectors stands still.
    PausePostgres,
    SlowDatabase,
    CutDatabase,
    /// The connection to Postgres breaks in the middle of an answer.
    TruncateDatabase,
    SilentDatabase,
    /// Open connections to Postgres pass nothing any more, new ones do.
    ForgetDatabase,
    SlowAgents,
    CutAgents,
    /// An answer to an agent ends in the middle.
    TruncateAgents,
    /// Nothing passes and nobody is told.
    SilentAgents,
    ForgetAgents,
    RefuseAgents,
    /// kill -9 of every agent.
    KillAgents,
    PauseAgents,
    /// The hosts' wall clock jumps, by up to 20 years.
    StepClock,
    /// The file system of the spools is full, and then has room again.
    FillDisk,
    /// The collector ends at a named point of its code.
    EndCollectorAtPoint,
    /// The agents do.
    EndAgentsAtPoint,
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
        Self::SwitchFromPaused,
        Self::KillPostgres,
        Self::KillBackend,
        Self::TerminateBackend,
        Self::LockCursors,
        Self::FailCommits,
        Self::PausePostgres,
        Self::SlowDatabase,
        Self::CutDatabase,
        Self::TruncateDatabase,
        Self::SilentDatabase,
        Self::ForgetDatabase,
        Self::SlowAgents,
        Self::CutAgents,
        Self::TruncateAgents,
        Self::SilentAgents,
        Self::ForgetAgents,
        Self::RefuseAgents,
        Self::KillAgents,
        Self::PauseAgents,
        Self::StepClock,
    ];

    /// Those that need the feature `failpoints`.
    pub const AT_POINTS: &[Self] = &[Self::EndCollectorAtPoint, Self::EndAgentsAtPoint];

    pub(super) fn target(self) -> Target {
        match self {
            Self::KillCollector
            | Self::StopCollector
            | Self::PauseCollector
            | Self::SwitchFromPaused
            | Self::EndCollectorAtPoint => Target::Collector,
            Self::KillPostgres
            | Self::KillBackend
            | Self::TerminateBackend
            | Self::LockCursors
            | Self::FailCommits
            | Self::PausePostgres => Target::Postgres,
            Self::SlowDatabase
            | Self::CutDatabase
            | Self::TruncateDatabase
            | Self::SilentDatabase
            | Self::ForgetDatabase => Target::Database,
            Self::SwitchCollector
            | Self::SlowAgents
            | Self::CutAgents
            | Self::TruncateAgents
            | Self::SilentAgents
            | Self::ForgetAgents
            | Self::RefuseAgents => Target::Network,
            Self::KillAgents | Self::PauseAgents | Self::EndAgentsAtPoint => Target::Agents,
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
            Self::SlowDatabase
            | Self::CutDatabase
            | Self::TruncateDatabase
            | Self::SilentDatabase
            | Self::SlowAgents
            | Self::CutAgents
            | Self::TruncateAgents
            | Self::SilentAgents
            | Self::RefuseAgents => world.proxy_fault(self, self.of_proxy(draw), lasts).await,
            Self::SwitchCollector => world.switch_collector().await,
            Self::KillAgents => world.kill_agents(lasts).await,
            Self::PauseAgents => world.pause_agents(lasts).await,
            Self::StepClock => world.step_clock(draw).await,
            Self::FillDisk => world.fill_disk(lasts).await,
            Self::SwitchFromPaused => world.switch_from_paused(lasts).await,
            Self::FailCommits => Ok(world.fail_commits(lasts).await? > 0),
            Self::ForgetDatabase | Self::ForgetAgents => world.forget(self, lasts).await,
            Self::EndCollectorAtPoint => world.end_collector_at_point(draw).await,
            Self::EndAgentsAtPoint => world.end_agents_at_point(draw).await,
        }
    }

    /// What the proxy on the way does.
    fn of_proxy(self, draw: f64) -> proxy::Fault {
        if matches!(self, Self::SlowDatabase | Self::SlowAgents) {
            proxy::Fault::Delay(Duration::from_millis(20).mul_f64(draw))
        } else if matches!(self, Self::CutDatabase | Self::CutAgents) {
            proxy::Fault::Reset
        } else if matches!(self, Self::TruncateDatabase | Self::TruncateAgents) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 3000"
            )]
            let bytes = (draw * 3000.0) as u64;
            proxy::Fault::Truncate(bytes)
        } else if matches!(self, Self::SilentDatabase | Self::SilentAgents) {
            proxy::Fault::HalfOpen
        } else {
            proxy::Fault::Refuse
        }
    }
}
