//! Objects in a bucket of S3, or of a server that speaks its protocol.
//!
//! An object goes up in one request, whole and from memory, so that a retry sends the same again, and with
//! `If-None-Match: *`, so that of several collectors one stores it and nobody replaces it. Every call has a time limit and
//! its tries are counted; docs/blobs.md says what a bucket must let a collector do.

use std::io;
use std::ops::Range;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use md5::{Digest, Md5};
use time::OffsetDateTime;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::{Blob, BlobError, Body, Entry, Honours, Key, Put};
use crate::aws::s3::{S3Error, at_rate, limits};
use crate::config::s3::{Checksums, S3};

/// The largest object: it is in memory while it is sent. A pack of a backup has half of it.
pub const OBJECT_BYTES: usize = 64 * 1024 * 1024;
/// Beyond what its size takes, the body of an object is read within this.
const BODY: Duration = Duration::from_secs(10);
/// Keys in a page at most; S3 has no larger ones.
const PAGE: i32 = 1000;
/// A CRC32 that few objects have.
const ZEROS: &str = "AAAAAA==";
/// Versions of an object that are removed at once.
const VERSIONS: u32 = 10;
/// Tries of a `put` that others race for.
const TRIES: u32 = 4;

/// A bucket's objects below a prefix.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// With its slash, or empty.
    prefix: String,
    writing: Writing,
}

/// What objects are written with.
#[derive(Clone, Debug, Default)]
pub struct Writing {
    pub encryption: Option<ServerSideEncryption>,
    pub kms_key_id: Option<String>,
    /// Of packs of backups.
    pub storage_class: Option<StorageClass>,
    /// The SDK sends no checksum of its own; a bucket with Object Lock wants one.
    pub with_md5: bool,
}

impl Writing {
    /// As it is configured.
    pub fn of(settings: &S3) -> Self {
        let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let encryption = set(&settings.encryption);
        let class = set(&settings.storage_class);
        Self {
            encryption: encryption.map(|name| ServerSideEncryption::from(name.as_str())),
            kms_key_id: set(&settings.kms_key_id),
            storage_class: class.map(|name| StorageClass::from(name.as_str())),
            with_md5: settings.checksums == Checksums::WhenRequired,
        }
    }
}

/// How an object is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Where there is none of this name.
    New,
    /// Likewise, and its name tells its content: where S3 knows no conditions, it may be written twice.
    Named,
    /// Its name tells its content, and S3 knows no conditions.
    Again,
}

impl S3Store {
    /// The objects of `bucket` below `prefix`, which may be empty.
    pub fn new(client: Client, bucket: String, prefix: &str, writing: Writing) -> Self {
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Self {
            client,
            bucket,
            prefix,
            writing,
        }
    }

