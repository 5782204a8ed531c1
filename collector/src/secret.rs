//! Secrets: where they are had from, and a type that shows none of it.
//!
//! A setting that names a secret takes a path, `credential:NAME` (systemd's `LoadCredential=`), `aws-sm:NAME[#KEY]`
//! (Secrets Manager, by name or ARN) or `aws-ssm:/PATH` (a parameter of Systems Manager). Errors name the setting and
//! the place, never the content.

mod aws;

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest secret: a chain of certificates with its key has a tenth of it.
pub const MAX_BYTES: usize = 64 * 1024;
/// Where systemd puts the credentials of a unit (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A secret text: it prints `***`, and its memory is overwritten when it goes.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Its content. Whoever asks sees to it that nothing prints it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Where a secret is had from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    File(PathBuf),
    /// A credential of systemd's.
    Credential(String),
    /// Of Secrets Manager, by name or ARN; where it is JSON, one member of it.
    SecretsManager {
        id: String,
        key: Option<String>,
    },
    /// A parameter of Systems Manager.
    Parameter(String),
}

/// Why a setting's secret can't be had.
#[derive(Debug, Error)]
#[error("{setting}: the secret {place} {reason}")]
pub struct SecretError {
    /// The setting, as the configuration has it.
    pub setting: &'static str,
    /// Where it was looked for.
    pub place: String,
    reason: String,
}

impl Source {
    /// Where systemd's credential of this conventional name stands, where it was given one.
    pub fn conventional(name: &str) -> Option<Self> {
        let dir = PathBuf::from(std::env::var_os(CREDENTIALS)?);
        dir.join(name)
            .exists()
            .then(|| Self::Credential(name.to_owned()))
    }

    /// Gets the secret for a setting. Line ends and blanks around it don't count.
    pub async fn read(&self, setting: &'static str) -> Result<Secret, SecretError> {
        let text = match self {
            Self::File(path) => {
                let text = read_file(path);
                if text.is_ok() {
                    warn_if_open(setting, path);
                }
                text
            }
            Self::Credential(name) => match std::env::var_os(CREDENTIALS) {
                Some(dir) => read_file(&PathBuf::from(dir).join(name)),
                None => Err(format!(
                    "can't be had: there is no ${CREDENTIALS}; give the unit LoadCredential={name}:/path"
                )),
            },
            Self::SecretsManager { id, key } => {
                let text = aws::secret(id).await;
                match key {
                    Some(key) => text.and_then(|text| member(&text, key)),
                    None => text,
                }
            }
            Self::Parameter(name) => aws::parameter(name).await,
        };
        let fail = |reason: String| SecretError {
            setting,
            place: self.to_string(),
            reason,
        };
        let text = text.map_err(fail)?;
        if text.len() > MAX_BYTES {
            return Err(fail(too_long()));
        }
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(fail("is empty".to_owned()));
        }
        Ok(Secret::from(trimmed.to_owned()))
    }
}

fn too_long() -> String {
    format!("is longer than {MAX_BYTES} bytes")
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // So that no part of it is left behind where the buffer grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(too_long());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is no text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A member of a JSON object.
fn member(text: &str, key: &str) -> Result<Zeroizing<String>, String> {
    // An error of the parser's may quote what it reads.
    let document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| "is no JSON object".to_owned())?;
    let value = document.get(key).and_then(serde_json::Value::as_str);
    value
        .map(|value| Zeroizing::new(value.to_owned()))
        .ok_or_else(|| format!("has no text under {key:?}"))
}

/// Says so where others than the owner can read a secret. systemd's credentials are its own business.
fn warn_if_open(setting: &'static str, path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            setting,
            "{path} can be read by others than its owner (mode {mode:03o}); mend it with: chmod 600 {path}",
            path = path.display(),
        );
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = |name: &str| {
            let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
            is_name
                .then(|| name.to_owned())
                .ok_or_else(|| format!("{text:?} names no secret"))
        };
        if let Some(name) = text.strip_prefix("credential:") {
            if name.contains('/') {
                return Err(format!("{text:?}: a credential's name has no slash"));
            }
            return Ok(Self::Credential(named(name)?));
        }
        if let Some(name) = text.strip_prefix("aws-sm:") {
            let (id, key) = match name.split_once('#') {
                Some((id, key)) => (id, Some(named(key)?)),
                None => (name, None),
            };
            let id = named(id)?;
            return Ok(Self::SecretsManager { id, key });
        }
        if let Some(name) = text.strip_prefix("aws-ssm:") {
            return Ok(Self::Parameter(named(name)?));
        }
        if text.is_empty() {
            return Err("a secret's place is empty".to_owned());
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::SecretsManager { id, key: None } => write!(f, "aws-sm:{id}"),
            Self::SecretsManager { id, key: Some(key) } => write!(f, "aws-sm:{id}#{key}"),
            Self::Parameter(name) => write!(f, "aws-ssm:{name}"),
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::try_from(text.to_owned()).unwrap()
    }

    async fn refused(source: &Source) -> String {
        source.read("oidc.test").await.unwrap_err().to_string()
    }

    #[test]
    fn a_secret_prints_stars_whoever_asks() {
        let secret = Secret::from("canary".to_owned());
        let text = format!(
            "{secret} {secret:?} {:#?} {}",
            Some(&secret),
            serde_json::json!({ "secret": secret })
        );
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(text.matches("***").count(), 4, "{text}");
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for text in [
            "/etc/infratrack/secret",
            "secret",
            "credential:oidc-client-secret",
            "aws-sm:infratrack/oidc",
            "aws-sm:arn:aws:secretsmanager:eu-central-1:123456789012:secret:infratrack-AbCdEf#key",
            "aws-ssm:/infratrack/ca",
        ] {
            assert_eq!(source(text).to_string(), text);
        }
        assert_eq!(
            source("aws-sm:a/b#c"),
            Source::SecretsManager {
                id: "a/b".to_owned(),
                key: Some("c".to_owned())
            }
        );
        for bad in [
            "",
            "credential:",
            "credential:../x",
            "aws-sm:",
            "aws-sm:a#",
            "aws-ssm: ",
        ] {
            assert!(Source::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_missing_empty_too_long_or_no_text_is_refused_by_its_settings_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let file = Source::File(path.clone());
        let error = refused(&file).await;
        assert!(error.starts_with("oidc.test: the secret /"), "{error}");
        assert!(error.contains("can't be read: No such file"), "{error}");
        std::fs::write(&path, " \n").unwrap();
        assert!(refused(&file).await.ends_with("is empty"));
        std::fs::write(&path, b"canary\xff").unwrap();
        let error = refused(&file).await;
        assert!(error.ends_with("is no text"), "{error}");
        std::fs::write(&path, "c".repeat(MAX_BYTES + 1)).unwrap();
        let error = refused(&file).await;
        assert!(error.ends_with("is longer than 65536 bytes"), "{error}");
        std::fs::write(&path, "c".repeat(MAX_BYTES)).unwrap();
        assert_eq!(
            file.read("oidc.test").await.unwrap().expose().len(),
            MAX_BYTES
        );
        std::fs::write(&path, "canary\n").unwrap();
        assert_eq!(file.read("oidc.test").await.unwrap().expose(), "canary");
    }

    #[test]
    fn a_member_of_a_document_is_found_and_a_bad_document_not_quoted() {
        assert_eq!(*member(r#"{"a":"b"}"#, "a").unwrap(), "b");
        for (text, key) in [
            ("canary", "a"),
            (r#"{"a":1}"#, "a"),
            (r#"{"a":"canary"}"#, "b"),
        ] {
            let error = member(text, key).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
