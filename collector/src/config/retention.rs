//! The section `retention`: how long rows are kept.

use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// How long rows are kept.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Raw heartbeats; whole days (UTC) go at once.
    #[serde(with = "humantime_serde")]
    pub heartbeats: Duration,
    /// Their sums of 5 minutes.
    #[serde(with = "humantime_serde")]
    pub heartbeats_5m: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            heartbeats: 2 * super::DAY,
            heartbeats_5m: 90 * super::DAY,
        }
    }
}
