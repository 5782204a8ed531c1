//! Where spools lie: a file system of its own, where we may make one, that can be filled.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::unistd::Uid;

/// What it holds.
const MIB: u64 = 192;
/// Written at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Mounted until it is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    mounted: bool,
}

impl Disk {
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(path)?;
        let options = format!("size={MIB}m,mode=755");
        let tmpfs = Some("tmpfs");
        let mounted = Uid::effective().is_root()
            && mount(tmpfs, path, tmpfs, MsFlags::empty(), Some(options.as_str())).is_ok();
        Ok(Self {
            path: path.to_owned(),
            mounted,
        })
    }

    /// Leaves no room for as long as it `lasts`. Answers whether it came to that.
    pub(super) async fn fill(&self, lasts: Duration) -> anyhow::Result<bool> {
        if !self.mounted {
            return Ok(false);
        }
        let ballast = self.path.join("ballast");
        let path = ballast.clone();
        let full = tokio::task::spawn_blocking(move || fill(&path)).await?;
        tokio::time::sleep(lasts).await;
        std::fs::remove_file(ballast)?;
        Ok(full)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            umount(&self.path).ok();
        }
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) -> bool {
    let Ok(mut file) = std::fs::File::create(path) else {
        return false;
    };
    let chunk = vec![0; CHUNK];
    for _ in 0..MIB * 1024 * 1024 / CHUNK as u64 * 2 {
        if let Err(error) = file.write_all(&chunk) {
            return error.kind() == ErrorKind::StorageFull;
        }
    }
    false
}
