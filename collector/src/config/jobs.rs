//! The section `jobs`: how often collectors do what they do by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// What collectors do by themselves.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// How often a run is written down that went like the one before.
    #[serde(with = "humantime_serde")]
    pub record_every: Duration,
    /// How often jobs run where not as usual, by their names in `GET /api/v1/jobs`.
    pub intervals: BTreeMap<String, Interval>,
}

/// A duration in a table.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Interval(#[serde(with = "humantime_serde")] pub Duration);

impl Default for Jobs {
    fn default() -> Self {
        Self {
            record_every: Duration::from_secs(10),
            intervals: BTreeMap::new(),
        }
    }
}
