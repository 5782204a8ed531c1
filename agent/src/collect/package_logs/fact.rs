//! The fact `facts.package_logs`: which logs there are, which of them can't be read and why, and when each was written last.

use std::io::{Read, Seek, SeekFrom};

use infratrack_shared::time::UnixMillis;
use rmpv::Value;
use serde::Serialize;

use super::files::{LogFile, Packing, rotated};
use super::years::dated_last;
use super::zone::Zone;
use crate::collect::fact::to_value;
use crate::collect::{Reason, Root};
use crate::packages::log::Said;
use crate::packages::log::source::{Log, Source};

/// Of a log's end, in which its newest entry is looked for.
const END_BYTES: u64 = 256 * 1024;

#[derive(Serialize)]
struct Facts {
    logs: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    path: String,
    /// `read`, `missing`, or why it can't be read.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_at_ms: Option<i64>,
    /// What it was rotated to that is packed in a way that is not read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
}

/// Every log of every package manager that keeps one.
pub(in crate::collect) fn collect(root: &Root) -> Result<Value, Reason> {
    let zone = Zone::read(root);
    let logs = Source::ALL
        .map(Source::logs)
        .into_iter()
        .flatten()
        .flatten();
    let logs: Vec<_> = logs.map(|log| find(root, &zone, log)).collect();
    if logs.iter().all(|log| log.state == "missing") {
        return Err("no package manager of this host keeps a log".to_owned());
    }
    to_value(&Facts { logs })
}

fn find(root: &Root, zone: &Zone, mut log: Log) -> Found {
    let mut found = Found {
        path: format!("/{}", log.path),
        state: "read".to_owned(),
        newest_at_ms: None,
        unread: Vec::new(),
    };
    match newest(root, zone, &mut log) {
        Ok(newest) => found.newest_at_ms = newest,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "missing".clone_into(&mut found.state);
        }
        Err(error) => found.state = error.to_string(),
    }
    let rotated = rotated(root, log.path).into_iter();
    let unread = rotated.filter(|file| file.packing == Packing::Unread);
    found.unread = unread.map(|file| format!("/{}", file.path)).collect();
    found
}

/// The time of the last line that tells of a transaction: others are written whenever somebody only looks.
fn newest(root: &Root, zone: &Zone, log: &mut Log) -> std::io::Result<Option<i64>> {
    let file = LogFile::find(root, log.path)?;
    let (mut open, _) = root.open_file(log.path)?;
    open.seek(SeekFrom::Start(file.len.saturating_sub(END_BYTES)))?;
    let mut end = Vec::new();
    open.take(END_BYTES).read_to_end(&mut end)?;
    let mut said = Vec::new();
    for line in String::from_utf8_lossy(&end).lines() {
        log.parser.line(line, &mut said);
        // Only the last is asked for.
        said.retain(|(_, said)| *said != Said::Run);
        said.drain(..said.len().saturating_sub(1));
    }
    let newest = said.last();
    Ok(newest.map(|(stamp, _)| {
        let stamp = dated_last(*stamp, file.modified_ms);
        zone.at(stamp, None, UnixMillis(0))
    }))
}
