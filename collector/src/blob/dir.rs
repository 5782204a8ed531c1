//! Objects as files below one directory.
//!
//! A body is written to a file beside the objects and synced, then linked to its name: a link never replaces
//! what is there, which a rename would. The directories up to the root are synced before `put` answers. Each
//! process writes below a directory of its own in `.tmp`, which it holds a lock on; what a crash left there
//! is removed by the next one that starts, and what a living process writes is left alone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use futures_util::{StreamExt, stream};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use uuid::Uuid;

use super::{Blob, BlobError, Body, Entry, Key, Put};

/// Where bodies are before they have their name; no key begins with a dot.
const TMP: &str = ".tmp";
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// A directory of objects.
#[derive(Debug)]
pub struct DirStore {
    root: PathBuf,
    /// This process's own part of `.tmp`.
    tmp: PathBuf,
    next_tmp: AtomicU64,
    /// Locked as long as this process lives.
    _lock: File,
}

impl DirStore {
    /// Opens the store in `root`, making it where it is missing, and removes what crashes left.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let all_tmp = root.join(TMP);
        make_dir(&all_tmp).map_err(file("make", &all_tmp))?;
        remove_leftovers(&all_tmp).map_err(file("clean", &all_tmp))?;
        let (tmp, lock) = own_dir(&all_tmp).map_err(file("lock a directory in", &all_tmp))?;
        Ok(Self {
            root: root.to_owned(),
            tmp,
            next_tmp: AtomicU64::new(0),
            _lock: lock,
        })
    }

    pub(super) async fn put(
        &self,
        key: &Key,
        size_bytes: u64,
        body: Body,
    ) -> Result<Put, BlobError> {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        let temporary = Temporary(self.tmp.join(number.to_string()));
        self.write(&temporary.0, key, size_bytes, body).await?;
        let (root, target) = (self.root.clone(), self.path(key));
        blocking(move || commit(&root, &temporary, &target)).await
    }

    /// Writes a body and has it on the disk.
    async fn write(
        &self,
        path: &Path,
        key: &Key,
        announced: u64,
        mut body: Body,
    ) -> Result<(), BlobError> {
        let mut options = tokio::fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .await
            .map_err(file("make", path))?;
        let length = || BlobError::Length {
            key: key.clone(),
            announced,
        };
        let mut left = announced;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|source| BlobError::Body {
                key: key.clone(),
                source,
            })?;
            left = left.checked_sub(chunk.len() as u64).ok_or_else(length)?;
            out.write_all(&chunk).await.map_err(file("write", path))?;
        }
        if left > 0 {
            return Err(length());
        }
        out.sync_all().await.map_err(file("sync", path))
    }

    pub(super) async fn find(&self, key: &Key) -> Result<Option<Blob>, BlobError> {
        let Some((file, size_bytes)) = self.open_object(key).await? else {
            return Ok(None);
        };
        let body = body_of(file);
        Ok(Some(Blob { size_bytes, body }))
    }

    pub(super) async fn find_size(&self, key: &Key) -> Result<Option<u64>, BlobError> {
        Ok(self
            .open_object(key)
            .await?
            .map(|(_, size_bytes)| size_bytes))
    }

    pub(super) async fn find_modified(
        &self,
        key: &Key,
    ) -> Result<Option<OffsetDateTime>, BlobError> {
        let path = self.path(key);
        match tokio::fs::metadata(&path).await.and_then(|m| m.modified()) {
            Err(error) if is_absent(&error) => Ok(None),
            modified => modified
                .map(|at| Some(at.into()))
                .map_err(file("read", &path)),
        }
    }

    pub(super) async fn find_range(
        &self,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Option<Blob>, BlobError> {
        let Some((mut file, size_bytes)) = self.open_object(key).await? else {
            return Ok(None);
        };
        if range.end > size_bytes {
            let key = key.clone();
            return Err(BlobError::Range { key, range });
        }
        let path = self.path(key);
        let moved = file.seek(SeekFrom::Start(range.start)).await;
        moved.map_err(self::file("read", &path))?;
        let size_bytes = range.end - range.start;
        let body = body_of(file.take(size_bytes));
        Ok(Some(Blob { size_bytes, body }))
    }

    /// An object's file and its size.
    async fn open_object(&self, key: &Key) -> Result<Option<(tokio::fs::File, u64)>, BlobError> {
        let path = self.path(key);
        let failed = file("read", &path);
        let opened = async {
            let file = tokio::fs::File::open(&path).await?;
            let metadata = file.metadata().await?;
            io::Result::Ok((file, metadata))
        };
        let (file, metadata) = match opened.await {
            Err(error) if is_absent(&error) => return Ok(None),
            other => other.map_err(failed)?,
        };
        // A directory is a prefix of keys, and no object.
        Ok(metadata.is_file().then_some((file, metadata.len())))
    }

    pub(super) async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Entry>, BlobError> {
        let (dir, name) = (self.path(prefix), prefix.as_str().to_owned());
        let after = after.map_or_else(String::new, |key| key.as_str().to_owned());
        blocking(move || {
            let mut found = Vec::new();
            walk(&dir, &name, &after, limit, &mut found).map_err(file("list", &dir))?;
            Ok(found)
        })
        .await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        let path = self.path(key);
        blocking(move || {
            match fs::remove_file(&path) {
                Err(error) if is_absent(&error) => return Ok(()),
                other => other.map_err(file("remove", &path))?,
            }
            sync_dir(path.parent().unwrap_or(&path)).map_err(file("sync", &path))
        })
        .await
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }
}

