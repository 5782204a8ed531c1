//! The measurements behind `make bench`, and what they have in common.
//!
//! A result is a ratio: the baseline is measured in the same run, in turns with the subject.

pub mod agent;
pub mod api;
pub mod beats;
pub mod changes;
pub mod connection;
pub mod cpu;
pub mod document;
pub mod drive;
pub mod front;
pub mod ingest;
pub mod loader;
pub mod machine;
pub mod members;
pub mod memory;
pub mod packages;
pub mod report;
pub mod rounds;
pub mod sender;
pub mod subject;
pub mod ui;

use std::time::Duration;

/// The time within which this part of them was done, of sorted ones.
pub fn percentile(took: &[Duration], part: f64) -> Duration {
    let last = took.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let index = (last as f64 * part).ceil() as usize;
    took.get(index).copied().unwrap_or_default()
}
