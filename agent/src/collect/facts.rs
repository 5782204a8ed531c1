//! All facts of the host, one state key a source, always the same sources in the same order.
//!
//! Facts are what stays: no counters, no free space, nothing that moves by itself, so that a hash
//! changes when the host does. A source that fails or hangs yields an "unknown" fact and stops no
//! other. Called at start, on a schedule, on the command "refresh facts", and by `facts`.

use std::path::PathBuf;
use std::time::Duration;

use rmpv::Value;
use tokio::time::timeout;

use super::bounded::Bounded;
use super::{
    Fact, Reason, Root, block_devices, cloud, cpu, dmi, dns, identity, kernel, listening, local,
    memory, mounts, network, os, package_logs, reboot, sensors, systemd, time, updates, users,
    virtualization,
};

/// No source takes a tenth of a second on a host in order.
const LIMIT: Duration = Duration::from_secs(5);

type Read = fn(&Root) -> Result<Value, Reason>;

/// Sources that only read files.
const SOURCES: &[(&str, Read)] = &[
    ("facts.block_devices", block_devices::collect),
    ("facts.cpu", cpu::collect),
    ("facts.dmi", dmi::collect),
    ("facts.dns", dns::collect),
    ("facts.identity", identity::collect),
    ("facts.kernel", kernel::collect),
    ("facts.listening", listening::collect),
    ("facts.memory", memory::collect),
    ("facts.mounts", mounts::collect),
    ("facts.network", network::collect),
    ("facts.os", os::collect),
    ("facts.package_logs", package_logs::collect),
    ("facts.reboot", reboot::collect),
    ("facts.sensors", sensors::collect),
    ("facts.time", time::collect),
    ("facts.updates", updates::collect),
    ("facts.users", users::collect),
    ("facts.virtualization", virtualization::collect),
];

/// The sources, and which of them still hang from an earlier collection.
pub struct FactSources {
    root: Root,
    facts_dir: PathBuf,
    instance_metadata: Option<String>,
    bounded: Bounded,
}

impl FactSources {
    /// Sources that read below `root`, and the operator's own in `facts_dir`.
    pub fn new(root: Root, facts_dir: impl Into<PathBuf>) -> Self {
        Self {
            root,
            facts_dir: facts_dir.into(),
            instance_metadata: None,
            bounded: Bounded::default(),
        }
    }

    /// Asks the cloud's metadata service, too, where one is configured.
    #[must_use]
    pub fn with_instance_metadata(self, service: Option<String>) -> Self {
        Self {
            instance_metadata: service,
            ..self
        }
    }

    /// Asks every source, one after another.
    pub async fn collect(&mut self) -> Vec<Fact> {
        let mut facts = Vec::with_capacity(SOURCES.len() + 3);
        for (key, read) in SOURCES {
            let (root, read) = (self.root.clone(), *read);
            let answer = self.bounded.run(key, LIMIT, move || read(&root)).await;
            facts.push(Fact::new(key, answer.and_then(|body| body)));
        }
        let directory = self.facts_dir.clone();
        let key = "facts.local";
        let answer = self
            .bounded
            .run(key, LIMIT, move || local::collect(&directory))
            .await;
        facts.push(Fact::new(key, answer.and_then(|body| body)));

        let answer = within(LIMIT, systemd::collect(&self.root, LIMIT)).await;
        facts.push(Fact::new("facts.systemd", answer));

        if let Some(service) = &self.instance_metadata {
            let answer = within(LIMIT, cloud::collect(service)).await;
            facts.push(Fact::new("facts.cloud", answer));
        }
        facts
    }
}

async fn within(
    limit: Duration,
    source: impl Future<Output = Result<Value, Reason>>,
) -> Result<Value, Reason> {
    timeout(limit, source)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_ends_is_unknown_after_its_limit() {
        let answer = within(LIMIT, std::future::pending()).await;
        assert_eq!(answer, Err("no answer within 5000 ms".to_owned()));
    }

    #[tokio::test]
    async fn an_empty_host_yields_every_fact_and_each_says_why_it_is_unknown() {
        let (keep, root) = fixture::host(&[]);
        let facts_dir = keep.path().join("facts.d");
        let facts = FactSources::new(root, facts_dir).collect().await;
        assert_eq!(facts.len(), SOURCES.len() + 2);
        for fact in facts.iter().filter(|fact| fact.key != "facts.local") {
            let body = fixture::json(&fact.body);
            assert!(body["unknown"].is_string(), "{}: {body}", fact.key);
        }
    }

    #[tokio::test]
    async fn the_cloud_is_a_fact_only_where_its_service_is_configured() {
        let (keep, root) = fixture::host(&[]);
        // Nobody listens there.
        let service = Some("http://127.0.0.1:1".to_owned());
        let mut sources = FactSources::new(root, keep.path()).with_instance_metadata(service);
        let facts = sources.collect().await;
        assert_eq!(facts.len(), SOURCES.len() + 3);
        let cloud = facts.last().unwrap();
        assert_eq!(cloud.key, "facts.cloud");
        assert!(fixture::json(&cloud.body)["unknown"].is_string());
    }
}
