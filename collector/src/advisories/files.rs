//! Where documents of advisories are found, and how they are unpacked: a file, the files of a folder, an object of S3;
//! plain, or packed by gzip or zip.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use flate2::read::MultiGzDecoder;
use infratrack_shared::digest::Digest;
use zip::ZipArchive;

use super::documents::{self, Format, Refused, Sink};
use crate::aws::s3::{self, Object};
use crate::config::s3::S3;

/// Of a folder, or of one zip.
const MOST_FILES: usize = 400_000;
/// An object is held in memory while it is read.
const OBJECT_BYTES: usize = 256 * 1024 * 1024;
/// For an object.
const READ: Duration = Duration::from_secs(300);
/// What documents are called, packed or not.
const ENDS: [&str; 5] = [".json", ".jsonl", ".ndjson", ".xml", ".oval"];

/// A feed's documents, and by what it is seen that they have changed.
#[derive(Debug)]
pub(super) enum Found {
    Files {
        paths: Vec<PathBuf>,
        fingerprint: String,
    },
    Object {
        name: String,
        fingerprint: String,
        /// None: it is the one that is known.
        bytes: Option<Vec<u8>>,
    },
}

/// The documents at a path. Blocks.
pub(super) fn find(path: &Path) -> anyhow::Result<Found> {
    let about =
        std::fs::metadata(path).with_context(|| format!("cannot find {}", path.display()))?;
    let mut paths = Vec::new();
    if about.is_dir() {
        let entries = std::fs::read_dir(path);
        let entries = entries.with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            let path = entry?.path();
            if is_document(&path.to_string_lossy()) {
                paths.push(path);
            }
            ensure!(
                paths.len() <= MOST_FILES,
                "{} has more than {MOST_FILES} files",
                path_of(&paths)
            );
        }
        ensure!(!paths.is_empty(), "{} has no documents", path.display());
        paths.sort();
    } else {
        paths.push(path.to_owned());
    }
    let mut seen = String::new();
    for path in &paths {
        let about = std::fs::metadata(path);
        let about = about.with_context(|| format!("cannot find {}", path.display()))?;
        let changed = about.modified().ok();
        let changed = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let _ = writeln!(seen, "{} {} {changed:?}", path.display(), about.len());
    }
    let fingerprint = format!("{:?}", Digest::of(seen.as_bytes()));
    Ok(Found::Files { paths, fingerprint })
}

fn path_of(paths: &[PathBuf]) -> String {
    let parent = paths.first().and_then(|path| path.parent());
    parent.map_or_else(String::new, |path| path.display().to_string())
}

/// The object, unless it is the one that is `known`.
pub(super) async fn find_object(
    settings: &S3,
    object: Object,
    known: Option<&str>,
) -> anyhow::Result<Found> {
    let fingerprint = s3::fingerprint(settings, &object).await?;
    let bytes = if known == Some(fingerprint.as_str()) {
        None
    } else {
        let bytes = s3::read_within(settings, &object, OBJECT_BYTES, READ).await?;
        ensure!(
            bytes.len() <= OBJECT_BYTES,
            "{object} has more than {OBJECT_BYTES} bytes"
        );
        Some(bytes)
    };
    Ok(Found::Object {
        name: object.to_string(),
        fingerprint,
        bytes,
    })
}

/// Whether a name is one of a document, packed or not.
fn is_document(name: &str) -> bool {
    let name = name.to_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let is_hidden = Path::new(&name)
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_zip = Path::new(&name).extension().is_some_and(|end| end == "zip");
    !is_hidden && (is_zip || ENDS.iter().any(|end| plain.ends_with(end)))
}

impl Found {
    pub(super) fn fingerprint(&self) -> &str {
        match self {
            Self::Files { fingerprint, .. } | Self::Object { fingerprint, .. } => fingerprint,
        }
    }

    /// Reads every document. Blocks.
    pub(super) fn read(&self, format: Format, sink: &mut Sink<'_>) -> anyhow::Result<()> {
        match self {
            Self::Files { paths, .. } => {
                for path in paths {
                    let name = path.display().to_string();
                    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
                    document(format, &name, file, sink).with_context(|| name)?;
                }
                Ok(())
            }
            Self::Object { name, bytes, .. } => {
                let bytes = bytes.as_deref().unwrap_or_default();
                document(format, name, Cursor::new(bytes), sink).with_context(|| name.clone())
            }
        }
    }
}

