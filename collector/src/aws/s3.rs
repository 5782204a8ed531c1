//! A client of S3 as the configuration has it, objects named `s3://bucket/key`, and what goes wrong with them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;
use tokio::time::timeout;

use super::{CONNECT, WHOLE, chain, config, reason};
use crate::config::s3::{Checksums, PathStyle, S3, is_bucket};

/// A try of a call without much of a body; three fit into [`WHOLE`].
const TRY: Duration = Duration::from_secs(5);
/// Bodies go at least this fast, in bytes a second.
const RATE: u64 = 256 * 1024;
/// For a document: the call, and its body.
const READ: Duration = Duration::from_secs(20);
/// The longest key that S3 takes, in bytes.
const KEY_BYTES: usize = 1024;
/// Where nobody names a region, and a server that is not AWS wants one.
const ANY_REGION: &str = "us-east-1";

/// Why S3 did not do what it was asked.
#[derive(Clone, Debug, Error)]
#[error("cannot {doing} {place}: {reason}")]
pub struct S3Error {
    pub doing: &'static str,
    /// `s3://bucket/key`.
    pub place: String,
    /// What S3 calls it, `NoSuchKey`; `None`: it said nothing that could be read.
    pub code: Option<String>,
    pub reason: String,
}

impl S3Error {
    /// A call that failed.
    pub fn of<E>(doing: &'static str, place: impl fmt::Display, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        Self {
            doing,
            place: place.to_string(),
            code: error.code().map(str::to_owned),
            reason: reason(error),
        }
    }

    /// Without a word from S3.
    pub fn silent(
        doing: &'static str,
        place: impl fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            doing,
            place: place.to_string(),
            code: None,
            reason: reason.into(),
        }
    }

    /// What to do.
    pub fn advice(&self) -> &'static str {
        match self.code.as_deref() {
            Some("NoSuchKey" | "NotFound") => "put the object there, or correct its key",
            Some("NoSuchBucket") => "make the bucket, or correct its name",
            Some("AccessDenied" | "AllAccessDisabled" | "403") => {
                "let this collector's identity do it: s3:GetObject, and s3:ListBucket, without which a missing object looks \
                 like this too; for the bucket of blobs s3:PutObject and s3:DeleteObject"
            }
            Some(
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired",
            ) => "renew the credentials, or correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Some("RequestTimeTooSkewed" | "RequestExpired") => {
                "synchronise this machine's clock (chrony, systemd-timesyncd)"
            }
            Some(
                "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
            ) => "the bucket is in another region: set s3.region",
            Some("NotImplemented") => {
                "use a store that honours If-None-Match (conditional writes): it keeps what is there from being replaced"
            }
            None if self.reason.contains("credential") => {
                "give this collector credentials: an instance's or task's role, web identity, a profile, or AWS_ACCESS_KEY_ID \
                 and AWS_SECRET_ACCESS_KEY"
            }
            None if self.reason.contains("egion") => "set s3.region or AWS_REGION",
            _ => {
                "check that s3.endpoint, or S3 of s3.region, can be reached from here, and s3.path_style"
            }
        }
    }
}

/// An object by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub bucket: String,
    pub key: String,
}

