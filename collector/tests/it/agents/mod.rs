//! What agents call.

mod batch;
mod ca_log;
mod clone;
mod clone_agents;
mod clone_model;
mod clone_resolved;
mod commands;
mod database;
mod enroll;
mod hostile;
mod identity;
pub(crate) mod lane;
mod plays;
mod refusing_postgres;
mod reporter;
mod returning;
mod rotation;
mod state;
mod stolen_key;