fn document(
    format: Format,
    name: &str,
    mut from: impl Read + Seek,
    sink: &mut Sink<'_>,
) -> anyhow::Result<()> {
    let mut first = Vec::new();
    Read::by_ref(&mut from).take(6).read_to_end(&mut first)?;
    from.seek(SeekFrom::Start(0))?;
    match first.as_slice() {
        [0x1f, 0x8b, ..] => documents::read(format, MultiGzDecoder::new(from), sink)?,
        [b'P', b'K', 3, 4, ..] => archive(format, name, from, sink)?,
        [b'B', b'Z', b'h', ..] => bail!("is packed by bzip2, which is not read here: unpack it"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            bail!("is packed by xz, which is not read here: unpack it")
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            bail!("is packed by zstd, which is not read here: unpack it")
        }
        _ => documents::read(format, from, sink)?,
    }
    Ok(())
}

fn archive(
    format: Format,
    name: &str,
    from: impl Read + Seek,
    sink: &mut Sink<'_>,
) -> anyhow::Result<()> {
    let mut archive = ZipArchive::new(from).context("is no zip that can be read")?;
    ensure!(
        archive.len() <= MOST_FILES,
        "has more than {MOST_FILES} files"
    );
    for index in 0..archive.len() {
        let entry = archive.by_index(index);
        let entry = entry.with_context(|| format!("has a file that can't be unpacked: {index}"))?;
        let place = entry.name().context("has a file without a name")?;
        let place = place.into_owned();
        let is_packed = Path::new(&place)
            .extension()
            .is_some_and(|end| end == "zip" || end == "gz");
        if !entry.is_file() || !is_document(&place) || is_packed {
            continue;
        }
        documents::read(format, entry, sink).map_err(|refused| {
            Refused::at(
                format!("{place} in {name}, {}", refused.place),
                refused.detail,
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const RECORD: &str = r#"{"id":"CVE-2024-1","affected":[{"package":{"ecosystem":"Debian:12","name":"tool"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}"#;

    /// How many statements a file has.
    fn read(name: &str, bytes: &[u8]) -> anyhow::Result<usize> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join(name), bytes)?;
        let found = find(directory.path())?;
        let mut take = |_| Ok(());
        let mut sink = Sink::new(&mut take);
        found.read(Format::Osv, &mut sink)?;
        Ok(sink.statements)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(*name, options).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn documents_are_unpacked_and_what_is_no_document_is_passed_over() {
        assert_eq!(read("a.json", RECORD.as_bytes()).unwrap(), 1);
        assert_eq!(read("a.json.gz", &gzip(RECORD.as_bytes())).unwrap(), 1);
        let archive = zipped(&[
            ("one.json", RECORD.as_bytes()),
            ("README", b"no"),
            ("two.json", RECORD.as_bytes()),
        ]);
        assert_eq!(read("all.zip", &archive).unwrap(), 2);
        assert!(
            read("README", b"no")
                .unwrap_err()
                .to_string()
                .ends_with("has no documents")
        );
    }

    #[test]
    fn what_cannot_be_unpacked_is_named_with_its_place() {
        let said = |name: &str, bytes: &[u8]| format!("{:#}", read(name, bytes).unwrap_err());
        assert!(said("a.json", b"BZh91AY").contains("a.json: is packed by bzip2"));
        assert!(said("a.json", b"\xfd7zXZ\0").contains("packed by xz"));
        assert!(said("all.zip", b"PK\x03\x04nothing").contains("is no zip"));
        let archive = zipped(&[("one.json", b"{}")]);
        assert!(said("all.zip", &archive).contains("one.json in"));
        let mut cut = gzip(&RECORD.repeat(100).into_bytes());
        cut.truncate(cut.len() / 2);
        assert!(said("a.json.gz", &cut).contains("a.json.gz"));
    }

    #[test]
    fn a_bomb_is_given_up_at_the_limit_of_a_record() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(b"{\"id\":\"").unwrap();
        let block = vec![b'x'; 1024 * 1024];
        for _ in 0..=documents::RECORD_BYTES / (1024 * 1024) {
            packed.write_all(&block).unwrap();
        }
        let bomb = packed.finish().unwrap();
        let said = format!("{:#}", read("a.json.gz", &bomb).unwrap_err());
        assert!(said.contains("one record has more than"), "{said}");
    }
}
