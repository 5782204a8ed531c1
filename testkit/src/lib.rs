//! What Infratrack's tests are made of. Never shipped.

pub mod aws;
pub mod backlog;
pub mod bench;
pub mod browser;
pub mod clients;
pub mod clock;
pub mod fleet;
pub mod fuzz;
pub mod ledger;
pub mod nemesis;
pub mod operators;
pub mod package_files;
pub mod postgres;
pub mod power;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod rig;
pub mod s3;
pub mod wire;

// `fuzz` finds it here, and in the crate of the fuzzers under the same name.
use infratrack_agent::backup::files::records as cache;
use infratrack_agent::packages;
use infratrack_agent::restart;
use infratrack_collector::advisories::documents as advisories;
use infratrack_collector::inventory::documents;
