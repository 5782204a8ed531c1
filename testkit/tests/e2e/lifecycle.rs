//! Upgrades, the way back, removal.

use std::time::Duration;

use anyhow::ensure;

use crate::control::{Control, eventually};
use crate::load::Load;
use crate::repository::{Repository, apt_refuses_changes};
use crate::{COLLECTOR, HOSTS};

/// To the newer build, agents and collector, with an edited configuration and while a fleet reports; then back to the
/// one before.
pub(crate) fn upgrade_and_back(control: &Control<'_>) -> anyhow::Result<()> {
    let edited = "printf '\\n# edited\\n' >> /etc/infratrack/agent.toml";
    control.rig.exec(HOSTS[0], &["sh", "-c", edited])?;
    let load = Load::start(control)?;
    let before = control.query("select count(*) from events")?;
    for version in ["0.1.1", "0.1.0"] {
        let packages = format!(
            "-e collector_file=infratrack-collector_{version}-1_amd64.deb -e agent_file=infratrack-agent_{version}-1_amd64.deb \
             -e '{{\"infratrack_upgrade_batches\": [1, \"100%\"]}}'"
        );
        control.playbook("lcm_upgrade", &packages)?.good()?;
        let installed = format!("{version}-1");
        control.has_version(COLLECTOR, "infratrack-collector", &installed)?;
        control.has_version(HOSTS[0], "infratrack-agent", &installed)?;
        let kept = control
            .rig
            .exec(HOSTS[0], &["tail", "-n1", "/etc/infratrack/agent.toml"])?;
        ensure!(kept.trim() == "# edited", "the configuration was replaced");
    }
    let after = control.query("select count(*) from events")?;
    ensure!(
        after.parse::<u64>()? > before.parse()?,
        "no event of the upgrade"
    );
    load.stop(control)?;
    broken_upgrade(control)
}

/// A version that does not start leaves the one before in place, and ends the run.
fn broken_upgrade(control: &Control<'_>) -> anyhow::Result<()> {
    let broken = control.broken_package("infratrack-agent", "run")?;
    let recap = control.playbook(
        "lcm_upgrade",
        &format!("-e agent_file={broken} -e agent_verify_seconds=20 --limit infratrack_hosts"),
    )?;
    ensure!(!recap.is_good, "a broken version was taken");
    for host in HOSTS {
        control.has_version(host, "infratrack-agent", "0.1.0-1")?;
    }
    control.playbook("lcm_health_check", "")?.good().map(drop)
}

/// A host loses everything; an operator's word makes it the same host again. This time its packages come from a signed
/// repository, an upgrade too.
pub(crate) fn reinstalled(control: &Control<'_>, repository: &Repository) -> anyhow::Result<()> {
    let (host, name) = (HOSTS[2], "db1.example");
    let id = control.id(host)?;
    let hosts = || control.query("select count(*) from hosts");
    let before = hosts()?;
    control
        .playbook("remove", &format!("--limit {name}"))?
        .good()?;
    gone(control, host)?;
    // Its image's own sources can't be reached from here.
    control
        .rig
        .exec(host, &["rm", "-f", "/etc/apt/sources.list"])?;
    let variables = format!("--limit {name} {}", repository.variables());
    let old = format!("{variables} -e agent_host_id={id} -e agent_version=0.1.0-1");
    control.playbook("site", &old)?.good()?;
    ensure!(control.id(host)? == id, "it became another host");
    ensure!(hosts()? == before, "there is another host in the tables");
    pending_update(control, host, &id)?;
    control.playbook("lcm_upgrade", &variables)?.good()?;
    control.has_version(host, "infratrack-agent", "0.1.1-1")?;
    apt_refuses_changes(control, repository, host)
}

/// The unit of its own has asked apt, and the newer version that the repository has is a fact of the host.
fn pending_update(control: &Control<'_>, host: &str, id: &str) -> anyhow::Result<()> {
    let answer = "/run/infratrack-updates/apt.json";
    eventually(Duration::from_secs(60), || {
        control.rig.exec(host, &["test", "-s", answer]).map(drop)
    })?;
    let path = format!("/api/v1/hosts/{id}/commands");
    control.api("POST", &path, r#"{"action": "refresh_facts"}"#)?;
    let fact = format!(
        "select coalesce(body->>'pending', body::text)
         from facts where host_id = '{id}' and key = 'facts.updates'"
    );
    eventually(Duration::from_secs(60), || {
        let told = control.query(&fact)?;
        ensure!(told == "1", "the updates that are told: {told}");
        Ok(())
    })?;
    let told = control.rig.exec(host, &["cat", answer])?;
    ensure!(
        told.contains(r#""candidate":"0.1.1-1""#),
        "the answer: {told}"
    );
    Ok(())
}

/// After the removal of the fleet no file of it is left, and the last word of each host is that its agent was stopped.
/// The collector goes last, with what it collected.
pub(crate) fn removed(control: &Control<'_>) -> anyhow::Result<()> {
    let ids = HOSTS.iter().map(|host| control.id(host));
    let ids: Vec<_> = ids.collect::<anyhow::Result<_>>()?;
    control.playbook("remove", "")?.good()?;
    for (host, id) in HOSTS.iter().zip(ids) {
        gone(control, host)?;
        let last = format!(
            "select kind from events where host_id = '{id}' order by at desc, event_id desc limit 1"
        );
        eventually(Duration::from_secs(10), || {
            let kind = control.query(&last)?;
            ensure!(kind == "agent_stop", "the last word of {host} is {kind}");
            Ok(())
        })?;
    }
    let data = "-e '{\"infratrack_remove_collectors\": true, \"collector_remove_data\": true}'";
    control.playbook("remove", data)?.good()?;
    gone(control, COLLECTOR)
}

fn gone(control: &Control<'_>, host: &str) -> anyhow::Result<()> {
    let find = "find / -xdev -name '*infratrack*' -not -path '/proc/*' -not -path '/var/log/*' -not -path '/tmp/*' \
                -not -path '/var/cache/apt/*' | head";
    let left = control.rig.exec(host, &["sh", "-c", find])?;
    ensure!(left.trim().is_empty(), "{host} still has:\n{left}");
    Ok(())
}
