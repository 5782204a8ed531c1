//! What apt does on a host that really boots is on its timeline at once, with who did it and by which command; and what it
//! has left to install is known.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::control::{Control, eventually};
use crate::repository::Repository;

/// A package of the test's own.
const NAME: &str = "infratrack-tool";
/// What the operator waits for at most on a host that is not busy; a busy one gets more.
const SOON: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// Installed, upgraded, downgraded, held and removed, by a user who became root.
pub(crate) fn are_told(
    control: &Control<'_>,
    repository: &Repository,
    host: &str,
) -> anyhow::Result<()> {
    publish(control, repository, host)?;
    let id = control.id(host)?;
    let apt = |words: &str| format!("DEBIAN_FRONTEND=noninteractive apt-get -y -q {words}");
    let steps = [
        (
            apt(&format!("install {NAME}=1.0")),
            format!("Installed {NAME} 1.0"),
        ),
        (
            apt(&format!("install {NAME}")),
            format!("Upgraded {NAME} 1.0 → 2.0"),
        ),
        (
            apt(&format!("install --allow-downgrades {NAME}=1.0")),
            format!("Downgraded {NAME} 2.0 → 1.0"),
        ),
        (format!("apt-mark hold {NAME}"), format!("Held {NAME} 1.0")),
    ];
    for (command, title) in &steps {
        told(control, host, &id, command, title)?;
    }
    left_to_install(control, &id)?;
    let remove = apt(&format!("remove --allow-change-held-packages {NAME}"));
    told(control, host, &id, &remove, &format!("Removed {NAME} 1.0"))
}

/// Two versions, in a directory that the repository's server serves too.
fn publish(control: &Control<'_>, repository: &Repository, host: &str) -> anyhow::Result<()> {
    let served = repository.path("tool");
    let build = format!(
        "mkdir -p {served} && cd {served}\n\
         for version in 1.0 2.0; do\n\
         mkdir -p $version/DEBIAN\n\
         printf 'Package: {NAME}\\nVersion: %s\\nArchitecture: all\\nMaintainer: Test <test@test.example>\\nDescription: none\\n' \
             $version > $version/DEBIAN/control\n\
         dpkg-deb -b --root-owner-group $version {NAME}_${{version}}_all.deb && rm -r $version\n\
         done\n\
         apt-ftparchive packages . > Packages",
        served = served.display()
    );
    control.run(&build)?;
    let source = format!(
        "echo 'deb [trusted=yes] {} ./' > /etc/apt/sources.list.d/tool.list && apt-get update -q",
        repository.url("tool/")
    );
    control.rig.exec(host, &["sh", "-ec", &source]).map(drop)
}

/// Runs the command as the user of the playbooks, and finds it on the timeline.
#[expect(clippy::print_stderr, reason = "how long it took is what was asked")]
fn told(
    control: &Control<'_>,
    host: &str,
    id: &str,
    command: &str,
    title: &str,
) -> anyhow::Result<()> {
    let as_user = format!("runuser -u ops -- sudo -n env {command}");
    control.rig.exec(host, &["sh", "-ec", &as_user])?;
    let done = Instant::now();
    let path = format!("/api/v1/hosts/{id}/timeline?kinds=package");
    let item = eventually(PATIENCE, || {
        let timeline = control.api("GET", &path, "")?;
        let items = timeline["items"].as_array().context("no items")?;
        let found = items.iter().find(|item| item["title"] == title);
        found.cloned().with_context(|| {
            let titles: Vec<&Value> = items.iter().map(|item| &item["title"]).collect();
            format!("no {title} among {titles:?}")
        })
    })?;
    let took = done.elapsed();
    eprintln!(
        "{title}: on the timeline {:.1} s after the command",
        took.as_secs_f32()
    );
    if took > SOON {
        eprintln!("that is longer than {} s", SOON.as_secs());
    }
    // No log tells who holds what.
    if !command.starts_with("apt-mark") {
        let words = command.rsplit("-q ").next().unwrap_or(command);
        let detail = item["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains(words), "{title} has no command: {item}");
        ensure!(item["by"] == "ops", "{title} was done by {}", item["by"]);
    }
    Ok(())
}

/// The newer version is pending, and held.
fn left_to_install(control: &Control<'_>, id: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/hosts/{id}/updates");
    eventually(PATIENCE, || {
        let updates = control.api("GET", &path, "")?;
        let items = updates["items"].as_array().context("no items")?;
        let found = items.iter().find(|item| item["name"] == NAME);
        let update = found.with_context(|| format!("no update of it: {updates}"))?;
        ensure!(
            update["candidate"] == "2.0" && update["blocked_why"] == "held",
            "{update}"
        );
        Ok(())
    })
}
