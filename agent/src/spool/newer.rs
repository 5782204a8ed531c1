//! A downgrade and the upgrade after it: what a newer version wrote is kept and sent by whoever can read it.
//!
//! A whole spool of a newer version goes to `newer-<unix seconds>` and a fresh one begins. A single record
//! of a newer version is put aside in the store, and its number declared lost. At each start what this
//! version can read of either is queued again: a spool under its own stream and numbers, a record under
//! a new number.

use std::path::{Path, PathBuf};
use std::{fs, io};

use infratrack_shared::ids::BootId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::Class;
use tokio::task::spawn_blocking;

use super::backend::{BackendError, Key};
use super::ledger::Section;
use super::open::{io_error, save};
use super::queue::{CLASSES, Change, Queue, Until};
use super::record::{self, Stored};
use super::salvage::Found;
use super::{SpoolConfig, SpoolError, files};

const ASIDE: &str = "newer-";
/// On its way aside; the next start goes on with it.
const MOVING: &str = "newer.tmp";

/// Puts a spool that a newer version wrote aside; answers where it is.
pub(super) fn put_aside(root: &Path, now: UnixMillis) -> io::Result<Option<PathBuf>> {
    let moving = root.join(MOVING);
    let is_newer = files::is_newer(root);
    if !is_newer && !moving.exists() {
        return Ok(None);
    }
    files::create_dir(&moving)?;
    if is_newer {
        for generation in files::generations(root)? {
            let name = files::generation_dir(root, generation);
            fs::rename(&name, files::generation_dir(&moving, generation))?;
        }
        files::sync(&moving)?;
        // Last: until it is moved, the next start knows what is to be moved.
        files::move_ledger(root, &moving)?;
    }
    let mut number = now.0.div_euclid(1000);
    let mut aside = root.join(format!("{ASIDE}{number}"));
    while aside.exists() {
        number += 1;
        aside = root.join(format!("{ASIDE}{number}"));
    }
    files::sync(&moving)?;
    fs::rename(&moving, &aside)?;
    files::sync(root)?;
    tracing::warn!(kept_in = %aside.display(), "spool: a newer version wrote it, begun anew");
    Ok(Some(aside))
}

/// Queues what was put aside and can be read by this version.
pub(super) async fn resend(config: &SpoolConfig, queue: &mut Queue) -> Result<(), SpoolError> {
    queue.resend_unread()?;
    for aside in asides(&config.dir).map_err(io_error("read its directory"))? {
        let Some(ledger) = files::load_ledger(&aside) else {
            continue;
        };
        save(config, &aside, ledger.generation).await?;
        let sections = ledger.old.into_iter().chain([ledger.current]);
        queue.join(&aside, sections.collect())?;
        let from = aside.clone();
        let removed = spawn_blocking(move || fs::remove_dir_all(from)).await;
        removed
            .map_err(|_| SpoolError::Closed)?
            .map_err(io_error("remove what is queued again"))?;
        tracing::info!(from = %aside.display(), "spool: what was put aside is sent");
    }
    Ok(())
}

fn asides(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(ASIDE)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

impl Queue {
    /// Takes over the streams of another spool, of which everything readable was saved beside it. Done
    /// twice, after a crash, it does nothing the second time, or the collector skips what it has.
    fn join(&mut self, root: &Path, sections: Vec<Section>) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        let mut slots = Vec::new();
        let mut joined = Vec::new();
        for mut section in sections {
            let known = ledger.sections().any(|own| own.stream == section.stream);
            if !known && !section.drained() {
                slots.push((section.slot, ledger.next_slot));
                section.slot = ledger.next_slot;
                ledger.next_slot += 1;
                joined.push(section);
            }
        }
        let rename = |key: Key| slots.iter().find_map(|(from, to)| key.moved(*from, *to));
        let found = Found::put(self.backend.as_mut(), root, rename)?;
        for section in &mut joined {
            for class in CLASSES {
                let slot = section.slot;
                found.settle(slot, class, section.lane_mut(class));
            }
        }
        ledger.old.extend(joined);
        self.commit(Change {
            ledger,
            puts: Vec::new(),
            deletes: Vec::new(),
            until: Until::Synced,
        })
    }

    /// Gives records that a newer version wrote, and this one can read, numbers of their own.
    fn resend_unread(&mut self) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        let slot = ledger.current.slot;
        let (mut puts, mut left) = (Vec::new(), Vec::new());
        for number in 0..ledger.unread {
            let Some(value) = self.backend.get(&Key::unread(number))? else {
                continue;
            };
            if let Stored::Record(_) = record::decode(&value, 0, BootId::default()) {
                let lane = &mut ledger.current.critical;
                let key = Key::record(slot, Class::Critical, lane.next);
                lane.bytes += value.len() as u64;
                lane.next += 1;
                puts.push((key, Some(value)));
            } else {
                left.push(value);
            }
        }
        if puts.is_empty() {
            return Ok(());
        }
        let deletes = (left.len() as u64..ledger.unread).map(|number| (Key::unread(number), None));
        let deletes = deletes.collect();
        ledger.unread = left.len() as u64;
        let kept = (0..).map(Key::unread).zip(left.into_iter().map(Some));
        puts.extend(kept);
        self.commit(Change {
            ledger,
            puts,
            deletes,
            until: Until::Synced,
        })
    }
}
