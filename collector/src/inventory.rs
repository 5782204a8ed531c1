//! What others know of the fleet: their documents in, hosts, and the ledger of those that should report, out.
//!
//! [`documents`] reads, [`linking`] and [`change`] decide, all without a database; [`sync`] carries it out in one
//! transaction. [`names`] looks up what is no address, where that was asked for. [`sources`] are the documents that the configuration names, [`relink`] finds agents that came later.

pub mod change;
pub mod documents;
pub mod linking;
pub mod names;
pub mod relink;
pub mod report;
pub mod sources;
pub mod sync;
