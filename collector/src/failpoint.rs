//! Named places at which a test may end the collector, as a kill would.
//!
//! Compiled to nothing without the feature `failpoints`. With it the environment says where:
//! `FAILPOINTS=writer::committed=3*off->return` aborts the process the fourth time it comes by there.

/// Every point, in the order a batch comes by.
pub const NAMES: &[&str] = &["ingest::decoded", "writer::stored", "writer::committed"];

/// Ends the process where the environment says so.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &'static str) {
    debug_assert!(NAMES.contains(&name), "{name} is not listed");
    fail::fail_point!(name, |_| std::process::abort());
}

#[cfg(not(feature = "failpoints"))]
pub(crate) const fn reach(_name: &'static str) {}

/// Reads the environment; to be kept for as long as the points are to work.
#[cfg(feature = "failpoints")]
pub fn set_up() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::NAMES;

    fn count(directory: &Path, needle: &str) -> usize {
        let entries = fs::read_dir(directory).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| {
                if path.is_dir() {
                    count(&path, needle)
                } else {
                    fs::read_to_string(path).unwrap().matches(needle).count()
                }
            })
            .sum()
    }

    #[test]
    fn every_point_is_in_the_code_once() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for name in NAMES {
            assert_eq!(count(&sources, &format!("reach(\"{name}\")")), 1, "{name}");
        }
        // In here the word stands before a backslash.
        assert_eq!(count(&sources, "reach(\""), NAMES.len());
    }
}
