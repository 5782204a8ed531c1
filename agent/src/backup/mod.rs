//! Backups of this host's volumes, and their way back. The formats are docs/formats/backup.md, the conversation with the collector
//! `infratrack_shared::wire::backup`.

pub mod chunks;
mod command;
pub mod config;
pub mod control;
mod counted;
mod cut;
mod disk;
pub mod drill;
pub mod due;
pub mod files;
pub mod keys;
pub mod pace;
pub mod pipeline;
mod process;
mod pulse;
pub mod remote;
pub mod restore;
pub mod run;
mod volume_lock;
