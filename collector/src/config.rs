//! The collector's configuration: `/etc/infratrack/collector.toml`, one struct a section.
//!
//! Secrets stand in files that this names, or in the environment; never in here.

pub mod advisories;
mod backups;
mod ca;
mod changes;
pub mod inventory;
mod jobs;
mod oidc;
mod patches;
mod retention;
pub mod s3;
mod telemetry;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use documented::DocumentedFields;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use backups::Backups;
pub use ca::CertificateAuthority;
pub use changes::Changes;
pub use jobs::{Interval, Jobs};
pub use oidc::Oidc;
pub use patches::{Patches, Within};
pub use retention::Retention;
pub use telemetry::Telemetry;

use crate::secret::{Secret, SecretError, Source};

/// Everything that can be set. Every field has a default.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Keys of the CA, the private Postgres, blobs.
    pub data_dir: PathBuf,
    /// Names this fleet in certificates: `spiffe://<trust-domain>/host/…`.
    pub trust_domain: String,
    /// The listener for agents: mTLS, always.
    pub agents: Agents,
    /// The listener for first contact: TLS, pinned by the token.
    pub enroll: Enroll,
    /// The listener for people and programs.
    pub operators: Operators,
    /// Where rows go. Without a URL: a private Postgres below `data_dir`.
    pub database: Database,
    /// Where S3 is, and the bucket for blobs. Credentials are found as every program of AWS finds them: environment,
    /// profile, web identity, container, instance.
    pub s3: s3::S3,
    /// Logging in by a provider of OpenID Connect.
    pub oidc: Oidc,
    /// The certificate authority's keys, where they are not files below `data_dir`.
    pub ca: CertificateAuthority,
    /// What agents are given.
    pub certificates: Certificates,
    /// How much may be under way.
    pub ingest: Ingest,
    /// When silence is said to be what.
    pub liveness: Liveness,
    /// How long rows are kept.
    pub retention: Retention,
    /// What collectors do by themselves. A table `[jobs.intervals]` says how often where not as usual: `rollup = "5m"`.
    pub jobs: Jobs,
    /// By when security updates are to be installed. A table `[patches.tags.prod]` says so for hosts with the tag `prod`.
    pub patches: Patches,
    /// What publishers say of vulnerabilities in distributions' packages.
    pub advisories: advisories::Advisories,
    /// What Terraform and Ansible did to hosts.
    pub changes: Changes,
    /// What hosts back up.
    pub backups: Backups,
    /// Traces of the collector's own work, for OpenTelemetry.
    pub telemetry: Telemetry,
    /// What knows of hosts beside their agents.
    pub inventory: inventory::Inventory,
    /// How hosts without an agent are looked after.
    pub probes: inventory::Probes,
}

/// The listener for agents: mTLS, always.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// Address and port.
    pub listen: SocketAddr,
    /// `host:port` under which agents reach the collectors; empty: the address listened on, or this machine's name.
    pub endpoints: Vec<String>,
    /// Load balancers that send PROXY protocol v2; required from them, refused from others.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Heartbeats that agents are asked for.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// How often agents look whether their facts have changed.
    #[serde(with = "humantime_serde")]
    pub facts_interval: Duration,
}

/// The listener for first contact: TLS, pinned by the token.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Enroll {
    /// Address and port.
    pub listen: SocketAddr,
    /// `host:port` under which new hosts reach it; empty: the address listened on, or this machine's name.
    pub endpoint: String,
    /// As `agents.proxy_protocol_from`.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// The listener for people and programs.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Operators {
    /// Address and port.
    pub listen: SocketAddr,
    /// Under what browsers reach it, `https://infratrack.example`; empty: as they ask. Needed behind a proxy that has the
    /// certificate.
    pub url: String,
    /// Proxies whose `X-Forwarded-For` is believed, as networks; without it all who come through one share an address.
    pub forwarded_from: Vec<IpNet>,
    /// Up to so many hosts, `GET /metrics` has one of its own for each.
    pub metrics_hosts: u32,
    /// Requests that a user or token may make a second.
    pub requests_per_second: u32,
    /// Requests that they may make at once.
    pub requests_burst: u32,
    /// A file with a token of 32 characters or more that has the role admin; else the file that the environment's
    /// `ADMIN_TOKEN_FILE` names, else systemd's credential `ADMIN_TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token_file: Option<Source>,
    /// Likewise `BACKUP_TOKEN`: a viewer that may start backups and drills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_token_file: Option<Source>,
    /// Likewise `READ_TOKEN`: a viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_token_file: Option<Source>,
    /// Reverse proxies, as networks, that log users in and name them by `X-User` and `X-Role`. From elsewhere both are
    /// ignored. Needs one of the next two.
    pub users_from: Vec<IpNet>,
    /// The secret, of 32 characters or more, that such a proxy sends as `X-Proxy-Secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_from_secret_file: Option<Source>,
    /// PEM; who signs such a proxy's client certificate. Needs TLS here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_from_client_ca_file: Option<PathBuf>,
    /// PEM; with `tls_key_file`, TLS is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate_file: Option<PathBuf>,
    /// PEM; the key of that certificate: a path, `credential:NAME`, `aws-sm:NAME[#KEY]` or `aws-ssm:/PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<Source>,
    /// As `agents.proxy_protocol_from`.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// Where rows go. Without a URL: a private Postgres below `data_dir`.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// A secret that is `postgres://…`: a path, `credential:NAME`, `aws-sm:NAME[#KEY]` or `aws-ssm:/PATH`; else systemd's
    /// credential `database-url`, else the environment's `DATABASE_URL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<Source>,
    /// Connections to Postgres for everything but the writers: those have one more each, `ingest.writers`.
    pub max_connections: u32,
}

