//! What agents call: enrollment, renewal, and the batch that carries everything else.
//!
//! A batch goes `service` -> `certificates` (is it still allowed) -> `ingest` (decode, check, queue) ->
//! `writer` (group commit) -> `answer` (Ack, then commands as they come up). Its large state goes through `lane` beside.
//! Backups come over connections of their own, to `backup`.

pub mod answer;
pub mod arrival;
pub mod backup;
pub mod certificates;
pub mod challenge;
pub mod check;
pub mod commands;
pub mod cursor;
pub mod enroll;
pub mod ingest;
pub mod lane;
pub mod plays;
pub mod problem;
pub mod renew;
pub mod returning;
pub mod service;
pub mod tls;
pub mod writer;