    fn key(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// As it is said in errors.
    fn place(&self, key: &Key) -> String {
        format!("s3://{}/{}{key}", self.bucket, self.prefix)
    }

    pub(super) async fn put(
        &self,
        key: &Key,
        size_bytes: u64,
        body: Body,
    ) -> Result<Put, BlobError> {
        let bytes = gather(key, size_bytes, body).await?;
        self.put_bytes(key, bytes).await
    }

    pub(super) async fn put_bytes(&self, key: &Key, bytes: Bytes) -> Result<Put, BlobError> {
        self.put_how(key, bytes, How::New).await
    }

    /// An object whose name tells its content.
    pub(super) async fn put_named(&self, key: &Key, bytes: Bytes) -> Result<Put, BlobError> {
        self.put_how(key, bytes, How::Named).await
    }

    async fn put_how(&self, key: &Key, bytes: Bytes, mut how: How) -> Result<Put, BlobError> {
        if bytes.len() > OBJECT_BYTES {
            return Err(too_large(key, bytes.len() as u64));
        }
        let mut tries = 1;
        loop {
            let error = match self.put_once(key, bytes.clone(), how).await {
                Ok(()) => return Ok(Put::Stored),
                Err(error) => error,
            };
            match error.code() {
                Some("PreconditionFailed") => return Ok(Put::Existed),
                Some("NotImplemented") if how == How::Named => {
                    if self.find_size(key).await?.is_some() {
                        return Ok(Put::Existed);
                    }
                    how = How::Again;
                    continue;
                }
                // Another one is under way; how it ends decides, and the next try sees it.
                Some("ConditionalRequestConflict" | "OperationAborted") if tries < TRIES => {}
                _ => return Err(S3Error::of("store", self.place(key), &error).into()),
            }
            sleep(Duration::from_millis(rand::random_range(50..200)) * tries).await;
            tries += 1;
        }
    }

    async fn put_once(
        &self,
        key: &Key,
        bytes: Bytes,
        how: How,
    ) -> Result<(), SdkError<PutObjectError>> {
        let limits = limits(bytes.len() as u64);
        let writing = &self.writing;
        let class = writing.storage_class.clone();
        let md5 = writing
            .with_md5
            .then(|| STANDARD.encode(Md5::digest(&bytes)));
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .set_if_none_match((how != How::Again).then(|| "*".to_owned()))
            .set_server_side_encryption(writing.encryption.clone())
            .set_ssekms_key_id(writing.kms_key_id.clone())
            .set_storage_class(class.filter(|_| how != How::New))
            .set_content_md5(md5)
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(Builder::new().timeout_config(limits));
        Box::pin(request.send()).await.map(drop)
    }

    pub(super) async fn find(&self, key: &Key) -> Result<Option<Blob>, BlobError> {
        let Some(answer) = self.get(key, None).await? else {
            return Ok(None);
        };
        self.blob(key, answer).map(Some)
    }

    pub(super) async fn find_range(
        &self,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Option<Blob>, BlobError> {
        let wrong = || BlobError::Range {
            key: key.clone(),
            range: range.clone(),
        };
        let asked = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let answer = match self.get(key, Some(asked)).await {
            Err(BlobError::S3(error)) if error.code.as_deref() == Some("InvalidRange") => {
                return Err(wrong());
            }
            other => other?,
        };
        let Some(answer) = answer else {
            return Ok(None);
        };
        // A server that knows no ranges answers 200 with all of it, and one past the end with less.
        let is_part = answer.content_range.is_some();
        let blob = self.blob(key, answer)?;
        if is_part && blob.size_bytes == range.end - range.start {
            Ok(Some(blob))
        } else {
            Err(wrong())
        }
    }

    pub(super) async fn find_size(&self, key: &Key) -> Result<Option<u64>, BlobError> {
        let Some(answer) = self.head(key).await? else {
            return Ok(None);
        };
        let size_bytes = answer.content_length.and_then(|size| size.try_into().ok());
        let silent = || S3Error::silent("look at", self.place(key), "it has no length");
        Ok(Some(size_bytes.ok_or_else(silent)?))
    }

    pub(super) async fn find_modified(
        &self,
        key: &Key,
    ) -> Result<Option<OffsetDateTime>, BlobError> {
        let answer = self.head(key).await?;
        Ok(answer.and_then(|answer| put_at(&answer.last_modified?)))
    }

    async fn head(&self, key: &Key) -> Result<Option<HeadObjectOutput>, BlobError> {
        let request = self.client.head_object().bucket(&self.bucket);
        match Box::pin(request.key(self.key(key)).send()).await {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadObjectError::is_not_found) =>
            {
                Ok(None)
            }
            Err(error) => Err(S3Error::of("look at", self.place(key), &error).into()),
            Ok(answer) => Ok(Some(answer)),
        }
    }

    async fn get(
        &self,
        key: &Key,
        range: Option<String>,
    ) -> Result<Option<GetObjectOutput>, BlobError> {
        let request = self.client.get_object().bucket(&self.bucket);
        let request = request.key(self.key(key)).set_range(range);
        match Box::pin(request.send()).await {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetObjectError::is_no_such_key) =>
            {
                Ok(None)
            }
            Err(error) => Err(S3Error::of("read", self.place(key), &error).into()),
            Ok(answer) => Ok(Some(answer)),
        }
    }

    /// What an answer brings.
    fn blob(&self, key: &Key, answer: GetObjectOutput) -> Result<Blob, BlobError> {
        let size_bytes = answer.content_length.and_then(|size| size.try_into().ok());
        let size_bytes = size_bytes
            .ok_or_else(|| S3Error::silent("read", self.place(key), "it has no length"))?;
        let until = Instant::now() + BODY + at_rate(size_bytes);
        let body = stream::try_unfold(answer.body, move |mut body| async move {
            let chunk = timeout_at(until, body.try_next()).await;
            let chunk = chunk.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            let chunk = chunk.map_err(io::Error::other)?;
            io::Result::Ok(chunk.map(|chunk| (chunk, body)))
        });
        Ok(Blob {
            size_bytes,
            body: Box::pin(body),
        })
    }

