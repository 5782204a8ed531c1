//! Which paths are walked: those of the volume, where the host's own configuration allows them. The collector can ask for what it
//! likes; what is not allowed is refused before anything is read, and so is what gets out of the allowed by a symlink.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::FilesError;

/// The paths as a tree from the root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selected {
    /// All that is below.
    pub(super) is_whole: bool,
    pub(super) below: BTreeMap<Vec<u8>, Selected>,
}

/// The paths that are there, and those that are not.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) root: Selected,
    pub(super) missing: Vec<PathBuf>,
}

/// Resolves what leads to each path; the last part stays as it is.
pub(super) fn resolve(paths: &[String], allowed: &[PathBuf]) -> Result<Resolved, FilesError> {
    let mut resolved = Resolved::default();
    let mut is_any_there = false;
    for path in paths {
        let asked = plain(Path::new(path))
            .filter(|path| is_allowed(path, allowed))
            .ok_or_else(|| FilesError::NotAllowed { path: path.into() })?;
        let Ok(real) = real(&asked) else {
            resolved.missing.push(asked);
            continue;
        };
        if !is_allowed(&real, allowed) {
            return Err(FilesError::LeadsOut {
                path: asked,
                to: real,
            });
        }
        match fs::symlink_metadata(&real) {
            Ok(_) => {
                is_any_there = true;
                resolved.root.insert(&real);
            }
            Err(_) => resolved.missing.push(asked),
        }
    }
    if is_any_there {
        Ok(resolved)
    } else {
        Err(FilesError::NothingThere)
    }
}

/// Absolute and without `..`; `None` where it is not.
fn plain(path: &Path) -> Option<PathBuf> {
    let is_plain = path.components().all(|part| match part {
        Component::RootDir | Component::CurDir | Component::Normal(_) => true,
        Component::ParentDir | Component::Prefix(_) => false,
    });
    let has_zero = path.as_os_str().as_bytes().contains(&0);
    (path.is_absolute() && is_plain && !has_zero).then(|| path.components().collect())
}

fn is_allowed(path: &Path, allowed: &[PathBuf]) -> bool {
    let mut allowed = allowed.iter().filter_map(|allowed| plain(allowed));
    allowed.any(|allowed| path.starts_with(allowed))
}

fn real(path: &Path) -> std::io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        (_, _) => Ok(PathBuf::from("/")),
    }
}

impl Selected {
    fn insert(&mut self, path: &Path) {
        let mut at = self;
        for part in path.components() {
            if let Component::Normal(name) = part {
                at = at.below.entry(name.as_bytes().to_vec()).or_default();
            }
        }
        at.is_whole = true;
    }

    pub(super) fn find(&self, name: &OsStr) -> Option<&Self> {
        self.below.get(name.as_bytes())
    }
}
