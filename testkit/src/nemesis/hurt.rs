//! What can be done to a world.
//!
//! Whatever is hurt is alive again when its method returns, but for faults of the network, which last until
//! [`World::heal`].

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use super::fault::{Fault, Target};
use super::world::{LOOK, RECOVERY, World};
use crate::proxy::{self, Proxy};

/// Two wall clocks are at most so far apart, in milliseconds.
const CLOCK_MS: f64 = 20.0 * 365.0 * 86_400_000.0;

/// Has the update of a cursor fail, one in three; what a sequence counts, no rollback takes back.
const FAIL_COMMITS: [&str; 4] = [
    "drop sequence if exists nemesis_fired",
    "create sequence nemesis_fired",
    "create or replace function nemesis() returns trigger language plpgsql as $$
     begin
         if random() < 0.33 then
             perform nextval('nemesis_fired');
             if random() < 0.5 then
                 raise exception 'by the nemesis' using errcode = '40P01';
             end if;
             raise exception 'by the nemesis' using errcode = '40001';
         end if;
         return new;
     end $$",
    "create trigger nemesis before update on agent_streams
     for each row execute function nemesis()",
];

/// At the end of a transaction, once, however many cursors it moved.
const SLOW_COMMITS: [&str; 3] = [
    "create sequence nemesis_slow",
    "create function nemesis_slow() returns trigger language plpgsql as $$
     begin
         if coalesce(current_setting('nemesis.slept', true), '') = '' then
             perform set_config('nemesis.slept', 'yes', true);
             perform nextval('nemesis_slow');
             perform pg_sleep(current_setting('nemesis.slow_s')::float8);
         end if;
         return null;
     end $$",
    "create constraint trigger nemesis_slow after update on agent_streams
     deferrable initially deferred for each row execute function nemesis_slow()",
];

impl World {
    /// kill -9 of the collector that agents talk to; it is away for as long as `down`. Answers whether it
    /// was that which ended it.
    pub async fn kill_collector(&mut self, down: Duration) -> anyhow::Result<bool> {
        let node = &mut self.collectors[self.current];
        let killed = node.process.kill().await?;
        tokio::time::sleep(down).await;
        self.revive()?;
        Ok(killed)
    }

