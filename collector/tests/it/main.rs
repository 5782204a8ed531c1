//! The collector from outside: real listeners, real TLS, real Postgres.

#![expect(clippy::unwrap_used, reason = "a test that fails may do so anywhere")]

mod agents;
mod api;
mod audit;
mod audited;
mod backups;
mod canary;
mod changes;
mod demo;
mod fleet;
mod harness;
mod health;
mod hosts;
mod inventory;
mod jobs;
mod kill;
mod listener;
mod metrics;
mod oidc;
mod operators;
mod patches;
mod private_postgres;
mod program;
mod s3;
mod sample;
mod secrets;
mod settings;
mod traces;
mod ui;
mod volumes;
