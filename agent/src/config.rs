//! The agent's configuration: `/etc/infratrack/agent.toml`, then `conf.d/*.toml` beside it in order of
//! name, later values in place of earlier ones.

use std::path::{Path, PathBuf};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::collect;

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/infratrack/agent.toml";

/// Everything that can be set. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Identity and spool; the agent's user must own it.
    pub state_dir: PathBuf,
    /// JSON files in here become facts below `local.`.
    pub facts_dir: PathBuf,
    /// Collectors as `host:port`, in place of those the enrollment named.
    pub endpoints: Vec<String>,
    /// Where to return with an expired certificate, `host:port`, in place of where the host was enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enroll_endpoint: Option<String>,
    /// Amazon's instance metadata service, `http://169.254.169.254`: what it says becomes the fact `cloud`. Not
    /// asked unless it is set here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_metadata: Option<String>,
    /// What the spool may take on disk, in bytes.
    pub spool_quota_bytes: u64,
    /// Where plays of Ansible are left, which the agent sends to the collector; empty: it does not.
    pub plays_dir: PathBuf,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/infratrack-agent"),
            facts_dir: PathBuf::from("/etc/infratrack/facts.d"),
            endpoints: Vec::new(),
            enroll_endpoint: None,
            instance_metadata: None,
            spool_quota_bytes: 128 * 1024 * 1024,
            plays_dir: PathBuf::from("/var/spool/infratrack/ansible"),
            log: "info".to_owned(),
        }
    }
}

/// What is wrong with the configuration, and in which file.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is no valid TOML", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("the configuration from {} is not valid", path.display())]
    Invalid {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("spool_quota_bytes must be at least {least}")]
    Quota { least: u64 },
    #[error("instance_metadata: {0}")]
    InstanceMetadata(String),
}

/// Less would be used up by an idle spool's own files.
const LEAST_QUOTA: u64 = 8 * 1024 * 1024;

impl Config {
    /// Reads `path` and its `conf.d`; where nobody named a path and there is none, the defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let main = path.unwrap_or(Path::new(DEFAULT_PATH));
        let mut files = Vec::new();
        if path.is_some() || main.exists() {
            files.push(main.to_owned());
        }
        files.extend(drop_ins(main)?);
        let mut merged = toml::Table::new();
        for file in &files {
            let read = |source| ConfigError::Read {
                path: file.clone(),
                source,
            };
            let text = std::fs::read_to_string(file).map_err(read)?;
            let table: toml::Table =
                toml::from_str(&text).map_err(|source| ConfigError::Parse {
                    path: file.clone(),
                    source: source.into(),
                })?;
            // Each file alone, so that a mistake is blamed on the file it is in.
            Self::deserialize(table.clone()).map_err(|source| ConfigError::Invalid {
                path: file.clone(),
                source: source.into(),
            })?;
            merged.extend(table);
        }
        let config = Self::deserialize(merged).map_err(|source| ConfigError::Invalid {
            path: main.to_owned(),
            source: source.into(),
        })?;
        if config.spool_quota_bytes < LEAST_QUOTA {
            return Err(ConfigError::Quota { least: LEAST_QUOTA });
        }
        if let Some(service) = &config.instance_metadata {
            collect::instance_metadata_address(service).map_err(ConfigError::InstanceMetadata)?;
        }
        Ok(config)
    }
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(dir) = main
        .parent()
        .map(|dir| dir.join("conf.d"))
        .filter(|dir| dir.is_dir())
    else {
        return Ok(Vec::new());
    };
    let read = |source| ConfigError::Read {
        path: dir.clone(),
        source,
    };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(&dir).map_err(read)?.collect();
    let mut files: Vec<_> = entries
        .map_err(read)?
        .iter()
        .map(std::fs::DirEntry::path)
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "toml")
    });
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_win_and_a_mistake_names_its_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let main = dir.path().join("agent.toml");
        std::fs::write(&main, "log = \"warn\"\nendpoints = [\"a:1\"]\n").expect("written");
        let drop_in = dir.path().join("conf.d");
        std::fs::create_dir(&drop_in).expect("made");
        std::fs::write(drop_in.join("20.toml"), "log = \"debug\"\n").expect("written");
        std::fs::write(drop_in.join("10.toml"), "log = \"trace\"\n").expect("written");
        let config = Config::load(Some(&main)).expect("valid");
        assert_eq!(config.log, "debug");
        assert_eq!(config.endpoints, ["a:1"]);
        std::fs::write(drop_in.join("30.toml"), "lgo = \"debug\"\n").expect("written");
        let error = Config::load(Some(&main)).expect_err("unknown setting");
        assert!(error.to_string().contains("30.toml"), "{error}");
    }

    #[test]
    fn the_metadata_service_is_asked_by_nobody_unless_it_is_set_and_set_right() {
        let dir = tempfile::tempdir().expect("tempdir");
        let main = dir.path().join("agent.toml");
        std::fs::write(&main, "").expect("written");
        let config = Config::load(Some(&main)).expect("valid");
        assert_eq!(config.instance_metadata, None);
        let set = "instance_metadata = \"http://169.254.169.254\"\n";
        std::fs::write(&main, set).expect("written");
        let config = Config::load(Some(&main)).expect("valid");
        assert!(config.instance_metadata.is_some());
        std::fs::write(&main, set.replace("http:", "https:")).expect("written");
        let error = Config::load(Some(&main)).expect_err("no TLS there");
        assert!(
            error.to_string().starts_with("instance_metadata: "),
            "{error}"
        );
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert!(matches!(
            Config::load(Some(Path::new("/nowhere/agent.toml"))),
            Err(ConfigError::Read { .. })
        ));
    }
}
