//! Volumes that are what a program writes, and those that another tool protects. Nothing doubtful is a backup: a program that fails,
//! is slow, or writes less than it should leaves no snapshot.

use std::path::Path;

use infratrack_shared::backup::{Content, Counted, Kind, Node};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::reason;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::chunks::{Chunks, Stopped};
use super::config::{Hook, Program};
use super::control::{Control, Failure};
use super::counted::{self, Counting};
use super::cut::Stream;
use super::process::{Ended, Input, Launch, Taker, keep_last};

/// Of what a tool writes, the end: its summary is there.
const SUMMARY_BYTES: usize = 256 * 1024;
const PIECE_BYTES: usize = 64 * 1024;
/// For its owner alone: what wrote it may have read what others may not.
const MODE: u32 = 0o600;

impl<C: Chunks> Taker for Stream<'_, C> {
    fn room(&mut self) -> &mut [u8] {
        self.room()
    }

    fn filled(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.filled(bytes)
    }
}

/// The end of what is written.
pub(super) struct Last {
    piece: Vec<u8>,
    pub(super) kept: Vec<u8>,
    most: usize,
}

impl Last {
    pub(super) fn of(most: usize) -> Self {
        Self {
            piece: vec![0; PIECE_BYTES],
            kept: Vec::new(),
            most,
        }
    }
}

impl Taker for Last {
    fn room(&mut self) -> &mut [u8] {
        &mut self.piece
    }

    fn filled(&mut self, bytes: usize) -> Result<(), Stopped> {
        keep_last(&mut self.kept, &self.piece[..bytes], self.most);
        Ok(())
    }
}

/// What a program wrote, when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// A tree of one file.
    pub(super) root: Content,
    pub(super) bytes: u64,
    /// Of a database, where that is to be checked.
    pub(super) counted: Option<Counted>,
}

/// Stores what a program writes. `last_bytes` is what it wrote the last time that all was well.
pub(super) async fn back_up<C: Chunks>(
    chunks: &mut C,
    control: &Control,
    (name, program): (&str, &Program),
    last_bytes: Option<u64>,
    now: UnixMillis,
) -> Result<Written, Failure> {
    let counting = Counting::begin(program).await;
    let argv = counted::argv_of(program, counting.as_ref());
    let mut cutter = Stream::new(chunks);
    let launch = Launch::from(program);
    let launch = launch.with(&argv, Input::Nothing);
    let ended = launch.run(control, &mut cutter).await?;
    succeeded(&ended, reason::EXIT_CODE)?;
    let bytes = cutter.size();
    enough(bytes, program, last_bytes)?;
    let counted = match counting {
        Some(counting) => counting.finish(control).await,
        None => None,
    };
    let mut stored = || -> Result<Content, Stopped> {
        let content = cutter.finish()?;
        let node = file(name, content, now).encode();
        cutter.tree(&node.map_err(|_| Stopped)?)
    };
    let root = stored().map_err(|stopped| {
        let cause = control.cause();
        cause.unwrap_or_else(|| Failure::of(reason::INTERNAL, stopped))
    })?;
    Ok(Written {
        root,
        bytes,
        counted,
    })
}

pub(super) fn succeeded(ended: &Ended, reason: &'static str) -> Result<(), Failure> {
    if ended.code == 0 {
        return Ok(());
    }
    let Ended { code, complaint } = ended;
    Err(Failure::new(
        reason,
        format!("it ended with {code}; {complaint}"),
    ))
}

fn enough(bytes: u64, program: &Program, last_bytes: Option<u64>) -> Result<(), Failure> {
    if bytes == 0 {
        let detail = "the program wrote nothing";
        return Err(Failure::new(reason::EMPTY_OUTPUT, detail));
    }
    if bytes < program.min_bytes {
        let detail = format!("it wrote {bytes} bytes, min_bytes is {}", program.min_bytes);
        return Err(Failure::new(reason::TOO_SMALL, detail));
    }
    let last = u128::from(last_bytes.unwrap_or_default());
    let least = last * u128::from(100 - program.max_shrink_percent.min(100));
    if u128::from(bytes) * 100 < least {
        let most = program.max_shrink_percent;
        let detail =
            format!("it wrote {bytes} bytes, {last} the last time; max_shrink_percent is {most}");
        return Err(Failure::new(reason::SHRUNK, detail));
    }
    Ok(())
}

