//! What agents call.

mod batch;
mod ca_log;
mod commands;
mod database;
mod enroll;
mod hostile;
mod identity;
mod reporter;
mod returning;
mod rotation;
mod state;
