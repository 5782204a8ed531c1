//! The collector from outside: real listeners, real TLS, real Postgres.

#![expect(clippy::unwrap_used, reason = "a test that fails may do so anywhere")]

mod agents;
mod api;
mod demo;
mod harness;
mod kill;
mod listener;
mod logins;
mod metrics;
mod private_postgres;
