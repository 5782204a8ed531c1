//! `infratrack-agent backup restore`, `ls`, `dump` and `verify`: from the collector, or from a copy of the bucket and one recovery
//! identity alone.

mod opened;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use infratrack_agent::backup::chunks::Meter;
use infratrack_agent::backup::config::{self, Allowed};
use infratrack_agent::backup::restore::{self, Options, RestoreError, Restored};
use infratrack_agent::backup::run::Host;
use infratrack_agent::cli::{Backup, ReadBackup};
use infratrack_shared::backup::{Kind, Node, Unread};
use serde_json::json;

use self::opened::Opened;
use super::backup::{Shown, line};

const SHOWN: Duration = Duration::from_secs(1);

/// Fails where anything is not whole. `host` is who asks a collector, where one is asked.
pub(crate) fn run(
    host: Option<&Host>,
    arguments: &Backup,
    command: &ReadBackup,
) -> anyhow::Result<()> {
    let opened = Opened::open(host, arguments, command.from())?;
    match command {
        ReadBackup::Restore {
            paths,
            to,
            in_place,
            devices,
            ..
        } => {
            let options = Options {
                paths: paths.clone(),
                has_devices: *devices,
                allowed: prepare(to, *in_place, arguments)?,
                ..Options::default()
            };
            let meter = Meter::default();
            let restored = watched(&opened, &options, &meter, arguments.json, || {
                restore::restore(opened.fetcher(), opened.root(), to, &options, &meter)
            })?;
            said("restored", &opened, &restored, arguments.json)
        }
        ReadBackup::Ls { paths, .. } => ls(&opened, paths, arguments.json),
        ReadBackup::Dump { path, .. } => {
            let mut out = BufWriter::new(io::stdout().lock());
            let path = path.as_ref().map(|path| path.as_os_str());
            restore::dump(opened.fetcher(), opened.root(), path, &mut out)?;
            Ok(())
        }
        ReadBackup::Verify { .. } => {
            let wrong = opened.check_packs();
            for (path, what) in &wrong {
                tracing::error!("{path}: {what}");
            }
            let (meter, options) = (Meter::default(), Options::default());
            let verified = watched(&opened, &options, &meter, arguments.json, || {
                restore::verify(opened.fetcher(), opened.root(), &options, &meter)
            })?;
            said("verified", &opened, &verified, arguments.json)?;
            ensure!(wrong.is_empty(), "{} packs are damaged", wrong.len());
            Ok(())
        }
    }
}

/// Makes the directory, and says what in it may be written where it is this host's own root.
fn prepare(
    to: &Path,
    is_in_place: bool,
    arguments: &Backup,
) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let made = std::fs::create_dir_all(to).and_then(|()| to.canonicalize());
    let real = made.with_context(|| format!("cannot make {}", to.display()))?;
    if real != Path::new("/") {
        return Ok(None);
    }
    ensure!(
        is_in_place,
        "refusing to write over this host's own files: pass --in-place for that"
    );
    let path = arguments.backup_config.as_deref();
    let path = path.unwrap_or(Path::new(config::DEFAULT_PATH));
    let allowed = Allowed::load(path).context("what may be written in place stands there")?;
    Ok(Some(allowed.allowed_paths))
}

/// Shows how far `work` is, where somebody looks.
fn watched<T: Send>(
    opened: &Opened,
    options: &Options,
    meter: &Meter,
    is_json: bool,
    work: impl FnOnce() -> Result<T, RestoreError> + Send,
) -> Result<T, RestoreError> {
    if is_json || !io::stderr().is_terminal() {
        return work();
    }
    let is_all = options.paths.is_empty();
    let expected = is_all.then_some(opened.snapshot.head.bytes);
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (begun, shown) = (Instant::now(), Shown::default());
            while ended.recv_timeout(SHOWN) == Err(RecvTimeoutError::Timeout) {
                let files = meter.files.load(Ordering::Relaxed);
                let bytes = meter.bytes.load(Ordering::Relaxed);
                let read = opened.read_bytes();
                let read = format!("{} read", super::backup::size(read));
                shown.show(&line((files, bytes), &read, expected, begun.elapsed()));
            }
            writeln!(io::stderr()).ok();
        });
        let done = work();
        drop(end);
        done
    })
}

fn ls(opened: &Opened, paths: &[String], is_json: bool) -> anyhow::Result<()> {
    let options = Options {
        paths: paths.to_vec(),
        ..Options::default()
    };
    let mut each = |path: &[u8], node: &Node| {
        let entry = if is_json {
            document(path, node)
        } else {
            entry(path, node)
        };
        super::print(&entry);
    };
    let listed = restore::list(opened.fetcher(), opened.root(), &options, &mut each)?;
    named(&listed)
}

fn content_bytes(node: &Node) -> u64 {
    let content = node.content.as_ref().filter(|_| node.kind == Kind::File);
    content.map_or(0, |content| content.size)
}

fn entry(path: &[u8], node: &Node) -> String {
    let kind = match node.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::Char => 'c',
        Kind::Block => 'b',
    };
    let size = content_bytes(node);
    let time = jiff::Timestamp::from_second(node.mtime_s).unwrap_or_default();
    // Names are anybody's: they move no cursor.
    let path = String::from_utf8_lossy(path);
    let path = path.escape_debug();
    let (mode, uid, gid) = (node.mode, node.uid, node.gid);
    format!("{kind}{mode:04o} {uid:>5} {gid:>5} {size:>12} {time} {path}")
}

/// One line of JSON.
fn document(path: &[u8], node: &Node) -> String {
    let time = jiff::Timestamp::from_second(node.mtime_s).unwrap_or_default();
    let document = json!({
        "path": String::from_utf8_lossy(path),
        "kind": node.kind,
        "mode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "size": content_bytes(node),
        "modified_at": time.to_string(),
    });
    document.to_string()
}

fn said(what: &str, opened: &Opened, done: &Restored, is_json: bool) -> anyhow::Result<()> {
    let (snapshot, read) = (opened.snapshot.head.snapshot_id, opened.read_bytes());
    if is_json {
        let error = |error: &Unread| json!({"path": error.path, "what": error.what});
        let errors: Vec<_> = done.errors.iter().map(error).collect();
        let document = json!({
            "volume": opened.snapshot.head.volume_id.to_string(),
            "snapshot": snapshot.to_string(),
            "files": done.files,
            "bytes": done.bytes,
            "read_bytes": read,
            "files_left": done.left,
            "devices_skipped": done.skipped,
            "errors": errors,
            "errors_total": done.errors_total,
        });
        super::print(&document.to_string());
    } else {
        let (files, bytes) = (done.files, done.bytes);
        let mut text = format!(
            "{what} {files} files of {bytes} bytes of snapshot {snapshot}; {read} bytes were read"
        );
        if done.left > 0 {
            text = format!("{text}; {} files were there already", done.left);
        }
        if done.skipped > 0 {
            text = format!("{text}; {} devices were not made", done.skipped);
        }
        super::print(&text);
    }
    named(done)
}

fn named(done: &Restored) -> anyhow::Result<()> {
    for error in &done.errors {
        tracing::error!("{}: {}", error.path.escape_debug(), error.what);
    }
    let total = done.errors_total;
    ensure!(total == 0, "{total} entries are not there, or not whole");
    Ok(())
}
