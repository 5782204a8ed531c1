//! What a sync did, or would do: totals, and the first of each kind by name.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// Of each kind this many are shown.
pub const MOST_SHOWN: usize = 100;

/// All in number, some by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Shown<T> {
    pub total: usize,
    /// The first hundred.
    pub items: Vec<T>,
}

impl<T> Default for Shown<T> {
    fn default() -> Self {
        Self {
            total: 0,
            items: Vec::new(),
        }
    }
}

impl<T> Shown<T> {
    /// Counts one more, and shows it while there is room.
    pub fn push(&mut self, item: T) {
        self.total += 1;
        if self.items.len() < MOST_SHOWN {
            self.items.push(item);
        }
    }
}

/// A host that an entry means.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SyncedHost {
    /// What names it in its source.
    pub key: String,
    pub name: String,
    /// Null for one that is yet to be made.
    pub host_id: Option<Uuid>,
}

/// A host that the source changes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SyncedChange {
    #[serde(flatten)]
    pub host: SyncedHost,
    /// The fields that change, as they were.
    #[schema(value_type = Object)]
    pub before: Value,
    #[schema(value_type = Object)]
    pub after: Value,
}

/// What could not be decided; nothing was done for the last of the keys.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Conflict {
    pub keys: Vec<String>,
    pub host_ids: Vec<Uuid>,
    pub detail: String,
}

/// What a sync did; of a dry run, what it would do.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct SyncReport {
    pub source: String,
    /// `ansible | terraform | csv`.
    pub kind: String,
    pub dry_run: bool,
    /// Hosts in the document.
    pub entries: usize,
    #[schema(inline)]
    pub created: Shown<SyncedHost>,
    #[schema(inline)]
    pub updated: Shown<SyncedChange>,
    pub unchanged: usize,
    /// No longer in the source.
    #[schema(inline)]
    pub missing: Shown<SyncedHost>,
    /// In the source again.
    #[schema(inline)]
    pub returned: Shown<SyncedHost>,
    #[schema(inline)]
    pub conflicts: Shown<Conflict>,
    #[schema(inline)]
    pub warnings: Shown<String>,
}
