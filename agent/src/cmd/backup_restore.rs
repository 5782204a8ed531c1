//! `infratrack-agent backup restore`, `ls`, `dump` and `verify`: from a copy of the bucket and one recovery identity alone.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail, ensure};
use infratrack_agent::backup::chunks::Meter;
use infratrack_agent::backup::keys::Recovery;
use infratrack_agent::backup::restore::{self, Bucket, Fetcher, KeySources, Options, Restored};
use infratrack_agent::backup::run;
use infratrack_agent::cli::{BackupFrom, ReadBackup};
use infratrack_shared::backup::{Content, Kind, Node};
use infratrack_shared::ids::{SnapshotId, VolumeId};

/// Fails where anything is not whole.
pub(crate) fn read(command: &ReadBackup) -> anyhow::Result<()> {
    match command {
        ReadBackup::Restore {
            from,
            paths,
            to,
            in_place,
            devices,
        } => {
            let options = Options {
                paths: paths.clone(),
                has_devices: *devices,
            };
            let opened = Opened::open(from)?;
            prepare(to, *in_place)?;
            let meter = Meter::default();
            let restored = restore::restore(opened.fetcher(), opened.root(), to, &options, &meter)?;
            said("restored", &restored, &meter)
        }
        ReadBackup::Ls { from, paths } => {
            let options = Options {
                paths: paths.clone(),
                ..Options::default()
            };
            let opened = Opened::open(from)?;
            let mut each = |path: &[u8], node: &Node| super::print(&line(path, node));
            let listed = restore::list(opened.fetcher(), opened.root(), &options, &mut each)?;
            named(&listed)
        }
        ReadBackup::Dump { from, path } => {
            let opened = Opened::open(from)?;
            let mut out = BufWriter::new(io::stdout().lock());
            let path = path.as_ref().map(|path| path.as_os_str());
            restore::dump(opened.fetcher(), opened.root(), path, &mut out)?;
            Ok(())
        }
        ReadBackup::Verify { from } => {
            let opened = Opened::open(from)?;
            let wrong = opened.bucket.check_packs();
            for (path, what) in &wrong {
                tracing::error!("{}: {what}", path.display());
            }
            let (meter, options) = (Meter::default(), Options::default());
            let verified = restore::verify(opened.fetcher(), opened.root(), &options, &meter)?;
            said("verified", &verified, &meter)?;
            ensure!(wrong.is_empty(), "{} packs are damaged", wrong.len());
            Ok(())
        }
    }
}

/// A snapshot, and what is needed to read it.
struct Opened {
    bucket: Bucket,
    snapshot: restore::Opened,
}

impl Opened {
    fn open(from: &BackupFrom) -> anyhow::Result<Self> {
        let bucket = Bucket::open(&from.from, volume(from)?)?;
        for (path, what) in bucket.damaged() {
            tracing::warn!("{}: {what}", path.display());
        }
        let id = match from.snapshot.as_str() {
            "latest" => bucket.latest()?,
            id => id.parse().context("a snapshot is a UUID or `latest`")?,
        };
        let keys = KeySources {
            recovery: Some(Recovery::of_file(&from.identity)?),
            ..KeySources::own(Path::new(run::STATE_DIR), bucket.volume())
        };
        let key = |id| keys.find(id, || bucket.wrapped_key(id));
        let snapshot = restore::Opened::open(&bucket, bucket.volume(), id, key)?;
        let total = snapshot.manifest.errors_total;
        if total > 0 {
            tracing::warn!("snapshot {id} is incomplete: {total} things could not be read");
        }
        Ok(Self { bucket, snapshot })
    }

    fn fetcher(&self) -> Fetcher<'_> {
        self.snapshot.fetcher(&self.bucket)
    }

    fn root(&self) -> &Content {
        &self.snapshot.manifest.root
    }
}

/// The one that is named, or the one that has the snapshot, or the only one.
fn volume(from: &BackupFrom) -> anyhow::Result<VolumeId> {
    let volumes = Bucket::volumes(&from.from)?;
    if let Some(volume) = from.volume {
        return Ok(volume);
    }
    if let Ok(id) = from.snapshot.parse::<SnapshotId>() {
        let path = |volume: &VolumeId| format!("backups/{volume}/snapshots/{id}");
        let mut with = volumes.iter().copied();
        let found = with.find(|volume| from.from.join(path(volume)).exists());
        return found.with_context(|| format!("no volume has snapshot {id}"));
    }
    match volumes.as_slice() {
        [] => bail!("there is no volume in {}", from.from.display()),
        [volume] => Ok(*volume),
        many => bail!("there are {} volumes: name one by --volume", many.len()),
    }
}

fn prepare(to: &Path, is_in_place: bool) -> anyhow::Result<()> {
    let made = std::fs::create_dir_all(to).and_then(|()| to.canonicalize());
    let real = made.with_context(|| format!("cannot make {}", to.display()))?;
    ensure!(
        real != Path::new("/") || is_in_place,
        "refusing to write over this host's own files: pass --in-place for that"
    );
    Ok(())
}

fn line(path: &[u8], node: &Node) -> String {
    let kind = match node.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::Char => 'c',
        Kind::Block => 'b',
    };
    let content = node.content.as_ref().filter(|_| node.kind == Kind::File);
    let size = content.map_or(0, |content| content.size);
    let time = jiff::Timestamp::from_second(node.mtime_s).unwrap_or_default();
    // Names are anybody's: they move no cursor.
    let path = String::from_utf8_lossy(path);
    let path = path.escape_debug();
    let (mode, uid, gid) = (node.mode, node.uid, node.gid);
    format!("{kind}{mode:04o} {uid:>5} {gid:>5} {size:>12} {time} {path}")
}

fn said(what: &str, done: &Restored, meter: &Meter) -> anyhow::Result<()> {
    let (files, bytes) = (done.files, done.bytes);
    let read = meter.bytes.load(Ordering::Relaxed);
    let mut text = format!("{what} {files} files of {bytes} bytes; {read} bytes were read");
    if done.left > 0 {
        text = format!("{text}; {} files were there already", done.left);
    }
    if done.skipped > 0 {
        text = format!("{text}; {} devices were not made", done.skipped);
    }
    writeln!(io::stdout(), "{text}")?;
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
