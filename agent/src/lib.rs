//! Infratrack's agent: observes one Linux host and reports it to a collector.

pub mod backoff;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod daemon;
pub mod enroll;
pub mod failpoint;
pub mod identity;
pub mod packages;
pub mod plays;
pub mod reporter;
pub mod restart;
pub mod returning;
pub mod spool;
pub mod tls;
pub mod updates;
pub mod uplink;
pub mod watch;
