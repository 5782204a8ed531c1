//! The section `patches`: by when security updates are to be installed.

use std::collections::BTreeMap;
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(86_400);

/// By when security updates are to be installed, counted from when they were first seen to be pending.
#[derive(Clone, Debug, Default, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Patches {
    /// Where no tag of the host says otherwise.
    pub within: Within,
    /// For hosts with these tags; of several the shortest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Within>,
}

/// How long each severity may take.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Within {
    /// Those that are called critical.
    #[serde(with = "humantime_serde")]
    pub critical: Duration,
    /// Those that are called important, or high.
    #[serde(with = "humantime_serde")]
    pub important: Duration,
    /// Those that are called moderate, or medium.
    #[serde(with = "humantime_serde")]
    pub moderate: Duration,
    /// Those that are called low.
    #[serde(with = "humantime_serde")]
    pub low: Duration,
    /// Those whose severity nobody says: all of Debian's and Ubuntu's.
    #[serde(with = "humantime_serde")]
    pub unrated: Duration,
}

impl Default for Within {
    fn default() -> Self {
        Self {
            critical: 7 * DAY,
            important: 14 * DAY,
            moderate: 30 * DAY,
            low: 90 * DAY,
            unrated: 30 * DAY,
        }
    }
}
