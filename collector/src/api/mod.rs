//! What programs call: one file per resource.

pub mod audit;
pub mod auth;
pub mod certificates;
pub mod commands;
pub mod conflicts;
pub mod csrf;
pub mod enroll_tokens;
pub mod etag;
pub mod health;
pub mod hosts;
pub mod idempotency;
pub mod input;
pub mod inventory;
pub mod jobs;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod password;
pub mod problem;
pub mod requests;
pub mod sessions;
pub mod system;
pub mod tasks;
pub mod tokens;
pub mod users;
