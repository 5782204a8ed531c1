//! The CA as it is: replaced when its files change, while everything that uses it goes on.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Ca, CaError, Place};

/// The CA of a place.
#[derive(Debug)]
pub struct LiveCa {
    place: Place,
    ca: RwLock<Arc<Ca>>,
}

impl LiveCa {
    /// Over an opened CA and where it was opened.
    pub fn new(place: Place, ca: Ca) -> Self {
        Self {
            place,
            ca: RwLock::new(Arc::new(ca)),
        }
    }

    /// The CA as of this moment.
    pub fn load(&self) -> Arc<Ca> {
        Arc::clone(&self.ca.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether the files have changed and takes them over; where they can't be used, the CA stays.
    pub fn reload(&self) -> Result<bool, CaError> {
        if self.load().change() == super::rotation::Rotation::read(&self.place.dir)?.change {
            return Ok(false);
        }
        let changed = Arc::new(Ca::open_at(&self.place)?);
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(true)
    }
}
