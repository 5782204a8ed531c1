//! The measurements behind `make bench`, and what they have in common.
//!
//! A result is a ratio: the baseline is measured in the same run, in turns with the subject.

pub mod agent;
pub mod api;
pub mod connection;
pub mod cpu;
pub mod document;
pub mod drive;
pub mod front;
pub mod ingest;
pub mod loader;
pub mod machine;
pub mod members;
pub mod report;
pub mod rounds;
pub mod sender;
pub mod subject;
pub mod ui;
