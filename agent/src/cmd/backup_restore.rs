//! `infratrack-agent backup restore`, `ls`, `dump` and `verify`: from a copy of the bucket and one recovery identity alone.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail, ensure};
use infratrack_agent::backup::chunks::Meter;
use infratrack_agent::backup::restore::{
    Bucket, Fetcher, Identities, Options, Restored, Source, dump, list, restore, verify,
};
use infratrack_agent::cli::{BackupFrom, ReadBackup};
use infratrack_shared::backup::{Head, Kind, Manifest, Node, VolumeKey};
use infratrack_shared::ids::{SnapshotId, VolumeId};

/// Fails where anything is not whole.
pub(crate) fn run(command: &ReadBackup) -> anyhow::Result<()> {
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
            let restored = restore(
                opened.fetcher(),
                &opened.manifest.root,
                to,
                &options,
                &meter,
            )?;
            said("restored", &restored, &meter)
        }
        ReadBackup::Ls { from, paths } => {
            let options = Options {
                paths: paths.clone(),
                ..Options::default()
            };
            let opened = Opened::open(from)?;
            let root = &opened.manifest.root;
            let listed = list(opened.fetcher(), root, &options, &mut |path, node| {
                super::print(&line(path, node));
            })?;
            named(&listed)
        }
        ReadBackup::Dump { from, path } => {
            let opened = Opened::open(from)?;
            let mut out = BufWriter::new(io::stdout().lock());
            let path = path.as_ref().map(|path| path.as_os_str());
            dump(opened.fetcher(), &opened.manifest.root, path, &mut out)?;
            Ok(())
        }
        ReadBackup::Verify { from } => {
            let opened = Opened::open(from)?;
            let wrong = opened.bucket.check_packs();
            for (path, what) in &wrong {
                tracing::error!("{}: {what}", path.display());
            }
            let (meter, options) = (Meter::default(), Options::default());
            let root = &opened.manifest.root;
            let verified = verify(opened.fetcher(), root, &options, &meter)?;
            said("verified", &verified, &meter)?;
            ensure!(wrong.is_empty(), "{} packs are damaged", wrong.len());
            Ok(())
        }
    }
}

/// A snapshot, and what is needed to read it.
struct Opened {
    bucket: Bucket,
    key: VolumeKey,
    manifest: Manifest,
}

impl Opened {
    fn open(from: &BackupFrom) -> anyhow::Result<Self> {
        let identities = Identities::of_file(&from.identity)?;
        let bucket = Bucket::open(&from.from, volume(from)?)?;
        for (path, what) in bucket.damaged() {
            tracing::warn!("{}: {what}", path.display());
        }
        let id = match from.snapshot.as_str() {
            "latest" => bucket.latest()?,
            id => id.parse().context("a snapshot is a UUID or `latest`")?,
        };
        let bytes = bucket.snapshot(id)?;
        let head = Head::of_snapshot(&bytes).with_context(|| format!("snapshot {id}"))?;
        ensure!(
            (head.volume_id, head.snapshot_id) == (bucket.volume(), id),
            "the object of snapshot {id} is snapshot {} of volume {}",
            head.snapshot_id,
            head.volume_id
        );
        let key = bucket.key(head.key_id, &identities)?;
        let (_, manifest) =
            Manifest::open(&bytes, &key).with_context(|| format!("snapshot {id}"))?;
        if manifest.errors_total > 0 {
            let total = manifest.errors_total;
            tracing::warn!("snapshot {id} is incomplete: {total} things could not be read");
        }
        Ok(Self {
            bucket,
            key,
            manifest,
        })
    }

    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            source: &self.bucket,
            key: &self.key,
            volume: self.bucket.volume(),
        }
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
