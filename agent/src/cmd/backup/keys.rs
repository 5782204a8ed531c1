//! `infratrack-agent backup keys`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, bail};
use infratrack_agent::backup::config::Allowed;
use infratrack_agent::backup::keys::{Held, Keys, Recipient};
use infratrack_agent::backup::run::Host;
use infratrack_agent::cli::BackupKeys;
use infratrack_shared::ids::VolumeId;
use serde_json::json;

use super::find;
use crate::cmd::print;

/// Where the host's log listens.
const LOG: &str = "/dev/log";
/// A notice about who may do what (RFC 5424: facility 10, severity 5).
const NOTICE: u8 = 10 * 8 + 5;

/// Prints the host's keys, or wraps one.
pub(super) fn run(host: &Host, asked: &BackupKeys, is_json: bool) -> anyhow::Result<()> {
    match &asked.wrap_for {
        Some(recipient) => wrap(host, asked, recipient),
        None => list(host, is_json),
    }
}

fn wrap(host: &Host, asked: &BackupKeys, recipient: &Recipient) -> anyhow::Result<()> {
    let keys = keys_of(host, asked.volume.as_deref())?;
    let held = choose(&keys, host, asked.key_id.as_deref())?;
    let text = keys.wrap_for(&held, recipient)?;
    // Said before anybody has it.
    let (volume, id) = (keys.volume(), held.wrapped.id);
    audit(&format!(
        "the key {id} of volume {volume} is wrapped for {recipient}"
    ));
    if let Some(path) = &asked.output {
        return write(path, &text).with_context(|| format!("cannot write {}", path.display()));
    }
    print(text.trim_end());
    Ok(())
}

/// Of the volume that is named, or of the only one.
fn keys_of(host: &Host, volume: Option<&str>) -> anyhow::Result<Keys> {
    let Some(volume) = volume else {
        let all = Keys::of_all(&host.state_dir)?;
        let [keys] = <[Keys; 1]>::try_from(all).map_err(|all| {
            anyhow::anyhow!("this host has keys of {} volumes: name one", all.len())
        })?;
        return Ok(keys);
    };
    let id: VolumeId = match volume.parse() {
        Ok(id) => id,
        Err(_) => find(host, volume)?.id,
    };
    Ok(Keys::of(&host.state_dir, id))
}

/// The key that is named, or the only one, or the one in use.
fn choose(keys: &Keys, host: &Host, wanted: Option<&str>) -> anyhow::Result<Held> {
    let mut all = keys.all()?;
    let volume = keys.volume();
    if let Some(wanted) = wanted {
        let named = all
            .into_iter()
            .find(|held| held.wrapped.id.to_string() == wanted);
        return named.with_context(|| format!("this host has no key {wanted} of volume {volume}"));
    }
    if all.len() > 1 {
        let recipients = Allowed::load(&host.allowed)?.recovery();
        all.retain(|held| recipients.as_deref().is_some_and(|now| held.is_for(now)));
    }
    match <[Held; 1]>::try_from(all) {
        Ok([held]) => Ok(held),
        Err(none) if none.is_empty() && keys.all()?.is_empty() => {
            bail!("this host has no key of volume {volume}")
        }
        Err(_) => bail!("volume {volume} has several keys: pass one as --key-id"),
    }
}

/// For its reader alone, and never in place of another file.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Into the host's log, with who did it; where there is none, to standard error.
fn audit(what: &str) {
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    let login = login.trim();
    let (process, user) = (std::process::id(), nix::unistd::getuid());
    let line =
        format!("<{NOTICE}>infratrack-agent[{process}]: {what} by uid {user}, login uid {login}");
    let said = UnixDatagram::unbound().and_then(|socket| socket.send_to(line.as_bytes(), LOG));
    if let Err(error) = said {
        tracing::warn!(%error, "the host's log does not have it: {what}");
    }
}

fn list(host: &Host, is_json: bool) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for keys in Keys::of_all(&host.state_dir)? {
        for held in keys.all()? {
            let (id, recipients) = (held.wrapped.id, held.wrapped.recipients);
            all.push((keys.volume(), id, recipients));
        }
    }
    if is_json {
        let document = |(volume, id, recipients): &(_, _, Vec<String>)| json!({"volume": format!("{volume}"), "key": format!("{id}"), "recipients": recipients});
        let documents: Vec<_> = all.iter().map(document).collect();
        print(&serde_json::to_string(&documents)?);
        return Ok(());
    }
    for (volume, id, recipients) in all {
        print(&format!("{volume}  {id}  {}", recipients.join(", ")));
    }
    Ok(())
}
