//! `facts.local`: the operator's own facts, `facts.d/*.json`, each under its file's stem.
//!
//! The files are somebody else's: each is opened so that it cannot hang (no FIFO, no device), read
//! to a limit, and checked for size, depth and count. A broken one says so under its own name, with
//! the line, and harms no other. Nothing outside the directory is read through a link.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use rmpv::Value;
use serde_json::Value as Json;

use super::Reason;
use super::fact::{to_value, unknown};

const FILE_BYTES: u64 = 64 * 1024;
const FILES: usize = 64;
const DEPTH: usize = 16;
/// Values in all files together, well inside what one message may hold.
const ITEMS: usize = 50_000;
const SUFFIX: &str = ".json";
/// Where the body says that files were left out; no stem is called so.
const LEFT_OUT: &str = "*";

/// The body of `facts.local`.
pub(super) fn collect(directory: &Path) -> Result<Value, Reason> {
    let place = |error: io::Error| format!("{}: {error}", directory.display());
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        // Nobody has to have facts of their own.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Value::Map(Vec::new())),
        Err(error) => return Err(place(error)),
    };
    let directory = directory.canonicalize().map_err(place)?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(SUFFIX) && !name.starts_with('.') && name != "*.json")
        .collect();
    names.sort_unstable();
    let mut body = Vec::new();
    let mut items_left = ITEMS;
    for name in names.iter().take(FILES) {
        let stem = name.strip_suffix(SUFFIX).unwrap_or(name);
        let value = read(&directory, name, &mut items_left)
            .unwrap_or_else(|reason| unknown(&format!("{name}: {reason}")));
        body.push((stem.into(), value));
    }
    if names.len() > FILES {
        let reason = format!(
            "{} files; only the first {FILES} by name are read",
            names.len()
        );
        body.push((LEFT_OUT.into(), unknown(&reason)));
    }
    Ok(Value::Map(body))
}

fn read(directory: &Path, name: &str, items_left: &mut usize) -> Result<Value, Reason> {
    let mut bytes = Vec::new();
    open(directory, name)?
        .take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(format!("larger than {} KiB", FILE_BYTES / 1024));
    }
    // Its errors name line and column, and not what stands there.
    let json: Json = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let items = count(&json, DEPTH)?;
    *items_left = items_left
        .checked_sub(items)
        .ok_or_else(|| format!("more than {ITEMS} values with the files before it"))?;
    to_value(&json)
}

fn open(directory: &Path, name: &str) -> Result<File, Reason> {
    let path = directory.join(name);
    // Links inside the directory are how Kubernetes lays out mounted configuration.
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    if !path.starts_with(directory) {
        return Err("a link out of the directory".to_owned());
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    // Looked at before it is opened, because opening a device may act; after it, because only
    // then it can't be exchanged any more.
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    let file = is_file
        .then(|| {
            OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits())
                .open(&path)
        })
        .transpose()
        .map_err(|error| error.to_string())?;
    file.filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
        .ok_or_else(|| "not a regular file".to_owned())
}

/// How many values there are; an error where they are nested too deep.
fn count(json: &Json, depth_left: usize) -> Result<usize, Reason> {
    let mut inner: Box<dyn Iterator<Item = &Json>> = match json {
        Json::Array(values) => Box::new(values.iter()),
        Json::Object(entries) => Box::new(entries.values()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return Ok(1),
    };
    let depth_left = depth_left
        .checked_sub(1)
        .ok_or_else(|| format!("nested deeper than {DEPTH}"))?;
    let keys = json.as_object().map_or(0, serde_json::Map::len);
    inner.try_fold(1 + keys, |sum, value| Ok(sum + count(value, depth_left)?))
}

#[cfg(test)]
mod tests;
