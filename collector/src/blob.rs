//! Objects that are too big for rows, or that must outlive the database: written once, never changed.
//!
//! An object is there whole or not at all, and once `put` has answered it survives power loss. A key names
//! one content for ever: a second `put` of it changes nothing. [`s3`] is the store of collectors that share one
//! database, [`dir`] that of one alone; what calls this does not know which one it has.

pub mod dir;
pub mod s3;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::stream::{self, BoxStream};
use thiserror::Error;
use time::OffsetDateTime;

use crate::aws::s3::S3Error;
use crate::config::Config;
use dir::DirStore;
use s3::{S3Store, Writing};

/// The longest key, in bytes: S3 takes 1024, of which a bucket may want a prefix.
const KEY_BYTES: usize = 768;
/// The longest part between two slashes, in bytes: `NAME_MAX` of Linux is 255.
const PART_BYTES: usize = 200;

/// Why an object was not stored, read or removed.
#[derive(Debug, Error)]
pub enum BlobError {
    #[error("{0:?} is no key: parts of letters, digits, '-', '_' and '.', none beginning with '.'")]
    Key(String),
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error("the body of {key} broke off")]
    Body { key: Key, source: io::Error },
    #[error("the body of {key} has not the {announced} bytes that were announced")]
    Length { key: Key, announced: u64 },
    #[error("{key} has {size_bytes} bytes, more than the {limit} that are taken")]
    TooLarge {
        key: Key,
        size_bytes: u64,
        limit: usize,
    },
    #[error("{key} has no bytes {} to {}", range.start, range.end)]
    Range { key: Key, range: Range<u64> },
    #[error(
        "{key} is there with {found:?} bytes, and not with the {size_bytes} that it is to have"
    )]
    NotWhole {
        key: Key,
        size_bytes: u64,
        /// `None`: it is not there.
        found: Option<u64>,
    },
}

/// The name of an object: parts between slashes, safe as a path and as a URL as it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Cow<'static, str>);

impl Key {
    /// Checks a name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, BlobError> {
        let name = name.into();
        let part = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty()
                && part.len() <= PART_BYTES
                && !part.starts_with('.')
                && part.bytes().all(plain)
        };
        if name.len() <= KEY_BYTES && name.split('/').all(part) {
            Ok(Self(name))
        } else {
            Err(BlobError::Key(name.into_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bytes of an object as they come.
pub type Body = BoxStream<'static, io::Result<Bytes>>;

/// What `put` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Stored,
    /// An object of this name was there before; it was left as it is.
    Existed,
}

/// An object, to be read.
pub struct Blob {
    pub size_bytes: u64,
    pub body: Body,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.size_bytes)
    }
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub size_bytes: u64,
    /// When it was put, by the store's clock; `None`: it does not say.
    pub modified_at: Option<OffsetDateTime>,
}

/// What a bucket does beyond keeping objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Honours {
    /// It refuses an object that is not what its checksum says.
    pub checksums: bool,
    /// It keeps the versions of objects.
    pub versions: bool,
    /// How new objects are locked: `COMPLIANCE for 30 days`.
    pub object_lock: Option<String>,
}

/// The objects of one fleet.
#[derive(Debug)]
pub enum BlobStore {
    Dir(DirStore),
    S3(S3Store),
}

impl BlobStore {
    /// The store that is configured: a bucket of S3, or the directory below the data directory. A bucket is not asked
    /// for anything yet: one that is away stops no collector.
    pub async fn open(config: &Config) -> Result<Self, BlobError> {
        if config.s3.bucket.is_empty() {
            return DirStore::open(&config.data_dir.join("blobs")).map(Self::Dir);
        }
        let client = crate::aws::s3::client(&config.s3).await?;
        let (bucket, prefix) = (config.s3.bucket.clone(), config.s3.prefix.clone());
        let writing = Writing::of(&config.s3);
        Ok(Self::S3(S3Store::new(client, bucket, &prefix, writing)))
    }

    /// Stores an object of exactly `size_bytes` where there is none of this name. With S3, `Existed` is said too where the
    /// answer to a first try was lost: who needs to know whose object it is reads it.
    pub async fn put(&self, key: &Key, size_bytes: u64, body: Body) -> Result<Put, BlobError> {
        match self {
            Self::Dir(dir) => dir.put(key, size_bytes, body).await,
            Self::S3(s3) => s3.put(key, size_bytes, body).await,
        }
    }