/// What is read, in chunks.
fn body_of(file: impl AsyncRead + Send + Unpin + 'static) -> Body {
    Box::pin(stream::try_unfold(file, |mut file| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = file.read_buf(&mut chunk).await?;
        io::Result::Ok((read > 0).then(|| (chunk.freeze(), file)))
    }))
}

impl Drop for DirStore {
    fn drop(&mut self) {
        // Empty, unless the process ends within a `put`: then the next one removes it.
        fs::remove_dir(&self.tmp).ok();
    }
}

/// A file that goes with its owner, whatever becomes of it.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Gives a synced body its name, for good.
fn commit(root: &Path, temporary: &Temporary, target: &Path) -> Result<Put, BlobError> {
    let parent = target.parent().unwrap_or(root);
    make_dir(parent).map_err(file("make", parent))?;
    let put = match fs::hard_link(&temporary.0, target) {
        Ok(()) => Put::Stored,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Put::Existed,
        Err(error) => return Err(file("make", target)(error)),
    };
    // Also where it existed: whoever made it a moment ago may not have come this far.
    for dir in parent.ancestors() {
        sync_dir(dir).map_err(file("sync", dir))?;
        if dir == root {
            break;
        }
    }
    Ok(put)
}

/// Adds what is below `dir` in the order of keys, in which a directory stands where its name and a slash do.
fn walk(
    dir: &Path,
    prefix: &str,
    after: &str,
    limit: usize,
    found: &mut Vec<Entry>,
) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_dir = entry.file_type()?.is_dir();
        names.push((format!("{name}{}", if is_dir { "/" } else { "" }), is_dir));
    }
    names.sort_unstable();
    for (name, is_dir) in names {
        if found.len() >= limit {
            return Ok(());
        }
        let key = format!("{prefix}/{name}");
        if is_dir {
            // Everything below it comes before `after`: not looked into.
            if *key < *after && !after.starts_with(&key) {
                continue;
            }
            walk(
                &dir.join(&name),
                key.trim_end_matches('/'),
                after,
                limit,
                found,
            )?;
        } else if *key > *after
            && let Ok(key) = Key::new(key)
        {
            match fs::metadata(dir.join(&name)) {
                Err(error) if is_absent(&error) => {}
                metadata => {
                    let metadata = metadata?;
                    found.push(Entry {
                        key,
                        size_bytes: metadata.len(),
                        modified_at: Some(metadata.modified()?.into()),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Removes the directories in `.tmp` that no living process holds.
fn remove_leftovers(all_tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all_tmp)? {
        let path = entry?.path();
        let Ok(dir) = File::open(&path) else {
            continue;
        };
        if dir.try_lock().is_ok() {
            match fs::remove_dir_all(&path) {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => tracing::info!(path = %path.display(), "removed what a crash had left"),
            }
        }
    }
    Ok(())
}

/// A fresh directory in `.tmp`, locked.
fn own_dir(all_tmp: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let path = all_tmp.join(Uuid::new_v4().simple().to_string());
        make_dir(&path)?;
        // Between these lines another process that starts may take it for a leftover: then another one.
        let Ok(lock) = File::open(&path) else {
            continue;
        };
        let ours = lock.try_lock().is_ok()
            && fs::metadata(&path).is_ok_and(|now| {
                lock.metadata()
                    .is_ok_and(|locked| now.ino() == locked.ino())
            });
        if ours {
            return Ok((path, lock));
        }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Nothing is there, or something that is no directory is where one would have to be.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::File {
        doing,
        path,
        source,
    }
}

/// Runs what waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
