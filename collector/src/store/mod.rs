//! All SQL, one file per table group; nothing else holds SQL.
//!
//! One function is one statement on `&mut PgConnection`: the caller owns the transaction. Bulk writes
//! take their rows sorted by key, so that two writers cannot deadlock.

pub mod advisories;
pub mod advisory_search;
pub mod agent_certs;
pub mod agent_streams;
pub mod api_tokens;
pub mod audit_chain;
pub mod audit_log;
pub mod backup_grants;
pub mod backup_run_search;
pub mod backup_runs;
pub mod backup_snapshots;
pub mod ca_log;
pub mod change_edits;
pub mod change_hosts;
pub mod change_links;
pub mod change_runs;
pub mod changes;
pub mod collectors;
pub mod commands;
pub mod dead_letters;
pub mod drill_search;
pub mod drills;
pub mod enroll_tokens;
pub mod events;
pub mod expected_hosts;
pub mod exposure;
pub mod facts;
pub mod failure;
pub mod fleet;
pub mod gaps;
pub mod garbage;
pub mod heartbeats;
pub mod host_conflicts;
pub mod host_instances;
pub mod host_liveness;
pub mod host_packages;
pub mod host_patches;
pub mod host_search;
pub mod host_states;
pub mod hosts;
pub mod idempotency_keys;
pub mod inventories;
pub mod jobs;
pub mod locks;
pub mod login_failures;
pub mod oidc_logins;
pub mod package_search;
pub mod packages;
pub mod packs;
pub mod partitions;
pub mod pending_updates;
pub mod play_results;
pub mod plays;
pub mod policies;
pub mod pool;
pub mod probes;
pub mod related_changes;
pub mod rollups;
pub mod run_resources;
pub mod sample_hosts;
pub mod saved_views;
pub mod schema;
pub mod series;
pub mod sessions;
pub mod set_apart;
pub mod setup_links;
pub mod snapshots;
pub mod system;
pub mod tasks;
pub mod timeline;
pub mod update_search;
pub mod user_identities;
pub mod users;
pub mod verification;
pub mod volume_edits;
pub mod volume_figures;
pub mod volume_search;
pub mod volumes;

use infratrack_shared::time::UnixMillis;
use serde_json::value::RawValue;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::macros::datetime;

/// JSON that is text already: Postgres is sent it as it is.
pub type JsonText = Json<Box<RawValue>>;

/// A document of the collector's own as JSON. Its strings have no NUL.
pub fn json_text(value: &serde_json::Value) -> JsonText {
    Json(serde_json::value::to_raw_value(value).unwrap_or_default())
}

/// The instant as Postgres takes it. Out of its range: clamped to the year 1 or 9999.
pub fn timestamp(at: UnixMillis) -> OffsetDateTime {
    let nanos = i128::from(at.0) * 1_000_000;
    let (first, last) = (
        datetime!(0001-01-01 0:00 UTC),
        datetime!(9999-12-31 23:59 UTC),
    );
    let nearest = if at.0 < 0 { first } else { last };
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(nearest)
        .clamp(first, last)
}

/// The instant as the wire has it.
pub fn unix_millis(at: OffsetDateTime) -> UnixMillis {
    let millis = at.unix_timestamp_nanos() / 1_000_000;
    UnixMillis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// Text as Postgres takes it: without NUL, for which U+FFFD stands.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
