//! Power loss, as the spool would meet it: a real run is recorded, then ended anywhere.
//!
//! [`workload`] drives the real spool under `strace`; [`trace`] reads every change it made to its
//! directory, with the data, between the marks of what it was promised; [`disk`] makes of that the
//! directory as a disk may have it after power loss at any point; [`judge`] opens the real spool on
//! it and holds it to its promises. Only fsync and fdatasync make anything durable here: not
//! `sync_file_range`, not a rename without a sync of its directory, not the order of writes.

pub mod campaign;
pub mod disk;
pub mod history;
pub mod judge;
pub mod mark;
pub mod strace;
pub mod trace;
pub mod workload;
