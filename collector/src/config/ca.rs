//! Where the CA's keys come from, where several collectors share them by a store of secrets.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::secret::{Secret, SecretError, Source};

/// The certificate authority's keys, where they are not files below `data_dir`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateAuthority {
    /// PEM: the issuing key, or several while the CA is rotated. With the certificates of the issuing CA and the root in it
    /// too, a data directory without a CA needs nothing else. A path, `credential:NAME`, `aws-sm:NAME[#KEY]` or
    /// `aws-ssm:/PATH`; else systemd's credential `ca-key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<Source>,
}

impl CertificateAuthority {
    /// The configured keys; `None`: files.
    pub async fn keys(&self) -> Result<Option<Secret>, SecretError> {
        let configured = self.key_file.clone();
        match configured.or_else(|| Source::conventional("ca-key")) {
            Some(source) => source.read("ca.key_file").await.map(Some),
            None => Ok(None),
        }
    }
}