impl FromStr for Object {
    /// What is wrong with it. The text is not repeated: where somebody wrote credentials into it, they stay there.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("s3://")
            .ok_or("is not of the form s3://bucket/key")?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket(bucket) {
            return Err("names no bucket: letters, digits and - _ . after s3://");
        }
        if key.is_empty() || key.len() > KEY_BYTES || key.contains(char::is_control) {
            return Err("names no key: 1 to 1024 bytes after s3://bucket/");
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// A client; nothing is asked of S3 yet.
pub async fn client(settings: &S3) -> Result<Client, S3Error> {
    let found = timeout(WHOLE, Box::pin(config())).await;
    let shared = found.map_err(|_| {
        S3Error::silent(
            "find",
            "the region of S3",
            "the instance's metadata did not answer in time",
        )
    })?;
    let mut builder = Builder::from(shared).timeout_config(limits(0));
    let of_environment = std::env::var_os("AWS_ENDPOINT_URL_S3").is_some_and(|url| !url.is_empty());
    let mut elsewhere = of_environment || shared.endpoint_url().is_some();
    if !settings.endpoint.is_empty() {
        builder = builder.endpoint_url(settings.endpoint.clone());
        elsewhere = true;
    }
    if !settings.region.is_empty() {
        builder = builder.region(Region::new(settings.region.clone()));
    } else if elsewhere && shared.region().is_none() {
        builder = builder.region(Region::from_static(ANY_REGION));
    }
    let in_path = match settings.path_style {
        PathStyle::Auto => elsewhere,
        PathStyle::Set(in_path) => in_path,
    };
    if settings.checksums == Checksums::WhenRequired {
        builder = builder
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    Ok(Client::from_conf(builder.force_path_style(in_path).build()))
}

/// The time limits of a call that sends so many bytes.
pub fn limits(size_bytes: u64) -> TimeoutConfig {
    let one = TRY + at_rate(size_bytes);
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(one)
        .operation_timeout(3 * one)
        .build()
}

/// How long a body of this size may take.
pub fn at_rate(size_bytes: u64) -> Duration {
    Duration::from_secs(size_bytes.div_ceil(RATE))
}

/// By what an object is seen to have changed: its `ETag` and size.
pub async fn fingerprint(settings: &S3, object: &Object) -> Result<String, S3Error> {
    const DOING: &str = "look at";
    let client = client(settings).await?;
    let asked = client.head_object().bucket(&object.bucket).key(&object.key);
    let answer = asked.send().await;
    let answer = answer.map_err(|error| S3Error::of(DOING, object, &error))?;
    let size = answer.content_length().unwrap_or_default();
    Ok(format!("{} {size}", answer.e_tag().unwrap_or_default()))
}

/// An object, at most `limit` bytes of it and one more, by which it is seen to be longer.
pub async fn read(settings: &S3, object: &Object, limit: usize) -> Result<Vec<u8>, S3Error> {
    read_within(settings, object, limit, READ).await
}

/// Likewise, in so much time.
pub async fn read_within(
    settings: &S3,
    object: &Object,
    limit: usize,
    time: Duration,
) -> Result<Vec<u8>, S3Error> {
    const DOING: &str = "read";
    let reading = async {
        let client = client(settings).await?;
        let asked = client.get_object().bucket(&object.bucket).key(&object.key);
        let answer = asked.send().await;
        let mut body = answer
            .map_err(|error| S3Error::of(DOING, object, &error))?
            .body;
        let mut bytes = Vec::new();
        while bytes.len() <= limit {
            let chunk = body.try_next().await;
            let chunk = chunk.map_err(|error| S3Error::silent(DOING, object, chain(&error)))?;
            let Some(chunk) = chunk else {
                break;
            };
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(limit + 1);
        Ok(bytes)
    };
    let read = timeout(time, Box::pin(reading)).await;
    read.unwrap_or_else(|_| Err(S3Error::silent(DOING, object, "no answer in time")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_bucket_and_a_key_and_what_is_none_is_not_repeated() {
        let object: Object = "s3://fleet.example/a/b c.json".parse().unwrap();
        assert_eq!(
            (object.bucket.as_str(), object.key.as_str()),
            ("fleet.example", "a/b c.json")
        );
        assert_eq!(object.to_string(), "s3://fleet.example/a/b c.json");
        for (bad, why) in [
            ("", "is not of the form"),
            ("https://fleet/key", "is not of the form"),
            ("S3://fleet/key", "is not of the form"),
            ("s3://", "names no bucket"),
            ("s3:///key", "names no bucket"),
            ("s3://AKIA:canary@fleet/key", "names no bucket"),
            ("s3://fleet", "names no key"),
            ("s3://fleet/", "names no key"),
            ("s3://fleet/a\nb", "names no key"),
        ] {
            let error = bad.parse::<Object>().unwrap_err();
            assert!(error.starts_with(why), "{bad}: {error}");
        }
        let long = format!("s3://fleet/{}", "k".repeat(KEY_BYTES + 1));
        assert!(long.parse::<Object>().is_err());
    }

    #[test]
    fn what_s3_says_has_an_advice_of_its_own() {
        let said = |code: Option<&str>, reason: &str| {
            let error = S3Error {
                code: code.map(str::to_owned),
                ..S3Error::silent("read", "s3://a/b", reason)
            };
            error.advice()
        };
        for (code, words) in [
            ("NoSuchKey", "put the object there"),
            ("NoSuchBucket", "make the bucket"),
            ("AccessDenied", "s3:GetObject"),
            ("InvalidAccessKeyId", "renew the credentials"),
            ("RequestTimeTooSkewed", "clock"),
            ("PermanentRedirect", "another region"),
            ("NotImplemented", "If-None-Match"),
            ("SlowDown", "can be reached"),
        ] {
            assert!(said(Some(code), "").contains(words), "{code}");
        }
        let none = said(None, "the credential provider was not enabled");
        assert!(none.starts_with("give this collector credentials"));
        assert!(said(None, "timed out").contains("can be reached"));
    }
}
