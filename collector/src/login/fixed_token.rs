//! Tokens that stand in files, for installations that get their secrets from elsewhere: `ADMIN_TOKEN`, `BACKUP_TOKEN` and
//! `READ_TOKEN`. They have no row, no expiry and one role each; who has to take one back replaces the file and restarts.

use std::env;
use std::net::IpAddr;

use anyhow::ensure;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::audit::ActorKind;
use crate::caller::Caller;
use crate::config::Operators;
use crate::roles::{Role, Scope};
use crate::secret::Source;

/// A shorter one could be guessed.
pub const MIN_BYTES: usize = 32;

/// The tokens of this collector's files.
#[derive(Clone, Debug, Default)]
pub struct FixedTokens(Vec<FixedToken>);

#[derive(Clone, Debug)]
struct FixedToken {
    name: &'static str,
    hash: [u8; 32],
    role: Role,
    scopes: &'static [Scope],
}

impl FixedTokens {
    /// Reads those that are configured: the setting, the environment's `NAME_FILE`, systemd's credential `NAME`, in
    /// this order.
    pub async fn load(operators: &Operators) -> anyhow::Result<Self> {
        let mut tokens = Vec::new();
        for (name, setting, role, scopes) in [
            (
                "ADMIN_TOKEN",
                &operators.admin_token_file,
                Role::Admin,
                &[][..],
            ),
            (
                "BACKUP_TOKEN",
                &operators.backup_token_file,
                Role::Viewer,
                &[Scope::Backup],
            ),
            ("READ_TOKEN", &operators.read_token_file, Role::Viewer, &[]),
        ] {
            ensure!(
                env::var_os(name).is_none(),
                "{name} stands in the environment, which others can read: put it into a file and name that by {name}_FILE"
            );
            let of_environment =
                || env::var_os(format!("{name}_FILE")).map(|path| Source::File(path.into()));
            let source = setting
                .clone()
                .or_else(of_environment)
                .or_else(|| Source::conventional(name));
            let Some(source) = source else {
                continue;
            };
            let token = source.read(name).await?;
            let length = token.expose().len();
            ensure!(
                length >= MIN_BYTES,
                "{name}: {source} has fewer than {MIN_BYTES} characters"
            );
            tokens.push(FixedToken {
                name,
                hash: Sha256::digest(token.expose()).into(),
                role,
                scopes,
            });
        }
        Ok(Self(tokens))
    }

    /// The caller that a token names.
    pub fn find(&self, token: &str, address: IpAddr) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(token.trim()).into();
        let same = |known: &&FixedToken| bool::from(known.hash.ct_eq(&hash));
        let found = self.0.iter().find(same)?;
        Some(Caller {
            kind: ActorKind::Token,
            id: found.name.to_owned(),
            name: found.name.to_owned(),
            role: Some(found.role),
            scopes: found.scopes.to_vec(),
            repository: None,
            address,
            session: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn load(admin: &str, read: &str) -> anyhow::Result<FixedTokens> {
        let dir = tempfile::tempdir().unwrap();
        let mut operators = Operators::default();
        for (setting, text) in [
            (&mut operators.admin_token_file, admin),
            (&mut operators.read_token_file, read),
        ] {
            let path = dir.path().join(text.len().to_string());
            std::fs::write(&path, text).unwrap();
            *setting = Some(Source::File(path));
        }
        FixedTokens::load(&operators).await
    }

    #[tokio::test]
    async fn each_file_has_its_role() {
        let (admin, read) = ("a".repeat(MIN_BYTES), "r".repeat(40));
        let tokens = load(&format!("{admin}\n"), &read).await.unwrap();
        let role = |token: &str| {
            tokens
                .find(token, Ipv4Addr::LOCALHOST.into())
                .and_then(|caller| caller.role)
        };
        assert_eq!(role(&admin), Some(Role::Admin));
        assert_eq!(role(&read), Some(Role::Viewer));
        assert_eq!(role(""), None);
        assert_eq!(role(&"b".repeat(MIN_BYTES)), None);
    }

    #[tokio::test]
    async fn what_is_missing_or_short_stops_the_start_with_its_name() {
        let short = load(&"a".repeat(MIN_BYTES - 1), &"r".repeat(40))
            .await
            .unwrap_err();
        let short = format!("{short:#}");
        assert!(
            short.contains("ADMIN_TOKEN") && short.contains("fewer than 32"),
            "{short}"
        );
        let operators = Operators {
            backup_token_file: Some(Source::File("/nonexistent/backup".into())),
            ..Operators::default()
        };
        let missing = format!("{:#}", FixedTokens::load(&operators).await.unwrap_err());
        assert!(
            missing.contains("BACKUP_TOKEN") && missing.contains("/nonexistent"),
            "{missing}"
        );
    }
}
