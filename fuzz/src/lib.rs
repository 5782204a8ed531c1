//! The targets are testkit's, so that the kept corpus is replayed by its tests; taken in by path, because
//! testkit itself brings a database driver and more.

#[path = "../../testkit/src/fuzz.rs"]
pub mod targets;

#[path = "../../collector/src/advisories/documents/mod.rs"]
pub mod advisories;

#[path = "../../collector/src/inventory/documents/mod.rs"]
pub mod documents;

#[path = "../../agent/src/backup/files/cache/records/mod.rs"]
pub mod cache;

#[path = "../../agent/src/packages/mod.rs"]
pub mod packages;

#[path = "../../agent/src/restart/mod.rs"]
pub mod restart;
