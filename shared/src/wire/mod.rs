//! The documents of the wire: named-field MessagePack in both directions.
//!
//! Every field added after a release has a default; unknown fields are ignored; an unknown kind of
//! record stays whole as a raw value. A change here is a change of the protocol: docs/protocol.md.

pub mod answer;
pub mod batch;
pub mod enroll;
pub mod event;
pub mod frame;
pub mod heartbeat;
pub mod packages;
pub mod problem;

/// The version this build speaks. Version N talks to N-1 and N+1.
pub const PROTOCOL: u16 = 1;

/// `Content-Type` of every body on the agent and enrollment listeners.
pub const CONTENT_TYPE: &str = "application/msgpack";

/// `Content-Type` of a held answer: frames as [`frame`] describes them.
pub const FRAMES_CONTENT_TYPE: &str = "application/vnd.infratrack.frames";

/// Paths of the agent and enrollment listeners.
pub mod path {
    pub const BATCH: &str = "/agent/v1/batch";
    pub const RENEW: &str = "/agent/v1/renew";
    pub const ENROLL: &str = "/enroll/v1";
    pub const CHALLENGE: &str = "/enroll/v1/challenge";
    pub const RETURN: &str = "/enroll/v1/return";
}