/// What agents are given.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// How long a host's certificate is valid; it is renewed at 60 to 72 % of that.
    #[serde(with = "humantime_serde")]
    pub lifetime: Duration,
}

/// How much may be under way.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Writers, each with a connection and its share of the hosts.
    pub writers: usize,
    /// How long a writer waits for more before it commits.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Rows that make a writer commit at once.
    pub flush_rows: usize,
    /// Requests that may wait for the writers.
    pub queue_requests: usize,
    /// Bytes of those requests, decoded.
    pub queue_bytes: usize,
    /// Batches a host may send a second.
    pub host_batches_per_second: u32,
    /// Batches a host may send at once.
    pub host_batches_burst: u32,
    /// Connections to the agent listener.
    pub connections: usize,
}

/// When silence is said to be what.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Liveness {
    /// A host is late.
    #[serde(with = "humantime_serde")]
    pub late_after: Duration,
    /// A host is offline.
    #[serde(with = "humantime_serde")]
    pub offline_after: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/infratrack-collector"),
            trust_domain: "infratrack".to_owned(),
            agents: Agents::default(),
            enroll: Enroll::default(),
            operators: Operators::default(),
            database: Database::default(),
            s3: s3::S3::default(),
            oidc: Oidc::default(),
            ca: CertificateAuthority::default(),
            certificates: Certificates::default(),
            ingest: Ingest::default(),
            liveness: Liveness::default(),
            retention: Retention::default(),
            jobs: Jobs::default(),
            patches: Patches::default(),
            advisories: advisories::Advisories::default(),
            changes: Changes::default(),
            backups: Backups::default(),
            telemetry: Telemetry::default(),
            inventory: inventory::Inventory::default(),
            probes: inventory::Probes::default(),
        }
    }
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            endpoints: Vec::new(),
            proxy_protocol_from: Vec::new(),
            heartbeat_interval: Duration::from_secs(30),
            facts_interval: Duration::from_secs(600),
        }
    }
}

impl Default for Enroll {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8444)),
            endpoint: String::new(),
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for Operators {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            url: String::new(),
            forwarded_from: Vec::new(),
            metrics_hosts: 1000,
            requests_per_second: 50,
            requests_burst: 500,
            admin_token_file: None,
            backup_token_file: None,
            read_token_file: None,
            users_from: Vec::new(),
            users_from_secret_file: None,
            users_from_client_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url_file: None,
            max_connections: 16,
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self { lifetime: 30 * DAY }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            writers: 2,
            linger: Duration::from_millis(5),
            flush_rows: 4000,
            queue_requests: 256,
            queue_bytes: 64 * 1024 * 1024,
            host_batches_per_second: 4,
            host_batches_burst: 20,
            connections: 20_000,
        }
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            late_after: Duration::from_secs(75),
            offline_after: Duration::from_secs(120),
        }
    }
}

impl Operators {
    /// Whether browsers talk TLS, to this process or to a proxy before it.
    pub fn is_https(&self) -> bool {
        self.tls_key_file.is_some() || self.url.starts_with("https://")
    }

