//! What the agent tells of itself and of its host's boots, as critical records in the spool.

use infratrack_shared::wire::batch::{Body, Class};
use infratrack_shared::wire::event::{AgentStart, AgentStop, Event, StopReason};

use super::{Daemon, boots};
use crate::collect::{self, Root};
use crate::spool::{NewRecord, OpenReport, SpoolError};

impl Daemon {
    /// That it runs, and since its last start perhaps that the host booted.
    pub(super) async fn tell_start(&mut self, root: &Root) -> Result<(), SpoolError> {
        let now = self.clock.now();
        let last = boots::Last::load(&self.spool).await?;
        let (running, boot) = boots::begin(root, last, self.boot_id, now).await;
        let booted = boot.and_then(|boot| {
            let (at, mono_ms) = (boot.booted_at, 0);
            Some(NewRecord {
                at,
                mono_ms,
                ..self.new_record(&Event::Boot(boot))?
            })
        });
        let start = self.new_record(&Event::AgentStart(AgentStart {
            instance: self.instance,
            boot_id: self.boot_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }));
        let records = booted.into_iter().chain(start).collect();
        if self.record_with(records, &running).await {
            self.boot = Some(running);
        }
        Ok(())
    }

    /// What could not be kept is told again after the next start.
    pub(super) async fn tell_damage(&mut self, opened: OpenReport) {
        if opened.damaged.is_empty() {
            return;
        }
        let mut told = true;
        for damaged in opened.damaged {
            tracing::error!(moved_to = ?opened.moved_to, ?damaged, "the spool was damaged");
            told &= self.record(&Event::SpoolDamaged(damaged)).await;
        }
        if told && let Err(error) = self.spool.damage_told().await {
            tracing::warn!(%error, "the damage will be told again");
        }
    }

    /// That it ends, and why: remembered for the next boot.
    pub(super) async fn tell_stop(&mut self, reason: StopReason) {
        let event = Event::AgentStop(AgentStop {
            instance: self.instance,
            reason,
        });
        match self.boot.take() {
            Some(boot) => {
                let record = self.new_record(&event).into_iter().collect();
                self.record_with(record, &boot.stopped(reason)).await;
            }
            None => {
                self.record(&event).await;
            }
        }
    }

    /// Queues an event. Where the disk is full it is lost, and said so: it has no source to come from again.
    /// Answers whether it is kept.
    pub(super) async fn record(&mut self, event: &Event) -> bool {
        let Some(record) = self.new_record(event) else {
            return false;
        };
        let kind = record.kind.clone();
        let kept = self.spool.append(Class::Critical, vec![record]).await;
        self.is_kept(kept.map(drop), &kind)
    }

    /// Queues what goes with something that is remembered of this boot.
    async fn record_with(&mut self, records: Vec<NewRecord>, boot: &boots::Last) -> bool {
        let kinds: Vec<_> = records.iter().map(|record| record.kind.clone()).collect();
        let saved = boot.saved().into();
        let kept = self.spool.append_with(records, boots::NAME, saved).await;
        self.is_kept(kept, &kinds.join(" "))
    }

    fn is_kept(&mut self, kept: Result<(), SpoolError>, kinds: &str) -> bool {
        match kept {
            Ok(()) => self.urgent = true,
            Err(error) => {
                tracing::error!(%error, kinds, "an event was not kept");
                return false;
            }
        }
        true
    }

    fn new_record(&self, event: &Event) -> Option<NewRecord> {
        Some(NewRecord {
            at: self.clock.now(),
            mono_ms: collect::mono_ms(),
            boot_id: self.boot_id,
            kind: event.kind()?.to_owned(),
            body: Body::Event(event.to_body().ok()?),
        })
    }
}
