//! Logging in by a provider of OpenID Connect: who it is, and whose groups may do what.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use documented::DocumentedFields;
use openidconnect::url::{Host, Url};
use serde::{Deserialize, Serialize};

use super::Operators;
use crate::roles::Role;
use crate::secret::{Secret, SecretError, Source};

/// Logging in by a provider of OpenID Connect.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Oidc {
    /// The provider, as it calls itself: `https://login.example.org/realms/main`; empty: nobody logs in by one. It sends
    /// browsers back to `/login/oidc/callback` below `operators.url`.
    pub issuer: String,
    /// What the provider calls us.
    pub client_id: String,
    /// The secret it gave us: a path, `credential:NAME`, `aws-sm:NAME[#KEY]` or `aws-ssm:/PATH`; else systemd's credential
    /// `oidc-client-secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<Source>,
    /// What it is asked for.
    pub scopes: Vec<String>,
    /// The claim that users are called by; without it `email`, then `sub`.
    pub name_claim: String,
    /// The claim with a user's groups: a list, or one.
    pub groups_claim: String,
    /// The role that each group has; of several the highest. `{ staff = "viewer", sre = "admin" }`.
    pub roles: BTreeMap<String, String>,
    /// The role of users in none of these groups; empty: they may not log in.
    pub default_role: String,
    /// PEM; the CA that the provider's certificate is from. Without: those that this machine trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What stands on the button.
    pub label: String,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            client_secret_file: None,
            scopes: ["openid", "profile", "email"].map(str::to_owned).to_vec(),
            name_claim: "preferred_username".to_owned(),
            groups_claim: "groups".to_owned(),
            roles: BTreeMap::new(),
            default_role: String::new(),
            ca_file: None,
            label: "Log in with single sign-on".to_owned(),
        }
    }
}

impl Oidc {
    /// Whether people may log in by a provider.
    pub fn is_on(&self) -> bool {
        !self.issuer.is_empty()
    }

    /// What a type alone can't say: half a configuration is none.
    pub(super) fn check(&self, operators: &Operators) -> anyhow::Result<()> {
        if !self.is_on() {
            let is_begun = !self.client_id.is_empty()
                || self.client_secret_file.is_some()
                || !self.roles.is_empty()
                || !self.default_role.is_empty();
            ensure!(
                !is_begun,
                "oidc.issuer is missing; the rest of [oidc] needs it"
            );
            return Ok(());
        }
        let issuer = Url::parse(&self.issuer)
            .with_context(|| format!("oidc.issuer {:?} is no URL", self.issuer))?;
        ensure!(
            issuer.scheme() == "https" || issuer.scheme() == "http" && is_loopback(&issuer),
            "oidc.issuer {:?} must begin with https://",
            self.issuer
        );
        ensure!(!self.client_id.is_empty(), "oidc.client_id is missing");
        ensure!(
            self.client_secret_source().is_some(),
            "oidc.client_secret_file is missing"
        );
        ensure!(
            !operators.url.is_empty(),
            "operators.url is missing; with [oidc] the provider sends browsers back to it"
        );
        ensure!(
            self.scopes.iter().any(|scope| scope == "openid"),
            "oidc.scopes must have \"openid\" in it"
        );
        for (name, claim) in [("name", &self.name_claim), ("groups", &self.groups_claim)] {
            ensure!(!claim.is_empty(), "oidc.{name}_claim is empty");
        }
        ensure!(
            !self.roles.is_empty() || !self.default_role.is_empty(),
            "oidc.roles is missing; without it or oidc.default_role nobody may log in"
        );
        let default = Some(&self.default_role).filter(|role| !role.is_empty());
        for role in self.roles.values().chain(default) {
            ensure!(
                Role::parse(role).is_some(),
                "oidc.roles: {role:?} is no role: there are viewer, operator, lead and admin"
            );
        }
        Ok(())
    }

    fn client_secret_source(&self) -> Option<Source> {
        let configured = self.client_secret_file.clone();
        configured.or_else(|| Source::conventional("oidc-client-secret"))
    }

    /// The provider's secret for us; `None` where nobody logs in by one.
    pub async fn client_secret(&self) -> Result<Option<Secret>, SecretError> {
        match self.client_secret_source().filter(|_| self.is_on()) {
            Some(source) => source.read("oidc.client_secret_file").await.map(Some),
            None => Ok(None),
        }
    }
}

/// Whether a URL leads to this machine only: there, and nowhere else, a provider may do without TLS.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const WHOLE: &str = r#"
        [operators]
        url = "https://infratrack.example"
        [oidc]
        issuer = "https://login.example.org/realms/main"
        client_id = "infratrack"
        client_secret_file = "/etc/infratrack/oidc"
        roles = { staff = "read", sre = "admin" }
    "#;

    fn checked(text: &str) -> Result<(), String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_section_is_taken_and_half_of_one_is_refused_by_what_is_missing() {
        checked(WHOLE).unwrap();
        for (what, begin) in [
            ("oidc.issuer", "issuer ="),
            ("oidc.client_id", "client_id ="),
            ("oidc.client_secret_file", "client_secret_file ="),
            ("oidc.roles", "roles ="),
            ("operators.url", "url ="),
        ] {
            let lines = WHOLE.lines();
            let half: Vec<_> = lines
                .filter(|line| !line.trim().starts_with(begin))
                .collect();
            let error = checked(&half.join("\n")).unwrap_err();
            assert!(error.starts_with(&format!("{what} is missing")), "{error}");
        }
    }

    #[test]
    fn a_provider_without_tls_is_refused_except_on_this_machine() {
        let with = |issuer| checked(&WHOLE.replace("https://login.example.org", issuer));
        let error = with("http://login.example.org").unwrap_err();
        assert!(error.contains("must begin with https://"), "{error}");
        assert!(with("http://127.0.0.1.example.org").is_err());
        with("http://127.0.0.1:9000").unwrap();
        with("http://[::1]:9000").unwrap();
    }

    #[test]
    fn a_role_that_is_none_is_named() {
        let error = checked(&WHOLE.replace("\"admin\"", "\"root\"")).unwrap_err();
        assert!(error.contains("\"root\" is no role"), "{error}");
    }
}