    /// Stores an object that is at hand.
    pub async fn put_bytes(&self, key: &Key, bytes: Bytes) -> Result<Put, BlobError> {
        let size_bytes = bytes.len() as u64;
        match self {
            Self::Dir(dir) => {
                let body = stream::once(std::future::ready(Ok(bytes)));
                dir.put(key, size_bytes, Box::pin(body)).await
            }
            // Not gathered from a stream: that would have them in memory twice.
            Self::S3(s3) => s3.put_bytes(key, bytes).await,
        }
    }

    /// Stores an object whose name tells its content: when this answers, it is there with all its bytes, whoever stored it.
    pub async fn put_whole(&self, key: &Key, bytes: Bytes) -> Result<Put, BlobError> {
        let size_bytes = bytes.len() as u64;
        let put = match self {
            Self::Dir(_) => self.put_bytes(key, bytes).await?,
            Self::S3(s3) => s3.put_named(key, bytes).await?,
        };
        if put == Put::Existed {
            let found = self.find_size(key).await?;
            if found != Some(size_bytes) {
                return Err(BlobError::NotWhole {
                    key: key.clone(),
                    size_bytes,
                    found,
                });
            }
        }
        Ok(put)
    }

    /// What the bucket honours, as seen by the object `key`, and by another whose name begins with it and that does not stay;
    /// `None`: it is a directory.
    pub async fn honours(&self, key: &Key) -> Result<Option<Honours>, BlobError> {
        match self {
            Self::Dir(_) => Ok(None),
            Self::S3(s3) => s3.honours(key).await.map(Some),
        }
    }

    /// How many bytes the object of this name has.
    pub async fn find_size(&self, key: &Key) -> Result<Option<u64>, BlobError> {
        match self {
            Self::Dir(dir) => dir.find_size(key).await,
            Self::S3(s3) => s3.find_size(key).await,
        }
    }

    /// When the object of this name was put, by the store's clock.
    pub async fn find_modified(&self, key: &Key) -> Result<Option<OffsetDateTime>, BlobError> {
        match self {
            Self::Dir(dir) => dir.find_modified(key).await,
            Self::S3(s3) => s3.find_modified(key).await,
        }
    }

    /// The object of this name.
    pub async fn find(&self, key: &Key) -> Result<Option<Blob>, BlobError> {
        match self {
            Self::Dir(dir) => dir.find(key).await,
            Self::S3(s3) => s3.find(key).await,
        }
    }

    /// These bytes of the object of this name, all of them: a range that is empty or not within the object is an error.
    pub async fn find_range(
        &self,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Option<Blob>, BlobError> {
        if range.is_empty() {
            let key = key.clone();
            return Err(BlobError::Range { key, range });
        }
        match self {
            Self::Dir(dir) => dir.find_range(key, range).await,
            Self::S3(s3) => s3.find_range(key, range).await,
        }
    }

    /// The object of this name, whole; one above `limit` bytes is an error.
    pub async fn find_bytes(&self, key: &Key, limit: usize) -> Result<Option<Bytes>, BlobError> {
        let Some(Blob { size_bytes, body }) = self.find(key).await? else {
            return Ok(None);
        };
        if size_bytes > limit as u64 {
            return Err(BlobError::TooLarge {
                key: key.clone(),
                size_bytes,
                limit,
            });
        }
        let bytes = body.try_fold(BytesMut::new(), |mut all, chunk| {
            all.extend_from_slice(&chunk);
            std::future::ready(Ok(all))
        });
        let bytes = bytes.await.map_err(|source| BlobError::Body {
            key: key.clone(),
            source,
        })?;
        Ok(Some(bytes.freeze()))
    }

    /// The first `limit` objects below `prefix` (a whole part or several) whose keys come after `after`,
    /// in the order of their keys' bytes.
    pub async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Entry>, BlobError> {
        match self {
            Self::Dir(dir) => dir.list(prefix, after, limit).await,
            Self::S3(s3) => s3.list(prefix, after, limit).await,
        }
    }

    /// Removes an object, where there is one.
    pub async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        match self {
            Self::Dir(dir) => dir.delete(key).await,
            Self::S3(s3) => s3.delete(key).await,
        }
    }
}
