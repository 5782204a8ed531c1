//! What is backed up: files of this machine, what does not compress, logs, pages as a database writes them, and
//! files that are there twice. All but the first is the same at each run.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

const MIB: u64 = 1 << 20;
/// The parts of 1,024 that each kind has; files of this machine have what is left.
const RANDOM: u64 = 192;
const LOGS: u64 = 192;
const PAGES: u64 = 160;
const TWICE: u64 = 32;
const HERE: u64 = 448;
/// The size of one made file, and of a page in it.
const FILE: u64 = 4 * MIB;
const PAGE: usize = 8192;
/// What one mutation does: a new file, files that grow by a piece, pages of a database that are written anew.
const NEW_BYTES: u64 = 2 * MIB;
const APPENDED: usize = 16;
const APPENDED_BYTES: u64 = 256 * 1024;
const WRITTEN_PAGES: usize = 48;

/// How large it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    pub files: u64,
    pub bytes: u64,
}

/// Makes one of about `mib` MiB below `root`.
pub fn make(root: &Path, mib: u64) -> anyhow::Result<Size> {
    let files_of = |parts: u64| (parts * mib * MIB / 1024).div_ceil(FILE);
    for kind in ["random", "logs", "pages", "twice"] {
        fs::create_dir_all(root.join(kind))?;
    }
    for number in 0..files_of(RANDOM) {
        fs::write(
            named(root, "random", number),
            noise("random", number, FILE)?,
        )?;
        if number < files_of(TWICE) {
            fs::copy(named(root, "random", number), named(root, "twice", number))?;
        }
    }
    for number in 0..files_of(LOGS) {
        fs::write(named(root, "logs", number), log(number, FILE)?)?;
    }
    for number in 0..files_of(PAGES) {
        fs::write(named(root, "pages", number), pages(number)?)?;
    }
    copy_here(&root.join("usr"), HERE * mib * MIB / 1024)?;
    let digests = digests(root)?;
    let bytes = digests.values().map(|(bytes, _)| bytes).sum();
    let files = u64::try_from(digests.len())?;
    Ok(Size { files, bytes })
}

/// Changes some 7 MiB: a new file, logs that grow, pages that are written anew. Answers the bytes.
pub fn mutate(root: &Path, round: u64) -> anyhow::Result<u64> {
    let name = format!("new-{round}");
    fs::write(
        root.join("random").join(&name),
        noise(&name, round, NEW_BYTES)?,
    )?;
    let mut changed = NEW_BYTES;
    for path in some(&root.join("logs"))?.iter().take(APPENDED) {
        let lines = log(1000 + round, APPENDED_BYTES)?;
        changed += u64::try_from(lines.len())?;
        OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(&lines)?;
    }
    let files = some(&root.join("pages"))?;
    for (number, path) in files.iter().cycle().take(WRITTEN_PAGES).enumerate() {
        let number = u64::try_from(number)?;
        let all = FILE / u64::try_from(PAGE)?;
        let at = (number * 97 + round * 31) % all * u64::try_from(PAGE)?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&page(round * 1000 + number)?, at)?;
        changed += u64::try_from(PAGE)?;
    }
    Ok(changed)
}

/// The size and hash of every file below, by its path from there.
pub fn digests(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, (u64, blake3::Hash)>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in some(&folder)? {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = fs::read(&path)?;
            let name = path.strip_prefix(root)?.to_owned();
            let size = u64::try_from(content.len())?;
            found.insert(name, (size, blake3::hash(&content)));
        }
    }
    Ok(found)
}

/// Regular files of `/usr`, in the order of their names, until there are so many bytes.
fn copy_here(to: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut left = bytes;
    let mut folders = vec![PathBuf::from("/usr")];
    while let Some(folder) = folders.pop() {
        for path in some(&folder)? {
            let kind = fs::symlink_metadata(&path)?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            if !kind.is_file() || kind.len() > left {
                continue;
            }
            let copy = to.join(path.strip_prefix("/usr")?);
            fs::create_dir_all(copy.parent().context("a file is in a folder")?)?;
            fs::copy(&path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
            left -= kind.len();
        }
    }
    Ok(())
}

/// What is in a folder, in order.
fn some(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn named(root: &Path, kind: &str, number: u64) -> PathBuf {
    root.join(kind).join(format!("{number:04}"))
}

fn noise(kind: &str, number: u64, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut noise = vec![0; usize::try_from(bytes)?];
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut noise);
    Ok(noise)
}

/// Lines of a web server's log.
fn log(number: u64, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let bytes = usize::try_from(bytes)?;
    let random = noise("log", number, 256 * 1024)?;
    let mut log = Vec::with_capacity(bytes + 256);
    for (line, random) in random.chunks_exact(8).cycle().enumerate() {
        if log.len() >= bytes {
            break;
        }
        let [a, b, c, d, ..] = *random else { continue };
        let (minute, second) = (line / 3600 % 60, line / 60 % 60);
        let size = u32::from(a) * 256 + u32::from(b) + u32::try_from(line % 251)?;
        writeln!(
            log,
            "10.{a}.{b}.{c} - - [21/Nov/2026:10:{minute:02}:{second:02} +0000] \"GET /item/{size}/{line} HTTP/1.1\" 200 {size} \"-\" \"Mozilla/5.0 ({d})\""
        )?;
    }
    Ok(log)
}

fn pages(number: u64) -> anyhow::Result<Vec<u8>> {
    let count = FILE / u64::try_from(PAGE)?;
    let mut pages = Vec::with_capacity(usize::try_from(FILE)?);
    for page_number in 0..count {
        pages.extend(page(1_000_000 + number * count + page_number)?);
    }
    Ok(pages)
}

/// A header, rows of few values that repeat, and a third that is free.
fn page(number: u64) -> anyhow::Result<Vec<u8>> {
    let random = noise("page", number, 1024)?;
    let mut page = Vec::with_capacity(PAGE);
    page.extend(number.to_le_bytes());
    for (row, random) in random.chunks_exact(16).enumerate() {
        page.extend(number.to_le_bytes());
        page.extend(u64::try_from(row)?.to_le_bytes());
        page.extend(random);
        page.extend(b"customer\0active\0EUR\0some text that many rows have\0");
    }
    page.resize(PAGE, 0);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::{digests, make, mutate};

    #[test]
    fn a_corpus_is_as_large_as_asked_and_a_mutation_changes_a_hundredth() {
        let dir = tempfile::tempdir().unwrap();
        let size = make(dir.path(), 64).unwrap();
        let mib = size.bytes >> 20;
        assert!((56..=80).contains(&mib), "{size:?}");
        let before = digests(dir.path()).unwrap();
        let changed = mutate(dir.path(), 1).unwrap();
        let after = digests(dir.path()).unwrap();
        let differ = after
            .iter()
            .filter(|(path, digest)| before.get(*path) != Some(*digest));
        assert!((6..=12).contains(&differ.count()));
        assert!((3..=7).contains(&(changed >> 20)), "{changed}");
    }
}
