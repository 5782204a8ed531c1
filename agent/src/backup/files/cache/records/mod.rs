//! The records of a volume's cache, as bytes and in step with a walk. Of `infratrack-shared` alone, because the fuzzers take these
//! files in by their paths.

mod reader;
mod record;
#[cfg(test)]
mod tests;

pub use self::reader::Reader;
pub use self::record::{Fingerprint, Record, Row, TreeHash, wrong};
