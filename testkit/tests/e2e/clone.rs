//! A disk is copied and both machines run: noticed, set apart, split, and each has what it reported.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::control::{Control, eventually};
use crate::{HOSTS, SPARE};

/// Two heartbeats of each, with time to start.
const NOTICED: Duration = Duration::from_secs(120);

/// The second host's disk goes to the spare machine.
pub(crate) fn is_set_apart(control: &Control<'_>) -> anyhow::Result<()> {
    let original = HOSTS[1];
    let id = control.id(original)?;
    for machine in [original, SPARE] {
        control.rig.run(&["kill", machine])?;
    }
    control.rig.run(&["clone", original, SPARE])?;
    // The original is the host again before the copy speaks.
    control.rig.run(&["start", original])?;
    eventually(NOTICED, || online(control, &id))?;
    control.rig.run(&["start", SPARE])?;
    let conflict = eventually(NOTICED, || open_conflict(control, &id))?;
    let address = |side: &str| {
        conflict[format!("{side}_address")]
            .as_str()
            .map(str::to_owned)
    };
    ensure!(
        address("kept") == control.address(original)?.into(),
        "the wrong one kept the host: {conflict}"
    );
    ensure!(
        address("clone") == control.address(SPARE)?.into(),
        "{conflict}"
    );
    let shown = control.host(&id)?;
    ensure!(shown["status"] == "unhealthy", "not a word of it: {shown}");

    let path = format!(
        "/api/v1/hosts/{id}/conflicts/{}/split",
        conflict["id"].as_str().context("no id")?
    );
    control.api("POST", &path, "")?;
    let hidden = conflict["hidden_host_id"]
        .as_str()
        .context("no hidden id")?;
    eventually(NOTICED, || {
        ensure!(control.id(SPARE)? == hidden, "the copy is not told yet");
        ensure!(control.id(original)? == id, "the host became another");
        online(control, hidden)?;
        online(control, &id)
    })?;
    for (side, owner) in [("kept", id.as_str()), ("clone", hidden)] {
        let instance = conflict[format!("{side}_instance")].as_str();
        starts_are_under(control, instance.context("no instance")?, owner)?;
    }
    Ok(())
}

fn online(control: &Control<'_>, id: &str) -> anyhow::Result<()> {
    let shown = control.host(id)?;
    ensure!(shown["liveness"] == "online", "not online: {shown}");
    Ok(())
}

fn open_conflict(control: &Control<'_>, id: &str) -> anyhow::Result<Value> {
    let conflicts = control.api("GET", &format!("/api/v1/hosts/{id}/conflicts"), "")?;
    let newest = conflicts["items"].get(0).context("no conflict")?;
    ensure!(newest["state"] == "open", "{newest}");
    Ok(newest.clone())
}

/// The start of a run is an event of this host, and of no other.
fn starts_are_under(control: &Control<'_>, instance: &str, id: &str) -> anyhow::Result<()> {
    let hosts = control.query(&format!(
        "select string_agg(host_id::text, ',') from events
         where kind = 'agent_start' and body->>'instance' = '{instance}'"
    ))?;
    ensure!(
        hosts == id,
        "the start of {instance} is stored under {hosts:?}, not {id}"
    );
    Ok(())
}
