//! What operators and their programs call: who may, and what comes of it.

mod credentials;
mod day;
pub(crate) mod logins;
mod manners;
mod roles;
mod schema;
mod tasks;
mod users;
