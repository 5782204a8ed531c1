//! A simulated fleet on the collector's own machine: what goes on while something else is done to it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::ensure;

use crate::COLLECTOR;
use crate::control::{Control, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_infratrack-fleet");
const AGENTS: u32 = 40;
/// They are enrolled and have begun within this.
const BEGUN: Duration = Duration::from_secs(60);

/// Runs until it is stopped, or its host goes down.
pub(crate) struct Load {
    running: Child,
}

impl Load {
    pub(crate) fn start(control: &Control<'_>) -> anyhow::Result<Self> {
        let lay =
            format!("ssh collector.example 'sudo install /dev/stdin /var/tmp/fleet' < {PROGRAM}");
        control.run(&lay)?;
        let run = format!(
            "cd /var/tmp && umask 077 && infratrack-collector token admin > fleet.token && echo $$ > fleet.pid && umask 022\n\
             exec ./fleet run --agents 127.0.0.1:8443 --enroll 127.0.0.1:8444 --operators http://127.0.0.1:8080 \
             --admin-token-file fleet.token --agents-count {AGENTS} --events-per-beat 2 --duration-s 3600 --drain-s 120 \
             --backoff-scale 0.2 --ledger fleet.ledger"
        );
        let running = on_collector(control, &run).stdout(Stdio::null()).spawn()?;
        eventually(BEGUN, || {
            let reporting = control
                .query("select count(*) from host_liveness where last_seen_at is not null")?;
            ensure!(
                reporting.parse::<u32>()? > AGENTS,
                "{reporting} hosts report"
            );
            Ok(())
        })?;
        Ok(Self { running })
    }

    /// All that it offered is in the tables, each once.
    pub(crate) fn stop(mut self, control: &Control<'_>) -> anyhow::Result<()> {
        let interrupt = "kill -INT $(cat /var/tmp/fleet.pid)";
        ensure!(
            on_collector(control, interrupt).status()?.success(),
            "the fleet is gone"
        );
        let ended = self.running.wait()?;
        ensure!(ended.success(), "the fleet ended with {ended}");
        let verify = "cd /var/tmp && exec setpriv --reuid infratrack-collector --regid infratrack-collector --clear-groups \
            ./fleet verify --ledger fleet.ledger --socket /var/lib/infratrack-collector/postgres/socket";
        let verified = on_collector(control, verify).output()?;
        ensure!(
            verified.status.success(),
            "{}{}",
            String::from_utf8_lossy(&verified.stdout),
            String::from_utf8_lossy(&verified.stderr)
        );
        Ok(())
    }
}

fn on_collector(control: &Control<'_>, text: &str) -> Command {
    control.rig.script(&["exec", COLLECTOR, "sh", "-ec", text])
}
