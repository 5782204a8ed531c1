//! What a run reads, each kind of volume in its own way, between the hooks.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use infratrack_shared::backup::{Content, Counted, MAX_ERRORS, SnapshotKind, Unread};
use infratrack_shared::wire::backup::{Files, Program, Snapshot, Source, Volume, reason};

use super::Run;
use crate::backup::command::{self, External};
use crate::backup::config::{Allowed, Hook};
use crate::backup::control::Failure;
use crate::backup::files::{self, Cache, Sources};
use crate::backup::pipeline::Pipeline;

/// How a volume is read.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Files(Files),
    Command(Program),
    External(Program),
    /// Of a newer collector.
    Unknown,
}

impl Way {
    pub(super) fn of(volume: &Volume) -> Self {
        match volume.source.clone() {
            Source {
                files: Some(files),
                command: None,
                external: None,
            } => Self::Files(files),
            Source {
                files: None,
                command: Some(program),
                external: None,
            } => Self::Command(program),
            Source {
                files: None,
                command: None,
                external: Some(program),
            } => Self::External(program),
            Source { .. } => Self::Unknown,
        }
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) root: Content,
    pub(super) kind: SnapshotKind,
    pub(super) source: Vec<String>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Why not all is in it.
    pub(super) lacks: Option<Failure>,
    pub(super) errors: Vec<Unread>,
    pub(super) errors_total: u64,
    pub(super) counted: Option<Counted>,
}

impl Made {
    /// It is not what it should be; the first reason stays.
    pub(super) fn lack(&mut self, failure: Failure) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(Unread {
                path: String::new(),
                what: failure.to_string(),
            });
        }
        self.errors_total += 1;
        self.lacks.get_or_insert(failure);
    }
}

impl Run<'_> {
    /// Runs the volume's hooks around `work`: what is after it is run whatever happened, and what it failed with is told apart.
    pub(super) fn with_hooks<T>(
        &mut self,
        allowed: &Allowed,
        work: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<(T, Option<Failure>), Failure> {
        let hook = |name: &Option<String>, reason| named(&allowed.hooks, name.as_deref(), reason);
        let before = hook(&self.volume.pre_hook, reason::PRE_HOOK)?.cloned();
        let after = hook(&self.volume.post_hook, reason::POST_HOOK)?.cloned();
        let done = match before {
            Some(before) => {
                let run = command::hook(&self.control, &before, reason::PRE_HOOK);
                self.runtime.block_on(run)
            }
            None => Ok(()),
        };
        let done = done.and_then(|()| work(self));
        let after = after.and_then(|after| {
            // Its own: a run that was ended has to clean up too.
            let control = Pipeline::control(self.host.patience);
            let run = command::hook(&control, &after, reason::POST_HOOK);
            self.runtime.block_on(run).err()
        });
        done.map(|done| (done, after))
    }

    /// Reads what is kept as chunks.
    pub(super) fn read(
        &mut self,
        allowed: &Allowed,
        last: Option<&Snapshot>,
        cache: Option<&mut Cache>,
        pipeline: &mut Pipeline,
    ) -> Result<Made, Failure> {
        match Way::of(&self.volume) {
            Way::Command(program) => self.command(allowed, &program.program, last, pipeline),
            Way::Files(files) => match cache {
                Some(cache) => self.files(allowed, &files, cache, pipeline),
                None => Err(changed()),
            },
            Way::External(_) | Way::Unknown => Err(changed()),
        }
    }

    fn files(
        &self,
        allowed: &Allowed,
        files: &Files,
        cache: &mut Cache,
        pipeline: &mut Pipeline,
    ) -> Result<Made, Failure> {
        let sources = Sources {
            files,
            allowed: &allowed.allowed_paths,
            clock: self.host.clock.clone(),
        };
        let walked = files::back_up(&sources, cache, pipeline).map_err(|error| {
            let reason = error.reason().unwrap_or(reason::INTERNAL);
            let cause = self.control.cause();
            cause.unwrap_or_else(|| Failure::of(reason, error))
        })?;
        let lacks = walked.reason().map(|reason| {
            let detail = format!("{} errors", walked.errors_total);
            Failure::new(reason, detail)
        });
        Ok(Made {
            root: walked.root,
            kind: SnapshotKind::Files,
            source: files.paths.clone(),
            files: walked.files,
            bytes: walked.bytes,
            lacks,
            errors: walked.errors,
            errors_total: walked.errors_total,
            counted: None,
        })
    }

    fn command(
        &mut self,
        allowed: &Allowed,
        name: &str,
        last: Option<&Snapshot>,
        pipeline: &mut Pipeline,
    ) -> Result<Made, Failure> {
        let program = program(allowed, name)?;
        let last_bytes = last.map(|last| last.bytes);
        let now = self.started_at;
        let program = (name, program);
        let written = command::back_up(pipeline, &self.control, program, last_bytes, now);
        let written = self.runtime.block_on(written)?;
        self.meter.files.store(1, Ordering::Relaxed);
        Ok(Made {
            root: written.root,
            kind: SnapshotKind::Command,
            source: vec![name.to_owned()],
            files: 1,
            bytes: written.bytes,
            lacks: None,
            errors: Vec::new(),
            errors_total: 0,
            counted: written.counted,
        })
    }

    /// Another tool's backup: why not all is in it.
    pub(super) fn other_tool(&mut self, allowed: &Allowed) -> Result<Option<Failure>, Failure> {
        let Way::External(named) = Way::of(&self.volume) else {
            return Err(changed());
        };
        let program = program(allowed, &named.program)?;
        let run = command::external(&self.control, program);
        let External {
            summary,
            incomplete,
        } = self.runtime.block_on(run)?;
        self.meter.files.store(summary.files, Ordering::Relaxed);
        self.meter.bytes.store(summary.bytes, Ordering::Relaxed);
        let new_bytes = &self.meter.new_bytes;
        new_bytes.store(summary.new_bytes, Ordering::Relaxed);
        Ok(incomplete.map(|detail| Failure::new(reason::EXTERNAL, detail)))
    }
}

fn changed() -> Failure {
    Failure::new(reason::UNSUPPORTED, "the volume's kind changed meanwhile")
}

fn program<'a>(
    allowed: &'a Allowed,
    name: &str,
) -> Result<&'a crate::backup::config::Program, Failure> {
    let program = allowed.programs.get(name);
    program.ok_or_else(|| {
        let detail = format!("backup.toml has no programs.{name}");
        Failure::new(reason::UNKNOWN_PROGRAM, detail)
    })
}

fn named<'a>(
    hooks: &'a BTreeMap<String, Hook>,
    name: Option<&str>,
    reason: &'static str,
) -> Result<Option<&'a Hook>, Failure> {
    let Some(name) = name else {
        return Ok(None);
    };
    let hook = hooks.get(name);
    hook.map(Some)
        .ok_or_else(|| Failure::new(reason, format!("backup.toml has no hooks.{name}")))
}