    pub(super) async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Entry>, BlobError> {
        let mut found = Vec::new();
        let mut after = after.map(|key| self.key(key));
        while found.len() < limit {
            let wanted = i32::try_from(limit - found.len()).unwrap_or(PAGE);
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{}/", self.key(prefix)))
                .set_start_after(after.clone())
                .max_keys(wanted.min(PAGE));
            let page = Box::pin(request.send()).await;
            let page = page.map_err(|error| S3Error::of("list", self.place(prefix), &error))?;
            let is_over = !page.is_truncated.unwrap_or(false);
            let objects = page.contents.unwrap_or_default();
            let last = objects.last().and_then(|object| object.key.clone());
            for object in objects {
                let name = object.key.unwrap_or_default();
                let name = name.strip_prefix(&self.prefix).unwrap_or_default();
                // What no collector wrote has no such name, and is none of its objects.
                if let Ok(key) = Key::new(name.to_owned()) {
                    let size_bytes = object.size.and_then(|size| size.try_into().ok());
                    let size_bytes = size_bytes.unwrap_or_default();
                    let modified_at = object.last_modified.and_then(|at| put_at(&at));
                    found.push(Entry {
                        key,
                        size_bytes,
                        modified_at,
                    });
                }
            }
            // Each page begins after the one before, or there is no end.
            if is_over || last.is_none() || last <= after {
                break;
            }
            after = last;
        }
        Ok(found)
    }

    /// In a bucket with versions, each of them: one that is only marked as deleted costs as much, and one that Object Lock holds
    /// is there still, and said to be.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        for _ in 0..VERSIONS {
            let Some(version) = self.find_version(key).await? else {
                break;
            };
            let request = self.client.delete_object().bucket(&self.bucket);
            let request = request.key(self.key(key)).set_version_id(version.clone());
            let done = Box::pin(request.send()).await;
            done.map_err(|error| S3Error::of("remove", self.place(key), &error))?;
            if version.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// The version of an object that is there; in a bucket without versions that has no name.
    async fn find_version(&self, key: &Key) -> Result<Option<Option<String>>, BlobError> {
        let Some(answer) = self.head(key).await? else {
            return Ok(None);
        };
        Ok(Some(answer.version_id.filter(|version| version != "null")))
    }

    /// What the bucket honours, as seen by the object `key`, and by another whose name begins with it and that does not stay.
    pub(super) async fn honours(&self, key: &Key) -> Result<Honours, BlobError> {
        Ok(Honours {
            checksums: self.honours_checksums(key).await?,
            versions: matches!(self.find_version(key).await?, Some(Some(_))),
            object_lock: self.object_lock().await,
        })
    }

    /// An object with a checksum that is not its own is refused.
    async fn honours_checksums(&self, key: &Key) -> Result<bool, BlobError> {
        let wrong = Key::new(format!("{key}-checksum"))?;
        let request = self.client.put_object().bucket(&self.bucket);
        let request = request.key(self.key(&wrong));
        let body = ByteStream::from_static(b"this");
        let request = request.checksum_crc32(ZEROS).body(body);
        let refused = Box::pin(request.send()).await.is_err();
        if !refused {
            self.delete(&wrong).await?;
        }
        Ok(refused)
    }

    /// What the bucket locks new objects with by itself; `None`: with nothing, or it does not say.
    async fn object_lock(&self) -> Option<String> {
        let request = self.client.get_object_lock_configuration();
        let answer = Box::pin(request.bucket(&self.bucket).send()).await.ok()?;
        let rule = answer.object_lock_configuration?.rule?;
        let retention = rule.default_retention?;
        let mode = retention.mode.map_or_else(String::new, |m| m.to_string());
        let (days, years) = (retention.days, retention.years);
        let time = days.map(|days| format!("{days} days"));
        let time = time.or(years.map(|years| format!("{years} years")))?;
        Some(format!("{mode} for {time}"))
    }
}

fn put_at(at: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.secs()).ok()
}

fn too_large(key: &Key, size_bytes: u64) -> BlobError {
    BlobError::TooLarge {
        key: key.clone(),
        size_bytes,
        limit: OBJECT_BYTES,
    }
}

/// A body as one piece of exactly the announced size.
async fn gather(key: &Key, announced: u64, mut body: Body) -> Result<Bytes, BlobError> {
    let size = usize::try_from(announced).ok();
    let size = size.filter(|size| *size <= OBJECT_BYTES);
    let size = size.ok_or_else(|| too_large(key, announced))?;
    let length = || BlobError::Length {
        key: key.clone(),
        announced,
    };
    let mut bytes = BytesMut::with_capacity(size);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|source| BlobError::Body {
            key: key.clone(),
            source,
        })?;
        if bytes.len() + chunk.len() > size {
            return Err(length());
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() < size {
        return Err(length());
    }
    Ok(bytes.freeze())
}
