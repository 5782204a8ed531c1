//! Objects by their keys, as a bucket has them: here in a directory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::source::SourceError;

/// Has objects. What it answers is believed in nothing.
pub trait Objects: Send + Sync {
    /// The names between a prefix, which ends with `/`, and the next `/`.
    fn folders(&self, prefix: &str) -> Result<Vec<String>, SourceError>;

    /// All keys with a prefix that ends with `/`, in their order, and how long the objects are.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, SourceError>;

    /// The whole of an object, or its first `limit` bytes.
    fn get(&self, key: &str, limit: usize) -> Result<Vec<u8>, SourceError>;

    /// These bytes of an object, all of them.
    fn range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, SourceError>;

    /// How people find it.
    fn name(&self, key: &str) -> String;
}

/// A directory that is laid out as a bucket is.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    pub fn new(root: &Path) -> Self {
        let root = root.to_owned();
        Self { root }
    }

    fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(PathBuf) -> io::Result<T>,
    ) -> Result<T, SourceError> {
        read(self.root.join(key)).map_err(|source| SourceError::Unreadable {
            what: self.name(key),
            source,
        })
    }
}

impl Objects for Folder {
    fn folders(&self, prefix: &str) -> Result<Vec<String>, SourceError> {
        let found = self.read(prefix, |dir| entries(&dir))?;
        let folders = found.into_iter().filter(|(_, size)| size.is_none());
        Ok(folders.map(|(name, _)| name).collect())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let mut folders = vec![prefix.to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for (name, size) in self.read(&folder, |dir| entries(&dir))? {
                match size {
                    Some(size) => found.push((format!("{folder}{name}"), size)),
                    None => folders.push(format!("{folder}{name}/")),
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn get(&self, key: &str, limit: usize) -> Result<Vec<u8>, SourceError> {
        self.read(key, |path| {
            let mut bytes = Vec::new();
            let file = File::open(path)?;
            file.take(limit as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        })
    }

    fn range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        self.read(key, |path| {
            let length = range.end.saturating_sub(range.start);
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            File::open(path)?.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        })
    }

    fn name(&self, key: &str) -> String {
        self.root.join(key).display().to_string()
    }
}

/// What is in a directory: names, and the sizes of files.
fn entries(dir: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A key is text.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // A copy may be made of symlinks.
        let stat = fs::metadata(entry.path())?;
        found.push((name, stat.is_file().then_some(stat.len())));
    }
    Ok(found)
}
