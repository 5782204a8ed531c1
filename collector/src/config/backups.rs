//! The section `backups`: what hosts back up.

use anyhow::ensure;
use documented::DocumentedFields;
use infratrack_shared::backup::MAX_PACK_BYTES;
use serde::{Deserialize, Serialize};

/// What hosts back up.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Backups {
    /// Memory for packs and snapshots that arrive, in bytes, 64 MiB or more. A pack has up to 32 MiB; hosts for which there is
    /// no room come again.
    pub pack_memory_bytes: u64,
    /// Bytes of packs that are read again a day, to see that they are as they were stored. Each is to be read within 90 days:
    /// where this is too small for that, the log and the metric `backup_packs_overdue` say so.
    pub verify_bytes_per_day: u64,
}

impl Default for Backups {
    fn default() -> Self {
        Self {
            pack_memory_bytes: 256 * 1024 * 1024,
            // 9 TiB in 90 days, at 1.2 MiB a second.
            verify_bytes_per_day: 100 * 1024 * 1024 * 1024,
        }
    }
}

impl Backups {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let least = 2 * MAX_PACK_BYTES as u64;
        ensure!(
            self.pack_memory_bytes >= least,
            "backups.pack_memory_bytes must be {least} or more"
        );
        Ok(())
    }
}
