//! A bucket of S3, read with requests that are signed here. Its credentials may read and list; nothing is written.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use rustls::ClientConfig;
use rusty_s3::actions::{ListObjectsV2, ListObjectsV2Response};
use rusty_s3::{Credentials, S3Action, UrlStyle};
use zeroize::Zeroizing;

use super::lanes::{Lanes, Question, UNREADABLE};
use super::objects::Objects;
use super::source::SourceError;
use crate::clock::Clock;
use crate::tls;

mod client;
mod times;

use self::client::{Client, Request};
use self::times::Times;

/// For how long a signed request may be sent.
const SIGNED: Duration = Duration::from_secs(300);
/// A page of a list has up to 1,000 keys of up to 1,024 bytes, which may be escaped.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Of a list: 100 million objects.
const MAX_PAGES: usize = 100_000;

/// Where a bucket is, and how to get there.
#[derive(Clone, Debug)]
pub struct Location {
    /// `s3://bucket/prefix`.
    pub url: String,
    /// `https://host`; `None`: that of AWS in the region.
    pub endpoint: Option<String>,
    pub region: String,
    /// The bucket is part of the path.
    pub is_path_style: bool,
    /// Without TLS too, when it is not on this host.
    pub is_insecure: bool,
    /// A file of certificates that vouch for it, in place of the system's.
    pub authorities: Option<PathBuf>,
}

/// The bucket.
pub struct S3 {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    /// Empty, or ends with `/`.
    prefix: String,
    tls: Arc<ClientConfig>,
    times: Arc<Times>,
    lanes: Lanes<Client>,
}

impl S3 {
    /// Gives up when nobody answered for so long.
    pub fn new(
        location: &Location,
        credentials: Credentials,
        clock: Clock,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let place = location.url.strip_prefix("s3://");
        let place = place.context("it is not of the form s3://bucket/prefix")?;
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        ensure!(!name.is_empty(), "it is not of the form s3://bucket/prefix");
        let mut prefix = prefix.trim_end_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let region = location.region.clone();
        let of_aws = || format!("https://s3.{region}.amazonaws.com");
        let endpoint = location.endpoint.clone().unwrap_or_else(of_aws);
        allowed(&endpoint, location.is_insecure)?;
        let endpoint = endpoint.parse().context("the endpoint is no URL")?;
        let style = if location.is_path_style {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let bucket = rusty_s3::Bucket::new(endpoint, style, name.to_owned(), region);
        Ok(Self {
            bucket: bucket.context("the bucket has no URL at this endpoint")?,
            credentials,
            prefix,
            tls: Arc::new(tls::public(location.authorities.as_deref())?),
            times: Arc::new(Times::new(clock)),
            lanes: Lanes::new(patience),
        })
    }

    fn question(&self, key: &str) -> Question {
        Question::new(self.name(key), UNREADABLE.min(self.lanes.patience()))
    }

    /// Asks with a URL that is signed each time: it may be asked again later than a signature lasts.
    fn send(
        &self,
        question: &Question,
        sign: impl Fn(&Timestamp) -> String,
        range: Option<&Range<u64>>,
        limit: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let new = || Client::new(Arc::clone(&self.tls), Arc::clone(&self.times));
        self.lanes.ask(question, new, async |client| {
            let (url, range) = (Zeroizing::new(sign(&self.times.now())), range.cloned());
            client.get(&Request { url, range, limit }).await
        })
    }

    fn fetch(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        limit: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let object = format!("{}{key}", self.prefix);
        let action = self.bucket.get_object(Some(&self.credentials), &object);
        let sign = |now: &Timestamp| action.sign_with_time(SIGNED, now).to_string();
        self.send(&self.question(key), sign, range, limit)
    }

    /// Each page of a list, with or without what is deeper.
    fn pages(
        &self,
        prefix: &str,
        is_deep: bool,
        mut each: impl FnMut(ListObjectsV2Response),
    ) -> Result<(), SourceError> {
        let question = self.question(prefix);
        let wrong = |why: String| SourceError::Unreadable {
            what: question.what.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        };
        let mut token: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(format!("{}{prefix}", self.prefix));
            if !is_deep {
                action.with_delimiter("/");
            }
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let sign = |now: &Timestamp| action.sign_with_time(SIGNED, now).to_string();
            let page = self.send(&question, sign, None, PAGE_BYTES)?;
            let page = String::from_utf8(page).map_err(|error| wrong(error.to_string()))?;
            let page = ListObjectsV2::parse_response(&page);
            let page = page.map_err(|error| wrong(format!("its list is none: {error}")))?;
            token.clone_from(&page.next_continuation_token);
            each(page);
            if token.is_none() {
                return Ok(());
            }
        }
        Err(wrong("its list does not end".to_owned()))
    }
}

impl Objects for S3 {
    fn folders(&self, prefix: &str) -> Result<Vec<String>, SourceError> {
        let start = format!("{}{prefix}", self.prefix);
        let mut found = Vec::new();
        self.pages(prefix, false, |page| {
            let folders = page.common_prefixes.iter();
            let folders = folders.filter_map(|folder| folder.prefix.strip_prefix(&start));
            found.extend(folders.map(|name| name.trim_end_matches('/').to_owned()));
        })?;
        Ok(found)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let mut found = Vec::new();
        self.pages(prefix, true, |page| {
            found.extend(page.contents.into_iter().filter_map(|object| {
                let key = object.key.strip_prefix(&self.prefix)?;
                Some((key.to_owned(), object.size?))
            }));
        })?;
        found.sort();
        Ok(found)
    }

