//! Which process holds which socket, by the links in `/proc/PID/fd`.
//!
//! Those of other users' processes are readable by root only, so the agent as it is installed sees
//! its own; `infratrack-agent facts` run by root sees all. Bounded in links, not in time: a host
//! may hold millions of open files. Called by `facts.listening`.

use std::collections::{BTreeSet, HashMap};
use std::io;

use crate::collect::{Reason, Root, process};

/// The most links read.
const LINKS: usize = 20_000;

/// The name of a process that holds each of the sockets, and why some may be missing.
pub(super) fn processes(
    root: &Root,
    inodes: &BTreeSet<u64>,
) -> (HashMap<u64, String>, Option<Reason>) {
    let mut found: HashMap<u64, String> = HashMap::new();
    let ids = match process::ids(root) {
        Ok(ids) => ids,
        Err(reason) => return (found, Some(reason)),
    };
    let mut unknown = None;
    let mut links_left = LINKS;
    for id in ids {
        let directory = format!("proc/{id}/fd");
        let entries = match root.path(&directory).read_dir() {
            Ok(entries) => entries,
            Err(error) => {
                // Others are processes that have just ended.
                if error.kind() == io::ErrorKind::PermissionDenied {
                    let reason =
                        "processes of other users are not visible to an unprivileged agent";
                    unknown = Some(reason.to_owned());
                }
                continue;
            }
        };
        let mut held = BTreeSet::new();
        for entry in entries.flatten() {
            let Some(left) = links_left.checked_sub(1) else {
                let reason =
                    format!("more than {LINKS} files are open; only so many were looked at");
                return (found, Some(reason));
            };
            links_left = left;
            let name = entry.file_name();
            let link = root.link(&format!("{directory}/{}", name.display()));
            held.extend(
                link.as_deref()
                    .and_then(inode)
                    .filter(|n| inodes.contains(n)),
            );
        }
        if held.is_empty() {
            continue;
        }
        let Some(name) = root.find(&format!("proc/{id}/comm")) else {
            continue;
        };
        for inode in held {
            // A socket that was handed down has several processes; always the same is told.
            let process = found.entry(inode).or_insert_with(|| name.clone());
            if name < *process {
                process.clone_from(&name);
            }
        }
    }
    (found, unknown)
}

/// `socket:[12345]`.
fn inode(link: &str) -> Option<u64> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}
