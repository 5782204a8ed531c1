//! Backups, as the collector decides about them.

pub mod ending;
pub mod objects;
pub mod retention;
