//! Backups, as the collector decides about them.

pub mod ending;
pub mod expiry;
pub mod garbage;
pub mod objects;
pub mod orphans;
pub mod retention;
pub mod rewrite;
pub mod verification;