    fn get(&self, key: &str, limit: usize) -> Result<Vec<u8>, SourceError> {
        self.fetch(key, None, limit)
    }

    fn range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return Ok(Vec::new());
        }
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        self.fetch(key, Some(&range), limit)
    }

    fn name(&self, key: &str) -> String {
        let mut name = format!("s3://{}/", self.bucket.name());
        // A `String` takes everything.
        write!(name, "{}{key}", self.prefix).ok();
        name
    }
}

/// What is read is sealed, and a signed URL is not for everybody's eyes.
fn allowed(endpoint: &str, is_insecure: bool) -> anyhow::Result<()> {
    let uri: http::Uri = endpoint.parse().context("the endpoint is no URL")?;
    let host = uri.host().context("the endpoint has no host")?;
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") => {
            ensure!(
                is_insecure || client::is_local(host),
                "the endpoint is without TLS and not on this host: pass --insecure-http to allow that"
            );
            Ok(())
        }
        Some(_) | None => bail!("the endpoint is neither https:// nor http://"),
    }
}

/// The credentials in the environment.
pub fn credentials_of_environment() -> anyhow::Result<Credentials> {
    credentials(|name| std::env::var(name).ok())
}

/// The credentials in a file with a line `NAME=value` for each.
pub fn credentials_of_file(path: &Path) -> anyhow::Result<Credentials> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let lines: HashMap<_, _> = lines
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    credentials(|name| lines.get(name).map(|value| (*value).to_owned()))
        .with_context(|| format!("in {}", path.display()))
}

fn credentials(find: impl Fn(&str) -> Option<String>) -> anyhow::Result<Credentials> {
    let find = |name| find(name).filter(|value| !value.is_empty());
    let key = find("AWS_ACCESS_KEY_ID").context("there is no AWS_ACCESS_KEY_ID")?;
    let secret = find("AWS_SECRET_ACCESS_KEY").context("there is no AWS_SECRET_ACCESS_KEY")?;
    Ok(match find("AWS_SESSION_TOKEN") {
        Some(token) => Credentials::new_with_token(key, secret, token),
        None => Credentials::new(key, secret),
    })
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3({})", self.name(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str) -> Location {
        Location {
            url: url.to_owned(),
            endpoint: None,
            region: "eu-central-1".to_owned(),
            is_path_style: false,
            is_insecure: false,
            authorities: None,
        }
    }

    #[test]
    fn a_bucket_is_named_by_its_url_and_credentials_come_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY = b=c\n").unwrap();
        let credentials = credentials_of_file(&path).unwrap();
        assert_eq!((credentials.key(), credentials.secret()), ("a", "b=c"));
        let made = |url: &str| made(&location(url), credentials.clone());
        for (url, key) in [
            ("s3://fleet", "s3://fleet/backups/x"),
            ("s3://fleet/", "s3://fleet/backups/x"),
            ("s3://fleet/a/b", "s3://fleet/a/b/backups/x"),
            ("s3://fleet/a/b/", "s3://fleet/a/b/backups/x"),
        ] {
            assert_eq!(made(url).unwrap().name("backups/x"), key);
        }
        for url in ["fleet", "s3://", "https://fleet"] {
            assert!(made(url).is_err(), "{url}");
        }
        std::fs::write(&path, "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=\n").unwrap();
        let error = format!("{:#}", credentials_of_file(&path).unwrap_err());
        assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    }

    fn made(location: &Location, credentials: Credentials) -> anyhow::Result<S3> {
        S3::new(location, credentials, Clock::system(), Duration::ZERO)
    }

    #[test]
    fn without_tls_it_is_on_this_host_or_asked_for() {
        for (endpoint, is_insecure, is_allowed) in [
            ("https://s3.example.org", false, true),
            ("http://127.0.0.1:9000", false, true),
            ("http://[::1]:9000", false, true),
            ("http://localhost:9000", false, true),
            ("http://fleet.localhost", false, true),
            ("http://10.0.0.1:9000", false, false),
            ("http://localhost.example.org", false, false),
            ("http://10.0.0.1:9000", true, true),
            ("ftp://10.0.0.1", true, false),
            ("10.0.0.1:9000", true, false),
        ] {
            let location = Location {
                endpoint: Some(endpoint.to_owned()),
                is_insecure,
                is_path_style: true,
                ..location("s3://fleet")
            };
            let made = made(&location, Credentials::new("a", "b"));
            assert_eq!(made.is_ok(), is_allowed, "{endpoint}: {made:?}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_vouches_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for content in ["", "no certificate"] {
            std::fs::write(&path, content).unwrap();
            let location = Location {
                authorities: Some(path.clone()),
                ..location("s3://fleet")
            };
            assert!(made(&location, Credentials::new("a", "b")).is_err());
        }
    }
}