fn file(name: &str, content: Content, now: UnixMillis) -> Node {
    Node {
        name: ByteBuf::from(name),
        kind: Kind::File,
        mode: MODE,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime_s: now.0.div_euclid(1000),
        mtime_ns: u32::try_from(now.0.rem_euclid(1000)).unwrap_or_default() * 1_000_000,
        content: Some(content),
        target: None,
        device: None,
        xattrs: Vec::new(),
        holes: Vec::new(),
        hard_link: None,
        torn: false,
    }
}

/// Runs a hook; why it failed is a failure of `reason`.
pub(super) async fn hook(
    control: &Control,
    hook: &Hook,
    reason: &'static str,
) -> Result<(), Failure> {
    let ended = Launch::from(hook).run(control, &mut Last::of(0)).await;
    match ended {
        Ok(ended) => succeeded(&ended, reason),
        // Who ended the run has said why.
        Err(failure) if control.cause().is_some() => Err(failure),
        Err(failure) => Err(Failure::new(reason, failure.to_string())),
    }
}

/// What another tool says that it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) new_bytes: u64,
}

/// Another tool's run: whether all is in it, and what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct External {
    pub(super) summary: Summary,
    /// What it complains of, where not all is in it.
    pub(super) incomplete: Option<String>,
}

/// Runs another tool.
pub(super) async fn external(control: &Control, program: &Program) -> Result<External, Failure> {
    let mut last = Last::of(SUMMARY_BYTES);
    let ended = Launch::from(program).run(control, &mut last).await?;
    let summary = summary(&last.kept).unwrap_or_default();
    let incomplete = is_warning(&program.argv, ended.code).then(|| {
        let Ended { code, complaint } = &ended;
        format!("it ended with {code}; {complaint}")
    });
    if incomplete.is_none() {
        succeeded(&ended, reason::EXTERNAL)?;
    }
    Ok(External {
        summary,
        incomplete,
    })
}

/// A code that says that there is a backup, but not of all. It may be wrapped: `nice`, `env`, `ionice`.
fn is_warning(argv: &[String], code: i32) -> bool {
    let names = argv.iter().filter_map(|word| Path::new(word).file_name());
    let tool = names
        .filter_map(|name| name.to_str())
        .find(|name| matches!(*name, "restic" | "borg"));
    match tool {
        Some("restic") => code == 3,
        // From 100 on they say which warning.
        Some(_) => matches!(code, 1 | 100..=127),
        None => false,
    }
}

/// The last line of `restic backup --json`.
#[derive(Deserialize)]
struct Restic {
    message_type: String,
    total_files_processed: u64,
    total_bytes_processed: u64,
    #[serde(default)]
    data_added: u64,
}

/// The document of `borg create --json`.
#[derive(Deserialize)]
struct Borg {
    archive: Archive,
}

#[derive(Deserialize)]
struct Archive {
    stats: Stats,
}

#[derive(Deserialize)]
struct Stats {
    nfiles: u64,
    original_size: u64,
    #[serde(default)]
    deduplicated_size: u64,
}

fn summary(output: &[u8]) -> Option<Summary> {
    if let Ok(Borg { archive }) = serde_json::from_slice(output) {
        return Some(Summary {
            files: archive.stats.nfiles,
            bytes: archive.stats.original_size,
            new_bytes: archive.stats.deduplicated_size,
        });
    }
    let lines = output.rsplit(|byte| *byte == b'\n');
    let mut parsed = lines.filter_map(|line| serde_json::from_slice::<Restic>(line).ok());
    let said = parsed.find(|said| said.message_type == "summary")?;
    Some(Summary {
        files: said.total_files_processed,
        bytes: said.total_bytes_processed,
        new_bytes: said.data_added,
    })
}

#[cfg(test)]
mod tests;
