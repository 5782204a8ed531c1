//! What Infratrack's tests are made of. Never shipped.

pub mod backlog;
pub mod bench;
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
pub mod proxy;
pub mod rig;
pub mod wire;
