//! Faults on booted hosts. The oracle is on the hosts: each start of an agent that was ready is a line, synced
//! before systemd goes on. Every line's start is an event in the tables, once, or a gap says that it is not.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::control::{Control, eventually};
use crate::{HOSTS, is_full};

/// A host that was cut off waits up to two minutes, at random, before it tries again.
const RECOVERY: Duration = Duration::from_secs(180);

/// All of it, then the comparison.
#[expect(
    clippy::disallowed_methods,
    reason = "a partition is something that lasts"
)]
pub(crate) fn lose_nothing(control: &Control<'_>) -> anyhow::Result<()> {
    for host in HOSTS {
        keep_an_oracle(control, host)?;
    }
    let (partition, kills) = if is_full() {
        (Duration::from_mins(10), 50)
    } else {
        (Duration::from_mins(1), 5)
    };
    let rig = control.rig;
    let [first, second, third] = HOSTS;
    rig.run(&["cut", first])?;
    let cut = Instant::now();
    rig.run(&["lossy", second, "30"])?;
    for _ in 0..kills {
        restart(control, third, "KILL")?;
    }
    restart(control, first, "TERM")?;
    // With its cable out, what it says is in its spool alone when the power goes.
    rig.run(&["cut", third])?;
    restart(control, third, "KILL")?;
    rig.run(&["powerloss", third])?;
    rig.run(&["heal", third])?;
    rig.run(&["start", third])?;
    rig.run(&["fill", second])?;
    restart(control, second, "KILL").ok();
    std::thread::sleep(partition.saturating_sub(cut.elapsed()));
    rig.run(&["unfill", second])?;
    rig.run(&["heal", first])?;
    rig.run(&["heal", second])?;
    collector_gone(control)?;
    for host in HOSTS {
        eventually(RECOVERY, || agrees(control, host))?;
    }
    Ok(())
}

/// Adds the line at each start, and starts the agent once more under it.
fn keep_an_oracle(control: &Control<'_>, host: &str) -> anyhow::Result<()> {
    let script = "mkdir -p /etc/systemd/system/infratrack-agent.service.d\n\
        printf '[Service]\\nExecStartPost=+/bin/sh -c \"echo $$MAINPID >> /var/log/agent-starts; sync\"\\n' \
            > /etc/systemd/system/infratrack-agent.service.d/oracle.conf\n\
        systemctl daemon-reload\n\
        systemctl restart infratrack-agent";
    control.rig.exec(host, &["sh", "-ec", script]).map(drop)
}

fn restart(control: &Control<'_>, host: &str, signal: &str) -> anyhow::Result<()> {
    let starts = || oracle(control, host);
    let before = starts()?;
    control.rig.exec(
        host,
        &["systemctl", "kill", "-s", signal, "infratrack-agent"],
    )?;
    eventually(Duration::from_secs(60), || {
        ensure!(starts()? > before, "{host}: the agent does not come back");
        Ok(())
    })
}

/// The collector is stopped and started again.
fn collector_gone(control: &Control<'_>) -> anyhow::Result<()> {
    for action in ["stop", "start"] {
        control.rig.exec(
            super::COLLECTOR,
            &["systemctl", action, "infratrack-collector"],
        )?;
    }
    Ok(())
}

/// The starts that the host has a line of.
fn oracle(control: &Control<'_>, host: &str) -> anyhow::Result<u64> {
    let lines = control.rig.exec(
        host,
        &["sh", "-c", "cat /var/log/agent-starts 2>/dev/null | wc -l"],
    )?;
    Ok(lines.trim().parse()?)
}

/// The tables have every start of the oracle, each once, or a gap.
fn agrees(control: &Control<'_>, host: &str) -> anyhow::Result<()> {
    let id = control.id(host)?;
    let count = |what: &str| -> anyhow::Result<u64> {
        Ok(control
            .query(&format!(
                "select count({what}) from events where host_id = '{id}' and kind = 'agent_start'"
            ))?
            .parse()?)
    };
    let (stored, distinct) = (count("*")?, count("distinct body->>'instance'")?);
    ensure!(
        stored == distinct,
        "{host}: {stored} starts stored, {distinct} different ones"
    );
    let lost = "select coalesce(sum(to_seq - from_seq + 1), 0) from gaps where class = 'critical' and host_id";
    let lost: u64 = control.query(&format!("{lost} = '{id}'"))?.parse()?;
    // One start was before there was an oracle.
    let happened = oracle(control, host)? + 1;
    ensure!(
        stored + lost >= happened,
        "{host}: {happened} starts happened, {stored} are stored and {lost} records are said to be lost"
    );
    let shown = control.host(&id)?;
    ensure!(
        shown["liveness"] == "online",
        "{host} is not online: {shown}"
    );
    Ok(())
}
