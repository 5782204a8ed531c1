//! The section `changes`: how runs of tools are linked to hosts, and how long they are kept.

use std::time::Duration;

use anyhow::ensure;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::changes::terraform::Rule;
use crate::inventory::documents::is_tag;

const DAY: Duration = Duration::from_secs(86_400);
/// In place of tags: every host. No tag has this character.
const EVERY_HOST: &str = "*";
/// Own rules.
const MAX_RULES: usize = 1_000;

/// What Terraform and Ansible did to hosts.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// How long a resource without a host waits for it to enroll, or for a state that tells more of it.
    #[serde(with = "humantime_serde")]
    pub links_wait: Duration,
    /// How long changes are kept, from their end.
    #[serde(with = "humantime_serde")]
    pub kept: Duration,
    /// Hosts whose agents may bring plays: those with one of these tags (`control-node`, `role=ci`); `*` is every host, an
    /// empty list none. What a pipeline brings with a token is not meant.
    pub plays_from: Vec<String>,
    /// What tells hosts beside the built-in table: `[[changes.links]]` with `type`, `path` (`nics/*/mac`), `mark` (`host`,
    /// `instance_id`, `uuid`, `serial`, `machine_id`, `mac`, `public_address`, `private_address`, `fqdn`, `name`), and
    /// `affects = true` where the resource is not the host but attached to it.
    pub links: Vec<Rule>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            links_wait: 30 * DAY,
            kept: 730 * DAY,
            plays_from: vec![EVERY_HOST.to_owned()],
            links: Vec::new(),
        }
    }
}

impl Changes {
    /// Whether every host's agent may bring plays, whatever its tags.
    pub fn takes_plays_from_every_host(&self) -> bool {
        self.plays_from.iter().any(|tag| tag == EVERY_HOST)
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let most = MAX_RULES;
        ensure!(
            self.links.len() <= most,
            "changes.links may be {most} at most"
        );
        ensure!(self.kept >= DAY, "changes.kept must be a day or more");
        for tag in &self.plays_from {
            ensure!(
                tag == EVERY_HOST || is_tag(tag),
                "changes.plays_from: {tag:?} is neither a tag (letters, digits and - _ . : / = + @) nor *"
            );
        }
        for (index, rule) in self.links.iter().enumerate() {
            let is_whole = !rule.kind.is_empty() && !rule.path.is_empty();
            ensure!(is_whole, "changes.links[{index}] needs a type and a path");
        }
        Ok(())
    }
}
