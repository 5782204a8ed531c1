//! Volumes of a host that really boots are backed up when somebody asks at the collector: files that only root may read, and what a
//! program writes, by the unit and not by the agent.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::control::{Control, eventually};

/// A busy machine runs five hosts here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Public keys of nobody: what is sealed for them stays so.
const RECIPIENTS: [&str; 2] = [
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
];

/// Asked for, done, and told.
pub(crate) fn are_made(control: &Control<'_>, host: &str) -> anyhow::Result<()> {
    let [first, second] = RECIPIENTS;
    let allowed = format!(
        "cat > /etc/infratrack/backup.toml <<'END'\n\
         recipients = [\"{first}\", \"{second}\"]\n\
         allowed_paths = [\"/etc\"]\n\
         [programs.services]\nargv = [\"/bin/cat\", \"/etc/services\"]\n\
         END\n"
    );
    control.rig.exec(host, &["sh", "-ec", &allowed])?;
    let id = control.id(host)?;
    let mut volumes = Vec::new();
    for (name, source) in [
        ("etc", json!({"files": {"paths": ["/etc"]}})),
        ("services", json!({"command": {"program": "services"}})),
        ("srv", json!({"files": {"paths": ["/srv"]}})),
    ] {
        let volume = json!({"host_id": id, "name": name, "source": source, "rpo_s": 3600});
        let made = control.api("POST", "/api/v1/volumes", &volume.to_string())?;
        let id = made["id"].as_str().context("a volume has an id")?;
        volumes.push(id.to_owned());
    }
    let asked = json!({"host": id}).to_string();
    control.api("POST", "/api/v1/backup-runs", &asked)?;
    let wanted = [("ok", "ok"), ("ok", "ok"), ("failing", "failed")];
    for (volume, (status, state)) in volumes.iter().zip(wanted) {
        let path = format!("/api/v1/volumes/{volume}");
        eventually(PATIENCE, || {
            let shown = control.api("GET", &path, "")?;
            let is_so = shown["status"] == status && shown["last_state"] == state;
            ensure!(is_so, "{shown}");
            Ok(())
        })?;
    }
    // What root did not allow is not read.
    let path = format!("/api/v1/backup-runs?volume={}", volumes[2]);
    let runs = control.api("GET", &path, "")?;
    ensure!(runs["items"][0]["reason"] == "path_not_allowed", "{runs}");
    let path = format!("/api/v1/volumes/{}/snapshots", volumes[0]);
    let kept = control.api("GET", &path, "")?;
    let files = kept["items"][0]["snapshot"]["files"].as_i64();
    ensure!(files.is_some_and(|files| files > 100), "{kept}");
    let keys = control
        .rig
        .exec(host, &["infratrack-agent", "backup", "--json", "keys"])?;
    let keys: Value = serde_json::from_str(&keys)?;
    ensure!(keys.to_string().contains(first), "{keys}");
    Ok(())
}
