//! The sections `inventory` and `probes`: which documents name hosts, and which hosts are probed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use documented::DocumentedFields;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::aws::s3::Object;
use crate::inventory::documents::Kind;

/// What knows of hosts beside their agents.
#[derive(Clone, Debug, Default, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Inventory {
    /// Tables of `name`, `kind` (`ansible`, `terraform` or `csv`), `file` or `s3` (`s3://bucket/key`), to read it by itself
    /// `interval`, and `resolve_names = true` to look up names in `ansible_host`.
    pub sources: Vec<Source>,
}

/// A document that is synced by its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `s3://bucket/key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<String>,
    /// Whether names that stand in place of addresses are looked up.
    #[serde(default)]
    pub resolve_names: bool,
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub interval: Option<Duration>,
}

/// Where a source's document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    S3(Object),
}

impl Source {
    /// Where its document is; an error where it has no place, or two, or one that can't be.
    pub fn place(&self) -> anyhow::Result<Place> {
        let name = &self.name;
        match (&self.file, &self.s3) {
            (Some(file), None) => {
                ensure!(
                    !file.as_os_str().is_empty(),
                    "inventory.sources: the file of {name:?} is empty"
                );
                Ok(Place::File(file.clone()))
            }
            (None, Some(s3)) => match s3.parse() {
                Ok(object) => Ok(Place::S3(object)),
                Err(wrong) => bail!("inventory.sources: the s3 of {name:?} {wrong}"),
            },
            (Some(_), Some(_)) => bail!("inventory.sources: {name:?} has both file and s3"),
            (None, None) => bail!("inventory.sources: {name:?} has neither file nor s3"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::S3(object) => object.fmt(f),
        }
    }
}

/// How hosts without an agent are looked after.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Probes {
    /// Only addresses in these networks are probed; empty: none.
    pub networks: Vec<IpNet>,
    /// TCP ports; one that refuses is an answer too.
    pub ports: Vec<u16>,
    /// How often a host is probed: late after 2 probes without an answer, offline after 3.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// For an answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Hosts that are probed at once.
    pub concurrency: usize,
    /// Ping too, where the kernel lets unprivileged processes (`net.ipv4.ping_group_range`).
    pub icmp: bool,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            ports: vec![22],
            interval: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
            concurrency: 64,
            icmp: true,
        }
    }
}

/// What a source may be called.
pub fn is_source_name(name: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.:/".contains(char);
    (1..=128).contains(&name.len()) && name.chars().all(plain)
}

impl Inventory {
    pub(super) fn check(&self, probes: &Probes) -> anyhow::Result<()> {
        probes.check()?;
        ensure!(
            self.sources.len() <= 100,
            "inventory.sources may be 100 at most"
        );
        for (index, source) in self.sources.iter().enumerate() {
            ensure!(
                is_source_name(&source.name),
                "inventory.sources: the name {:?} may have only letters, digits and - _ . : /",
                source.name
            );
            source.place()?;
            let others = self.sources.iter().take(index);
            ensure!(
                others.into_iter().all(|other| other.name != source.name),
                "inventory.sources has {:?} twice",
                source.name
            );
            ensure!(
                source
                    .interval
                    .is_none_or(|interval| interval >= Duration::from_secs(10)),
                "inventory.sources: the interval of {:?} must be at least 10 s",
                source.name
            );
        }
        Ok(())
    }
}

impl Probes {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.ports.contains(&0) && self.ports.len() <= 16,
            "probes.ports must be at most 16 ports from 1 to 65535"
        );
        ensure!(
            (Duration::from_secs(10)..=Duration::from_secs(86_400)).contains(&self.interval),
            "probes.interval must be from 10 s to 1 day"
        );
        ensure!(
            (Duration::from_millis(50)..=Duration::from_secs(5)).contains(&self.timeout),
            "probes.timeout must be from 50 ms to 5 s"
        );
        ensure!(
            (1..=512).contains(&self.concurrency),
            "probes.concurrency must be from 1 to 512"
        );
        Ok(())
    }
}
