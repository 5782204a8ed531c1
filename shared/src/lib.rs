//! What Infratrack's agent and collector have in common: the wire protocol, the typed ids, the
//! limits both sides hold each other to. No I/O, no clock, no async runtime.

pub mod backup;
pub mod codec;
pub mod compress;
pub mod digest;
pub mod ids;
pub mod limits;
pub mod schedule;
pub mod spiffe;
pub mod time;
pub mod token;
pub mod version;
pub mod wire;
