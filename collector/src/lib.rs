//! Infratrack's collector.

pub mod agents;
pub mod api;
pub mod app;
pub mod blob;
pub mod ca;
pub mod ca_log;
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod jobs;
pub mod postgres;
pub mod roles;
pub mod server;
pub mod store;
pub mod web;
