//! The section `s3`: where S3 is, and into which bucket blobs go.

use anyhow::ensure;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::telemetry::is_url;
use crate::blob::Key;

/// The longest prefix; with the longest key it makes the 1024 bytes that S3 takes.
const PREFIX_BYTES: usize = 255;

/// Storage classes whose objects have to be asked for hours before they are read.
const FROZEN: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// Where S3 is, and the bucket for blobs. Credentials are found as every program of AWS finds them: environment, profile,
/// web identity, container, instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// Where signed checkpoints and the log of the CA go, which must outlive the database; empty: below `data_dir`. Several
    /// collectors on one database need it.
    pub bucket: String,
    /// Stands with a slash before the names of those objects.
    pub prefix: String,
    /// Empty: as the environment or the profile says.
    pub region: String,
    /// The URL of a server that speaks S3; empty: what `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` name, else AWS.
    pub endpoint: String,
    /// What S3 is asked to encrypt objects with, `"AES256"` or `"aws:kms"`; empty: as the bucket does by itself.
    pub encryption: String,
    /// The key for `"aws:kms"`; empty: AWS's own for S3.
    pub kms_key_id: String,
    /// The storage class of packs of backups, `"STANDARD_IA"`; empty: the usual one. It must be one that is read at once.
    pub storage_class: String,
    /// `"auto"`: with each object a checksum of the SDK's choice, and those of answers are compared; `"when_required"`: for servers
    /// that refuse these, the MD5 that S3 has always had.
    pub checksums: Checksums,
    /// Whether the bucket stands in the path of a URL (`true`) or is a host's name (`false`); `"auto"`: in the path where
    /// there is an endpoint.
    pub path_style: PathStyle,
}

/// By what S3 sees that an object came as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksums {
    #[default]
    Auto,
    WhenRequired,
}

/// Where a bucket's name stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, false or \"auto\"")]
pub enum PathStyle {
    #[default]
    #[serde(with = "auto")]
    Auto,
    Set(bool),
}

/// The word.
mod auto {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(()),
            _ => Err(Error::custom("not auto")),
        }
    }
}

/// What a bucket may be called, at AWS and elsewhere.
pub fn is_bucket(name: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    (1..=255).contains(&name.len()) && name.chars().all(plain)
}

impl S3 {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.bucket.is_empty() || is_bucket(&self.bucket),
            "s3.bucket may have only letters, digits and - _ ."
        );
        ensure!(
            self.prefix.is_empty() || !self.bucket.is_empty(),
            "s3.prefix goes with s3.bucket"
        );
        ensure!(
            self.prefix.is_empty()
                || self.prefix.len() <= PREFIX_BYTES && Key::new(self.prefix.clone()).is_ok(),
            "s3.prefix may have only parts of letters, digits and - _ . between slashes, {PREFIX_BYTES} bytes in all"
        );
        let plain = |char: char| char.is_ascii_alphanumeric() || char == '-';
        ensure!(
            self.region.chars().all(plain),
            "s3.region is not of the form eu-central-1"
        );
        ensure!(
            self.endpoint.is_empty() || is_url(&self.endpoint),
            "s3.endpoint is not of the form https://s3.example"
        );
        ensure!(
            ["", "AES256", "aws:kms"].contains(&self.encryption.as_str()),
            "s3.encryption is \"AES256\", \"aws:kms\" or empty"
        );
        ensure!(
            self.kms_key_id.is_empty() || self.encryption == "aws:kms",
            "s3.kms_key_id goes with s3.encryption = \"aws:kms\""
        );
        let plain = |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
        ensure!(
            self.storage_class.chars().all(plain),
            "s3.storage_class is not of the form STANDARD_IA"
        );
        ensure!(
            !FROZEN.contains(&self.storage_class.as_str()),
            "s3.storage_class {} is not read at once: no backup could be restored from it",
            self.storage_class
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is changed, and which setting is wrong then.
    type Change = (fn(&mut S3), &'static str);

    #[test]
    fn what_names_no_bucket_prefix_or_endpoint_is_refused_by_its_setting() {
        let good = S3 {
            bucket: "infratrack-blobs".to_owned(),
            prefix: "fleet/eu".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: "https://s3.example:9000".to_owned(),
            ..S3::default()
        };
        good.check().unwrap();
        S3::default().check().unwrap();
        let changes: [Change; 12] = [
            (|s3| s3.bucket = "a/b".to_owned(), "s3.bucket"),
            (|s3| s3.bucket = "a@b".to_owned(), "s3.bucket"),
            (|s3| s3.bucket.clear(), "s3.prefix"),
            (|s3| s3.prefix = "a/".to_owned(), "s3.prefix"),
            (|s3| s3.prefix = "a/".repeat(200) + "a", "s3.prefix"),
            (|s3| s3.region = "eu central".to_owned(), "s3.region"),
            (|s3| s3.endpoint = "s3.example".to_owned(), "s3.endpoint"),
            (|s3| s3.endpoint = "http://a:b@c".to_owned(), "s3.endpoint"),
            (|s3| s3.encryption = "AES".to_owned(), "s3.encryption"),
            (|s3| s3.kms_key_id = "key".to_owned(), "s3.kms_key_id"),
            (
                |s3| s3.storage_class = "cold".to_owned(),
                "s3.storage_class",
            ),
            (
                |s3| s3.storage_class = "GLACIER".to_owned(),
                "s3.storage_class GLACIER is not read at once",
            ),
        ];
        for (change, setting) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            let error = bad.check().unwrap_err().to_string();
            assert!(error.starts_with(setting), "{error}");
            assert!(!error.contains("a:b"), "{error}");
        }
    }

    #[test]
    fn path_style_is_yes_no_or_as_the_endpoint_needs() {
        for (text, style) in [
            ("path_style = true", PathStyle::Set(true)),
            ("path_style = false", PathStyle::Set(false)),
            ("path_style = \"auto\"", PathStyle::Auto),
            ("", PathStyle::Auto),
        ] {
            let s3: S3 = toml::from_str(text).unwrap();
            assert_eq!(s3.path_style, style, "{text}");
            let shown = toml::to_string(&s3).unwrap();
            assert_eq!(toml::from_str::<S3>(&shown).unwrap(), s3);
        }
        for bad in ["path_style = \"yes\"", "path_style = 1"] {
            let error = toml::from_str::<S3>(bad).unwrap_err().to_string();
            assert!(error.contains("true, false or \"auto\""), "{error}");
        }
    }
}
