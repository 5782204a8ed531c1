//! Makes the disk keep the order that sled relies on.
//!
//! sled reuses the space of a record once its newer copy is "stable". On Linux it calls a write stable
//! after `sync_file_range`, which is no promise of a disk's: after power loss the space may be
//! overwritten and the newer copy not there, and both are lost. Where that call is not implemented sled
//! falls back to fsync. So for the threads that use sled it is not: a seccomp filter answers ENOSYS.
//! A test that loses power at any moment fails without it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::sync::Once;

use nix::errno::Errno;
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

thread_local! {
    static KEPT: Cell<bool> = const { Cell::new(false) };
}

static TOLD: Once = Once::new();

/// To be called on each thread before it calls sled; the threads sled starts inherit it. As a filter
/// must, it also keeps this thread's children from gaining rights by set-user-ID programs.
pub(super) fn keep() {
    if cfg!(feature = "mutant-no-fdatasync") || KEPT.replace(true) {
        return;
    }
    if let Err(error) = deny_sync_file_range() {
        TOLD.call_once(|| {
            tracing::warn!(%error, "spool: power loss may cost records that were acknowledged here");
        });
    }
}

fn deny_sync_file_range() -> Result<(), seccompiler::Error> {
    let program: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_sync_file_range, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::ENOSYS as u32),
        ARCH.try_into()?,
    )?
    .try_into()?;
    apply_filter(&program)
}
