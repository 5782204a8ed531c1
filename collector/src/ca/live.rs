//! The CA as it is: replaced when its files change, while everything that uses it goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::{Ca, CaError};

/// The CA in a directory.
#[derive(Debug)]
pub struct LiveCa {
    dir: PathBuf,
    ca: RwLock<Arc<Ca>>,
}

impl LiveCa {
    /// Over an opened CA and where it was opened.
    pub fn new(dir: &Path, ca: Ca) -> Self {
        Self {
            dir: dir.to_owned(),
            ca: RwLock::new(Arc::new(ca)),
        }
    }

    /// The CA as of this moment.
    pub fn load(&self) -> Arc<Ca> {
        Arc::clone(&self.ca.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether the files have changed and takes them over; where they can't be used, the CA stays.
    pub fn reload(&self) -> Result<bool, CaError> {
        if self.load().change() == super::rotation::Rotation::read(&self.dir)?.change {
            return Ok(false);
        }
        let changed = Arc::new(Ca::open(&self.dir)?);
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(true)
    }
}
