//! Which generations of the CA there are, from when each signs, and which are no longer accepted.
//!
//! One file, `rotation.json` beside the first generation, replaced whole; without it there is only the
//! first. Times in it decide who signs, so that all collectors that share the files change over together and
//! nothing has to be running when it is time. `infratrack-collector ca rotate` and `ca retire` write it.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::authority::{Authority, Names};
use super::{Ca, CaError, Place, read, write_secret};

const FILE: &str = "rotation.json";
/// The first generation's directory, from that of the CA.
const FIRST: &str = ".";

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Grows with each change; agents take a trust bundle by it.
    pub change: u32,
    /// Oldest first; the last one that may sign, signs.
    pub generations: Vec<Generation>,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// From the CA's directory.
    pub dir: PathBuf,
    #[serde(with = "time::serde::rfc3339")]
    pub signs_from: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub retired_at: Option<OffsetDateTime>,
}

impl Rotation {
    /// Reads the file in the CA's directory.
    pub fn read(dir: &Path) -> Result<Self, CaError> {
        let path = dir.join(FILE);
        let text = match read(&path) {
            Err(CaError::Missing(_)) => {
                return Ok(Self {
                    change: 0,
                    generations: vec![Generation {
                        dir: PathBuf::from(FIRST),
                        signs_from: OffsetDateTime::UNIX_EPOCH,
                        retired_at: None,
                    }],
                });
            }
            other => other?,
        };
        let damaged = |reason: String| CaError::Damaged {
            path: path.clone(),
            reason,
        };
        let rotation: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if rotation.accepted().next().is_none() {
            return Err(damaged("no generation in it is accepted".to_owned()));
        }
        Ok(rotation)
    }

    fn write(&self, dir: &Path) -> Result<(), CaError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_secret(&dir.join(FILE), &text)
    }

    fn accepted(&self) -> impl Iterator<Item = &Generation> {
        self.generations
            .iter()
            .filter(|generation| generation.retired_at.is_none())
    }
}

/// Makes the next generation of the CA in `dir`; it signs when `after` has passed. Until then agents learn
/// to trust it, and collectors learn that it is there.
pub fn rotate(dir: &Path, now: OffsetDateTime, after: Duration) -> Result<Generation, CaError> {
    rotate_at(&Place::from(dir), now, after)
}

/// Likewise at any place. Where its keys are given, the new ones are files, for whoever keeps keys to take.
pub fn rotate_at(
    place: &Place,
    now: OffsetDateTime,
    after: Duration,
) -> Result<Generation, CaError> {
    let dir = &place.dir;
    let _lock = lock(dir)?;
    let ca = Ca::open_at(place)?;
    let mut rotation = Rotation::read(dir)?;
    let accepted: Vec<&Generation> = rotation.accepted().collect();
    let [current] = accepted[..] else {
        return Err(CaError::Rotating);
    };
    let predecessor = dir.join(&current.dir);
    let number = rotation.generations.len() + 1;
    let made = PathBuf::from(format!("generation-{number}"));
    let names = Names {
        trust_domain: ca.trust_domain(),
        suffix: &format!(" {number}"),
        predecessor: Some(&predecessor),
    };
    Authority::create(place, &made, &names, now)?;
    let generation = Generation {
        dir: made,
        signs_from: now + after,
        retired_at: None,
    };
    rotation.generations.push(generation.clone());
    rotation.change += 1;
    rotation.write(dir)?;
    Ok(generation)
}

/// Stops accepting the oldest generation, once the next one signs.
pub fn retire(dir: &Path, now: OffsetDateTime) -> Result<Generation, CaError> {
    let _lock = lock(dir)?;
    let mut rotation = Rotation::read(dir)?;
    let next_signs = rotation
        .accepted()
        .nth(1)
        .is_some_and(|next| next.signs_from <= now);
    let oldest = rotation
        .generations
        .iter_mut()
        .find(|generation| generation.retired_at.is_none())
        .filter(|_| next_signs)
        .ok_or(CaError::NothingToRetire)?;
    oldest.retired_at = Some(now);
    let retired = oldest.clone();
    rotation.change += 1;
    rotation.write(dir)?;
    Ok(retired)
}

/// One change at a time, until the file is closed.
fn lock(dir: &Path) -> Result<File, CaError> {
    let lock = || {
        let dir = File::open(dir)?;
        dir.lock()?;
        Ok(dir)
    };
    lock().map_err(|source| CaError::File {
        path: dir.to_owned(),
        source,
    })
}
