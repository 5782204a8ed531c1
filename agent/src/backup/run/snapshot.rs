//! A run's snapshot: the volume is read, what is new is stored, and the collector commits it. Where chunks are gone by then that were
//! there before, all of it is done once more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use infratrack_shared::backup::{Algorithm, Head, Manifest, Refs, Salt, SnapshotState};
use infratrack_shared::ids::{HostId, SnapshotId};
use infratrack_shared::wire::backup::{Begun, reason};

use super::source::Made;
use super::{Good, Run, VERSION};
use crate::backup::chunks::Places;
use crate::backup::config::Allowed;
use crate::backup::control::Failure;
use crate::backup::files::Cache;
use crate::backup::keys::Held;
use crate::backup::pipeline::{Pipeline, Settings, Stored, persist};

/// What a snapshot is made with.
pub(super) struct Given<'a> {
    pub(super) allowed: &'a Allowed,
    pub(super) begun: &'a Begun,
    pub(super) held: &'a Held,
    pub(super) host: HostId,
}

/// A snapshot that was sent.
struct Sent {
    id: SnapshotId,
    made: Made,
    places: Places,
    /// What the collector does not have, though it had: there is no snapshot.
    missing: Refs,
}

impl Run<'_> {
    /// Reads the volume, and commits what was read.
    pub(super) fn snapshot(
        &mut self,
        given: &Given<'_>,
        cache: Option<Cache>,
    ) -> Result<Good, Failure> {
        let mut cache = cache;
        let mut sent = self.send_snapshot(given, cache.as_mut())?;
        if !sent.missing.is_empty() {
            let lost = sent.missing.len();
            tracing::warn!("{lost} chunks were lost meanwhile: the volume is read once more");
            cache = cache.and_then(|cache| self.without(cache, &sent, given));
            self.meter.files.store(0, Ordering::Relaxed);
            self.meter.bytes.store(0, Ordering::Relaxed);
            sent = self.send_snapshot(given, cache.as_mut())?;
        }
        if !sent.missing.is_empty() {
            if let Some(Err(error)) = cache.map(Cache::discard) {
                tracing::warn!(%error, "cannot remove what is known of the volume");
            }
            let detail = format!("{} chunks were lost meanwhile, twice", sent.missing.len());
            return Err(Failure::new(reason::REFUSED, detail));
        }
        if let Some(cache) = cache
            && let Err(error) = cache.commit(sent.id, &sent.places)
        {
            tracing::warn!(%error, "the next run reads every file");
        }
        let Made {
            lacks,
            errors,
            errors_total,
            ..
        } = sent.made;
        Ok(Good {
            snapshot: Some(sent.id),
            lacks,
            errors,
            errors_total,
        })
    }

    /// What is known of files now, and does not need what is missing.
    fn without(&self, cache: Cache, sent: &Sent, given: &Given<'_>) -> Option<Cache> {
        if let Err(error) = cache.keep(&sent.places) {
            tracing::warn!(%error, "every file is read once more");
        }
        let mut cache = self.cache(given.held)?;
        cache.distrust(given.begun.lost.clone());
        cache.distrust_origins(&sent.missing);
        Some(cache)
    }

    fn send_snapshot(
        &mut self,
        given: &Given<'_>,
        cache: Option<&mut Cache>,
    ) -> Result<Sent, Failure> {
        let (made, pipeline) = self.read_volume(given, cache)?;
        let pace = pipeline.pace().clone();
        let Stored { places, refs } = pipeline.finish()?;
        let (head, manifest) = self.document(&made, given, refs);
        let sealed = head.seal(&manifest, &given.held.key);
        let sealed = sealed.map_err(|error| Failure::of(reason::INTERNAL, error))?;
        let sealed = bytes::Bytes::from(sealed);
        let Self {
            runtime,
            collector,
            control,
            id,
            ..
        } = self;
        let missing = runtime.block_on(persist(control, async || {
            let sealed = sealed.clone();
            collector
                .put_snapshot(*id, head.snapshot_id, sealed, &pace)
                .await
        }))?;
        Ok(Sent {
            id: head.snapshot_id,
            made,
            places,
            missing,
        })
    }

    /// Everything of the volume is on its way to the collector.
    fn read_volume(
        &mut self,
        given: &Given<'_>,
        mut cache: Option<&mut Cache>,
    ) -> Result<(Made, Pipeline), Failure> {
        let Given {
            allowed,
            begun,
            held,
            ..
        } = *given;
        let volume = &self.volume;
        let (is_database, bandwidth) = (volume.is_database, volume.bandwidth);
        let settings = Settings {
            patience: self.host.patience,
            ..Settings::new(volume.id, held.key.clone(), is_database, bandwidth)
        };
        let (control, meter) = (Arc::clone(&self.control), Arc::clone(&self.meter));
        let mut pipeline = Pipeline::start(settings, control, meter, self.lane())?;
        pipeline.note_in(cache.as_mut().and_then(|cache| cache.take_noted()));
        let read = self.with_hooks(allowed, |run| {
            run.read(allowed, begun.last_ok.as_ref(), cache, &mut pipeline)
        });
        let (mut made, after) = match read {
            Ok(read) => read,
            Err(failure) => {
                // The threads end, and what they say of it is no news.
                self.control.stop(failure.clone());
                return Err(self.control.cause().unwrap_or(failure));
            }
        };
        if let Some(failure) = after {
            made.lack(failure);
        }
        Ok((made, pipeline))
    }

    fn document(&self, made: &Made, given: &Given<'_>, refs: Refs) -> (Head, Manifest) {
        let now = self.host.clock.now();
        let state = match made.lacks {
            None => SnapshotState::Ok,
            Some(_) => SnapshotState::Incomplete,
        };
        let head = Head {
            volume_id: self.volume.id,
            snapshot_id: SnapshotId::at(now),
            host_id: given.host,
            key_id: given.held.wrapped.id,
            salt: Salt::new(rand::random()),
            algorithm: Algorithm::of_this_machine(),
            started_at_ms: self.started_at.0,
            ended_at_ms: now.0,
            state,
            kind: made.kind,
            files: made.files,
            bytes: made.bytes,
            refs,
        };
        let manifest = Manifest {
            root: made.root.clone(),
            hostname: self.host.hostname.clone(),
            source: made.source.clone(),
            agent: VERSION.to_owned(),
            errors: made.errors.clone(),
            errors_total: made.errors_total,
            counted: made.counted.clone(),
        };
        (head, manifest)
    }
}
