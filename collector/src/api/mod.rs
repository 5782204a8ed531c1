//! What programs call: one file per resource.

pub mod auth;
pub mod commands;
pub mod conflicts;
pub mod enroll_tokens;
pub mod health;
pub mod hosts;
pub mod metrics;
pub mod page;
pub mod problem;
pub mod requests;
