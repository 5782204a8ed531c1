//! The testkit's own tests, and those that look at the whole repository.

mod apart;
mod architecture;
mod backlog;
mod changeover;
mod corpus;
mod crowd;
mod database;
mod descriptors;
mod dribble;
mod fleet;
mod herd;
mod nemesis;
#[cfg(feature = "failpoints")]
mod points;
mod power;
mod state_dir;
mod wire;