    /// Ends the collector that everybody talks to, with SIGKILL or SIGTERM; agents, and whoever comes by way of
    /// `operators`, go to the other one meanwhile, and it is started again. Answers whether it ended as it was told.
    pub async fn change_over(&mut self, signal: Signal, operators: &Proxy) -> anyhow::Result<bool> {
        use std::os::unix::process::ExitStatusExt;
        let ending = self.current;
        self.collectors[ending].process.signal(signal);
        self.current = 1 - ending;
        let next = &self.collectors[self.current];
        self.network.set_upstream(next.agents);
        operators.set_upstream(next.operators);
        let status = self.collectors[ending].process.ended(RECOVERY).await?;
        let deadline = Instant::now() + RECOVERY;
        loop {
            self.revive()?;
            if self.collectors[ending].is_up().await {
                break;
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the collector is not back in {RECOVERY:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
        let as_told = if signal == Signal::SIGKILL {
            status.signal() == Some(Signal::SIGKILL as i32)
        } else {
            status.success()
        };
        Ok(as_told)
    }

    pub(super) async fn stop_collector(&mut self, down: Duration) -> anyhow::Result<bool> {
        let node = &mut self.collectors[self.current];
        node.process.signal(Signal::SIGTERM);
        // It may be without Postgres just now, and then ends with an error.
        node.process.ended(RECOVERY).await?;
        tokio::time::sleep(down).await;
        self.revive()?;
        Ok(true)
    }

    /// Sends the agents to the other collector. Answers whether that cut them off.
    pub async fn switch_collector(&mut self) -> anyhow::Result<bool> {
        self.current = 1 - self.current;
        self.network
            .set_upstream(self.collectors[self.current].agents);
        let before = self.network.fired();
        self.network.set(proxy::Fault::Reset);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.network.set(proxy::Fault::None);
        Ok(self.network.fired() > before)
    }

    /// The collector that agents talk to stands still for as long as it `lasts`, and they go to the other one;
    /// it is woken with all that it had begun.
    pub async fn switch_from_paused(&mut self, lasts: Duration) -> anyhow::Result<bool> {
        let paused = self.current;
        self.collectors[paused].process.signal(Signal::SIGSTOP);
        let switched = self.switch_collector().await?;
        tokio::time::sleep(lasts).await;
        let process = &self.collectors[paused].process;
        let stopped = process.state() == Some('T');
        process.signal(Signal::SIGCONT);
        Ok(switched && stopped)
    }

    /// Commits fail as they do after a deadlock or a lost race, by chance. Answers how many did.
    pub async fn fail_commits(&self, lasts: Duration) -> anyhow::Result<i64> {
        for sql in FAIL_COMMITS {
            if sqlx::query(sql).execute(&self.pool).await.is_err() {
                return Ok(0);
            }
        }
        tokio::time::sleep(lasts).await;
        let deadline = Instant::now() + RECOVERY;
        while let Err(error) = sqlx::query("drop trigger nemesis on agent_streams")
            .execute(&self.pool)
            .await
        {
            // Postgres may be gone just now.
            anyhow::ensure!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(LOOK).await;
        }
        let sql = "select case when is_called then last_value else 0 end from nemesis_fired";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// From here on the commits of collectors that move a cursor take so much longer.
    pub async fn slow_commits(&self, by: Duration) -> anyhow::Result<()> {
        let set = format!(
            "alter database infratrack set nemesis.slow_s = '{}'",
            by.as_secs_f64()
        );
        sqlx::query(AssertSqlSafe(set)).execute(&self.pool).await?;
        for sql in SLOW_COMMITS {
            sqlx::query(sql).execute(&self.pool).await?;
        }
        // What a database's setting is, a session knows from its start.
        self.signal_backends(Signal::SIGTERM, usize::MAX).await?;
        Ok(())
    }

    /// The end of [`World::slow_commits`]. Answers how many were slow.
    pub async fn commits_as_ever(&self) -> anyhow::Result<i64> {
        sqlx::query("drop trigger nemesis_slow on agent_streams")
            .execute(&self.pool)
            .await?;
        let sql = "select case when is_called then last_value else 0 end from nemesis_slow";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    pub(super) fn kill_postgres(&self) -> bool {
        let text = std::fs::read_to_string(&self.postmaster).unwrap_or_default();
        let pid = text.lines().next().and_then(|pid| pid.trim().parse().ok());
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
    }

    /// Signals up to `most` backends that work for collectors.
    pub(super) async fn signal_backends(
        &self,
        signal: Signal,
        most: usize,
    ) -> anyhow::Result<bool> {
        let sql = "select pid from pg_stat_activity
             where application_name = 'infratrack-collector' order by random()";
        let backends: sqlx::Result<Vec<i32>> = sqlx::query_scalar(sql).fetch_all(&self.pool).await;
        let mut happened = false;
        for pid in backends.unwrap_or_default().into_iter().take(most) {
            happened |= kill(Pid::from_raw(pid), signal).is_ok();
        }
        Ok(happened)
    }

    /// Somebody else has a lock on all cursors for as long as it `lasts`.
    pub async fn lock_cursors(&self, lasts: Duration) -> anyhow::Result<bool> {
        let Ok(mut transaction) = self.pool.begin().await else {
            return Ok(false);
        };
        let locked = sqlx::query("lock table agent_streams in access exclusive mode")
            .execute(&mut *transaction)
            .await;
        tokio::time::sleep(lasts).await;
        drop(transaction.rollback().await);
        Ok(locked.is_ok())
    }

    pub(super) async fn proxy_fault(
        &mut self,
        kind: Fault,
        fault: proxy::Fault,
        lasts: Duration,
    ) -> anyhow::Result<bool> {
        let proxy = self.proxy_of(kind);
        let before = proxy.fired();
        proxy.set(fault);
        self.open.push((kind, before));
        tokio::time::sleep(lasts).await;
        Ok(false)
    }

    /// The connections that are open, of collectors to Postgres or of agents, pass nothing more.
    pub(super) async fn forget(&mut self, kind: Fault, lasts: Duration) -> anyhow::Result<bool> {
        let proxy = self.proxy_of(kind);
        let before = proxy.fired();
        proxy.forget();
        tokio::time::sleep(lasts).await;
        self.open.push((kind, before));
        Ok(false)
    }

    pub(super) fn proxy_of(&self, fault: Fault) -> &Proxy {
        if fault.target() == Target::Database {
            &self.database
        } else {
            &self.network
        }
    }

    pub(super) async fn kill_agents(&mut self, down: Duration) -> anyhow::Result<bool> {
        let Some(mut fleet) = self.fleet.take() else {
            return Ok(false);
        };
        let killed = fleet.kill().await?;
        tokio::time::sleep(down).await;
        self.start_fleet()?;
        Ok(killed)
    }

    pub(super) async fn pause_agents(&self, lasts: Duration) -> anyhow::Result<bool> {
        let Some(fleet) = &self.fleet else {
            return Ok(false);
        };
        fleet.signal(Signal::SIGSTOP);
        tokio::time::sleep(lasts).await;
        let stopped = fleet.state() == Some('T');
        fleet.signal(Signal::SIGCONT);
        Ok(stopped)
    }

    pub(super) async fn step_clock(&self, draw: f64) -> anyhow::Result<bool> {
        // Small steps are as nasty as large ones: a third each of seconds, hours and years.
        let scale = [1e-8, 1e-4, 1.0];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 2"
        )]
        let scale = scale[(draw * 3000.0) as usize % 3];
        let offset_ms = (draw - 0.5) * CLOCK_MS * scale;
        let new = self.dir.path().join("clock.new");
        std::fs::write(&new, format!("{offset_ms:.0}"))?;
        std::fs::rename(&new, self.dir.path().join("clock"))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(true)
    }

    pub(super) async fn fill_disk(&self, lasts: Duration) -> anyhow::Result<bool> {
        self.disk.fill(lasts).await
    }
}