    /// How browsers reach this collector, without a slash at its end.
    pub fn base_url(&self) -> String {
        if !self.url.is_empty() {
            return self.url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.is_https() { "https" } else { "http" };
        format!("{scheme}://{}", reachable(self.listen))
    }

    /// Half a trust in a proxy is a mistake, and what would come of it nobody can tell.
    fn check_proxy(&self) -> anyhow::Result<()> {
        let proof =
            self.users_from_secret_file.is_some() || self.users_from_client_ca_file.is_some();
        anyhow::ensure!(
            self.users_from.is_empty() || proof,
            "operators.users_from needs users_from_secret_file or users_from_client_ca_file"
        );
        anyhow::ensure!(
            !self.users_from.is_empty() || !proof,
            "operators.users_from_secret_file and users_from_client_ca_file need users_from, the proxies' networks"
        );
        anyhow::ensure!(
            self.users_from_client_ca_file.is_none() || self.tls_key_file.is_some(),
            "operators.users_from_client_ca_file needs tls_certificate_file and tls_key_file"
        );
        Ok(())
    }
}

impl Config {
    /// Reads `path`; where nobody named it and it is not there, the defaults.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let default = Path::new("/etc/infratrack/collector.toml");
        let path = match path {
            Some(path) => path,
            None if default.exists() => default,
            None => return Ok(Self::default()),
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let config: Self = toml::from_str(&text)
            .with_context(|| format!("{} is not a valid configuration", path.display()))?;
        config
            .check()
            .with_context(|| format!("{} is not a valid configuration", path.display()))?;
        Ok(config)
    }

    /// The addresses under which agents reach the collectors.
    pub fn agent_endpoints(&self) -> Vec<String> {
        match self.agents.endpoints.as_slice() {
            [] => vec![reachable(self.agents.listen)],
            endpoints => endpoints.to_vec(),
        }
    }

    /// The address under which new hosts reach the collectors.
    pub fn enroll_endpoint(&self) -> String {
        match self.enroll.endpoint.as_str() {
            "" => reachable(self.enroll.listen),
            endpoint => endpoint.to_owned(),
        }
    }

    /// What a type alone can't say.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            infratrack_shared::spiffe::is_trust_domain(&self.trust_domain),
            "trust_domain {:?} may have only lower-case letters, digits, '.', '-' and '_'",
            self.trust_domain
        );
        anyhow::ensure!(
            self.operators.tls_certificate_file.is_some() == self.operators.tls_key_file.is_some(),
            "operators.tls_certificate_file and operators.tls_key_file go together"
        );
        self.operators.check_proxy()?;
        self.s3.check()?;
        self.inventory.check(&self.probes)?;
        self.advisories.check()?;
        self.changes.check()?;
        self.backups.check()?;
        let url = self
            .operators
            .url
            .strip_suffix('/')
            .unwrap_or(&self.operators.url);
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        anyhow::ensure!(
            url.is_empty() || host.is_some_and(|host| !host.is_empty() && !host.contains('/')),
            "operators.url {:?} is not of the form https://infratrack.example",
            self.operators.url
        );
        self.oidc.check(&self.operators)?;
        self.telemetry.check()?;
        anyhow::ensure!(
            self.liveness.late_after < self.liveness.offline_after,
            "liveness.late_after must be shorter than liveness.offline_after"
        );
        anyhow::ensure!(
            (1..=64).contains(&self.ingest.writers),
            "ingest.writers must be from 1 to 64"
        );
        for (name, kept) in [
            ("heartbeats", self.retention.heartbeats),
            ("heartbeats_5m", self.retention.heartbeats_5m),
        ] {
            anyhow::ensure!(
                (DAY..=3650 * DAY).contains(&kept),
                "retention.{name} must be from 1 day to 10 years"
            );
        }
        anyhow::ensure!(
            self.jobs
                .intervals
                .values()
                .all(|every| (Duration::from_millis(100)..=7 * DAY).contains(&every.0)),
            "jobs.intervals must be from 100 ms to 7 days"
        );
        anyhow::ensure!(
            self.certificates.lifetime >= Duration::from_secs(600),
            "certificates.lifetime must be at least 10 minutes"
        );
        Ok(())
    }

    /// The database's URL, from its secret or the environment; `None`: a private Postgres.
    pub async fn database_url(&self) -> Result<Option<Secret>, SecretError> {
        let configured = self.database.url_file.clone();
        if let Some(source) = configured.or_else(|| Source::conventional("database-url")) {
            return source.read("database.url_file").await.map(Some);
        }
        let url = std::env::var("DATABASE_URL").ok();
        Ok(url.filter(|url| !url.is_empty()).map(Secret::from))
    }
}

/// Under what other machines reach an address that is listened on: where that is every address, the name
/// of this machine.
fn reachable(listen: SocketAddr) -> String {
    match nix::unistd::gethostname() {
        Ok(name) if listen.ip().is_unspecified() => {
            format!("{}:{}", name.to_string_lossy(), listen.port())
        }
        _ => listen.to_string(),
    }
}
