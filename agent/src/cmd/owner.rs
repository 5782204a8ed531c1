//! Run by root, the program goes on as the user that its directory belongs to: what root leaves in there, the
//! service could not use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Becomes the owner of `dir`, where this is root and somebody else owns it. Any other user stays who they are.
pub(crate) fn become_owner(dir: &Path) -> anyhow::Result<()> {
    let Ok(owner) = fs::metadata(dir) else {
        // Whoever makes it owns it.
        return Ok(());
    };
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    if !Uid::effective().is_root() || user.is_root() {
        return Ok(());
    }
    setgroups(&[])
        .and_then(|()| setgid(group))
        .and_then(|()| setuid(user))
        .with_context(|| format!("cannot go on as the owner of {}", dir.display()))
}
