//! Which services run programs and libraries that are no more on disk, by the mappings of all processes.
//!
//! Linux shows them to whoever may trace the process: the agent as it is installed sees its own and says so;
//! `infratrack-agent facts` run by root sees all. Bounded in processes, in bytes and in time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{Evidence, Service};
use crate::collect::{Reason, Root, process};
use crate::restart::maps::{self, Group};

const PROCESSES: usize = 8192;
/// A browser maps a few hundred KiB; more of one process is not looked at.
const MAPS_BYTES: u64 = 1024 * 1024;
const ALL_BYTES: usize = 128 * 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(2);
/// Units at most, and files that are named of each.
const SERVICES: usize = 200;
const FILES: usize = 3;
const INIT: &str = "init.scope";

/// The services, why some may be missing, and what process 1 runs.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) services: Vec<Service>,
    pub(super) unknown: Option<Reason>,
    pub(super) init: Option<Evidence>,
}

/// By the unit, or else by the process: the files.
type ByOwner = BTreeMap<(Option<String>, Option<String>), BTreeSet<String>>;

/// Looks at all processes.
pub(super) fn read(root: &Root) -> Found {
    let (owners, unknown) = replaced(root);
    let mut found = Found {
        unknown,
        ..Found::default()
    };
    for ((unit, process), files) in owners {
        if unit.as_deref() == Some(INIT) {
            let detail = format!(
                "process 1 {}; systemctl daemon-reexec restarts it, as a reboot does",
                why(&files)
            );
            found.init = Some(Evidence {
                kind: "init",
                detail,
                packages: Vec::new(),
            });
        }
        if found.services.len() == SERVICES {
            found.unknown = Some(format!(
                "more than {SERVICES} services; the rest is not listed"
            ));
            break;
        }
        found.services.push(Service {
            unit,
            process,
            why: why(&files),
        });
    }
    found
}

fn why(files: &BTreeSet<String>) -> String {
    let named: Vec<_> = files.iter().take(FILES).map(String::as_str).collect();
    let more = match files.len().saturating_sub(FILES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("runs {}{more}, replaced since it started", named.join(", "))
}

fn replaced(root: &Root) -> (ByOwner, Option<Reason>) {
    let mut owners = ByOwner::new();
    let ids = match process::ids(root) {
        Ok(ids) => ids,
        Err(reason) => return (owners, Some(reason)),
    };
    let started = Instant::now();
    let mut unknown = None;
    let mut bytes_left = ALL_BYTES;
    let namespace = root
        .link("proc/1/ns/pid")
        .or_else(|| root.link("proc/self/ns/pid"));
    for (number, id) in ids.iter().enumerate() {
        if number == PROCESSES || bytes_left == 0 || started.elapsed() > LIMIT {
            let reason = format!("{number} of {} processes were looked at", ids.len());
            return (owners, Some(reason));
        }
        let maps = match read_maps(root, id, bytes_left) {
            Ok(maps) => maps,
            Err(error) => {
                // Others are processes that have just ended.
                if error.kind() == io::ErrorKind::PermissionDenied {
                    let reason = "not permitted to read other processes' maps";
                    unknown = Some(reason.to_owned());
                }
                continue;
            }
        };
        bytes_left = bytes_left.saturating_sub(maps.len());
        let mut files: BTreeSet<String> = maps::replaced(&maps).into_iter().collect();
        let program = root.link(&format!("proc/{id}/exe"));
        files.extend(program.as_deref().and_then(maps::replaced_file));
        if files.is_empty() {
            continue;
        }
        // A container's files are not the host's, though their names are the same.
        let own = root.link(&format!("proc/{id}/ns/pid"));
        if own.is_some() && namespace.is_some() && own != namespace {
            continue;
        }
        if let Some(owner) = owner(root, id) {
            owners.entry(owner).or_default().extend(files);
        }
    }
    (owners, unknown)
}

fn read_maps(root: &Root, id: &str, bytes_left: usize) -> io::Result<Vec<u8>> {
    let mut maps = Vec::new();
    let limit = MAPS_BYTES.min(bytes_left as u64);
    root.open(&format!("proc/{id}/maps"), limit)?
        .read_to_end(&mut maps)?;
    Ok(maps)
}

/// The unit, or the name of a process of none; `None` for a container's.
fn owner(root: &Root, id: &str) -> Option<(Option<String>, Option<String>)> {
    let cgroup = root.read(&format!("proc/{id}/cgroup")).unwrap_or_default();
    match maps::group(&cgroup) {
        Group::Unit(unit) => Some((Some(unit), None)),
        Group::Container => None,
        Group::None => {
            let process = root.find(&format!("proc/{id}/comm"))?;
            Some((None, Some(process)))
        }
    }
}
