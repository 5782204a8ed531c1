//! Small trees of files that stand in for a host's `/` in tests.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::Root;

/// A host made of these files; a text that begins with `->` is a symbolic link.
pub(super) fn host(files: &[(&str, &str)]) -> (TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("->") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    let root = Root::new(directory.path());
    (directory, root)
}

/// The value as JSON, to compare with `serde_json::json!`.
pub(super) fn json(value: &rmpv::Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}
