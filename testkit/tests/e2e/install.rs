//! From nothing to a fleet that reports, by the words of the README.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::control::{Control, eventually, readme};
use crate::{COLLECTOR, HOSTS};

/// After the play's end, all hosts are healthy within this.
const HEALTHY: Duration = Duration::from_secs(60);

/// Lays the inventory and installs the collection, as the README says; runs what may change nothing.
pub(crate) fn check_mode(control: &Control<'_>) -> anyhow::Result<()> {
    let blocks = readme("Install")?;
    let inventory = blocks.iter().find(|(language, _)| language == "ini");
    fs::write(
        control.dir().join("inventory.ini"),
        &inventory.context("no inventory")?.1,
    )?;
    let install = blocks.first().context("no first block")?;
    control.run(&install.1)?;
    let recap = control
        .playbook("site", "--check --limit infratrack_collectors")?
        .good()?;
    ensure!(
        recap.sum("changed")? > 0,
        "nothing would be done:\n{}",
        recap.text
    );
    for path in ["/usr/bin/infratrack-collector", "/etc/infratrack"] {
        let there = control.rig.try_exec(COLLECTOR, &["test", "-e", path])?;
        ensure!(!there.status.success(), "check mode made {path}");
    }
    Ok(())
}

/// Runs every shell block, word for word, in order.
pub(crate) fn as_the_readme_says(control: &Control<'_>) -> anyhow::Result<()> {
    let mut said = String::new();
    for (language, code) in readme("Install")? {
        if language == "sh" {
            said = control.run(&code)?;
        }
    }
    logged_in(control, said.trim())
}

/// What the last block makes is a password to log in with.
fn logged_in(control: &Control<'_>, password: &str) -> anyhow::Result<()> {
    let ask = "import sys, urllib.parse as p, urllib.request as r\n\
        form = p.urlencode({'name': 'admin', 'password': sys.argv[1]}).encode()\n\
        opener = r.build_opener(r.HTTPCookieProcessor())\n\
        opener.open('http://127.0.0.1:8080/login', form, timeout=10)\n\
        print(opener.open('http://127.0.0.1:8080/hosts', timeout=10).url)";
    let page = control
        .rig
        .exec(COLLECTOR, &["python3", "-c", ask, password])?;
    ensure!(page.trim().ends_with("/hosts"), "not logged in: {page}");
    Ok(())
}

/// All hosts are healthy, with facts and the names they were given.
pub(crate) fn all_healthy(control: &Control<'_>) -> anyhow::Result<()> {
    for host in HOSTS {
        let id = control.id(host)?;
        eventually(HEALTHY, || {
            let shown = control.host(&id)?;
            ensure!(
                shown["status"] == "healthy",
                "{host} is not healthy: {shown}"
            );
            ensure!(shown["name"] == host, "{host} has another name: {shown}");
            let facts = control.query(&format!(
                "select count(*) from facts where host_id = '{id}'"
            ))?;
            ensure!(facts.parse::<u32>()? > 5, "{host} has {facts} facts");
            Ok(())
        })?;
    }
    let hosts = control.query("select count(*) from hosts")?;
    ensure!(hosts == "3", "{hosts} hosts in the tables");
    Ok(())
}

/// Nothing changes, in earnest or in check mode.
pub(crate) fn again(control: &Control<'_>) -> anyhow::Result<()> {
    for arguments in ["", "--check --limit collector.example,web1.example"] {
        let recap = control.playbook("site", arguments)?.good()?;
        ensure!(
            recap.sum("changed")? == 0,
            "something changed:\n{}",
            recap.text
        );
    }
    control.playbook("lcm_health_check", "")?.good()?;
    a_token_of_roots(control)
}

/// A file that only root can read is no obstacle, although the program goes on as the agent's user.
fn a_token_of_roots(control: &Control<'_>) -> anyhow::Result<()> {
    let enroll = "umask 077 && echo it_none > /root/token && \
                  exec infratrack-agent enroll --collector collector.example:8444 --token-file /root/token";
    let said = control.rig.try_exec(HOSTS[0], &["sh", "-ec", enroll])?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.contains("this host is enrolled as"), "{said}");
    Ok(())
}
