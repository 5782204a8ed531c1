//! Where the cluster lies and whose it is.
//!
//! Postgres refuses to run as root: started by root, it runs as `postgres`, or as a user made for it, and
//! its files lie where that user can reach them.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;
use uuid::Uuid;

use super::{PostgresError, run};

/// The user that is made where there is no `postgres`.
const MADE_USER: &str = "infratrack-postgres";
/// Where a cluster goes whose data directory its user can't reach.
const ELSEWHERE: &str = "/var/lib/infratrack";
/// What the server names its socket.
const SOCKET: &str = ".s.PGSQL.5432";
/// unix(7): the longest path of a socket.
const SOCKET_PATH_BYTES: usize = 107;
/// How the names of clusters begin that are being made.
const UNFINISHED: &str = "cluster.new";

/// Where and as whom a server runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
    pub(super) socket_dir: PathBuf,
    /// The operating-system user that connects.
    pub(super) collector_user: String,
    /// Set where the collector runs as root.
    run_as: Option<(Uid, Gid)>,
}

impl Place {
    pub(super) fn cluster(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// What is in it belongs to the server's user.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where an `initdb` works; no two have one place.
    pub(super) fn unfinished(&self, attempt: Uuid) -> PathBuf {
        self.dir.join(format!("{UNFINISHED}{attempt}"))
    }

    /// Whether `path` is where an `initdb` for this cluster worked.
    pub(super) fn is_unfinished(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(OsStr::to_str);
        path.parent() == Some(&self.dir) && name.is_some_and(|name| name.starts_with(UNFINISHED))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// Lets `command` run as the cluster's user, in a directory it can reach. (With `uid` set, the standard
    /// library drops root's supplementary groups.)
    pub(super) fn run_as(&self, command: &mut std::process::Command) {
        command
            .current_dir("/")
            .env_remove("PGDATA")
            .env("LC_ALL", "C.UTF-8");
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }
}

/// Makes the directories for the cluster of `data_dir`.
pub(super) async fn prepare(data_dir: &Path) -> Result<Place, PostgresError> {
    let file = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| PostgresError::File {
            doing,
            path,
            source,
        }
    };
    fs::create_dir_all(data_dir).map_err(file("make", data_dir))?;
    let data_dir = fs::canonicalize(data_dir).map_err(file("find", data_dir))?;
    let me = Uid::effective();
    let collector_user = name_of(me)?;
    let run_as = if me.is_root() {
        Some(server_user().await?)
    } else {
        None
    };
    let short = blake3::hash(data_dir.as_os_str().as_encoded_bytes()).to_hex();
    let short = short.get(..12).unwrap_or_default();
    let dir = choose(&data_dir, short, run_as)?;
    let beside = dir.join("socket");
    let socket_dir = if beside.join(SOCKET).as_os_str().len() <= SOCKET_PATH_BYTES {
        beside
    } else if me.is_root() {
        Path::new("/run").join(format!("infratrack-pg-{short}"))
    } else {
        std::env::temp_dir().join(format!("infratrack-pg-{short}"))
    };
    for path in [&dir, &socket_dir] {
        fs::create_dir_all(path).map_err(file("make", path))?;
        let owner = fs::symlink_metadata(path).map_err(file("look at", path))?;
        let expected = run_as.map_or(me, |(uid, _)| uid).as_raw();
        if !owner.is_dir() || ![expected, me.as_raw()].contains(&owner.uid()) {
            let source = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it belongs to somebody else",
            );
            return Err(PostgresError::File {
                doing: "use",
                path: path.clone(),
                source,
            });
        }
        if let Some((uid, gid)) = run_as {
            chown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(file("give away", path))?;
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(file("protect", path))?;
    }
    Ok(Place {
        dir,
        socket_dir,
        collector_user,
        run_as,
    })
}

/// Where the cluster is, or is to be made. It stays where it is, whatever became of the folders' rights since:
/// an empty one elsewhere would look like lost data.
fn choose(
    data_dir: &Path,
    short: &str,
    run_as: Option<(Uid, Gid)>,
) -> Result<PathBuf, PostgresError> {
    let here = data_dir.join("postgres");
    let Some((uid, gid)) = run_as else {
        return Ok(here);
    };
    let elsewhere = Path::new(ELSEWHERE).join(format!("postgres-{short}"));
    let has_cluster = |dir: &Path| dir.join("cluster/PG_VERSION").exists();
    if !has_cluster(&elsewhere) && (has_cluster(&here) || reaches(data_dir, uid, gid)) {
        return reachable(here, data_dir, uid, gid);
    }
    let note = data_dir.join("POSTGRES_IS_ELSEWHERE");
    let text = format!(
        "Postgres' user can't reach this folder; its files are in {}\n",
        elsewhere.display()
    );
    fs::write(&note, text).map_err(|source| PostgresError::File {
        doing: "write",
        path: note,
        source,
    })?;
    fs::create_dir_all(ELSEWHERE).map_err(|source| PostgresError::File {
        doing: "make",
        path: ELSEWHERE.into(),
        source,
    })?;
    reachable(elsewhere, Path::new(ELSEWHERE), uid, gid)
}

/// `dir`, if its user gets as far as the `parent` it lies in.
fn reachable(dir: PathBuf, parent: &Path, uid: Uid, gid: Gid) -> Result<PathBuf, PostgresError> {
    if reaches(parent, uid, gid) {
        Ok(dir)
    } else {
        Err(PostgresError::Unreachable(dir))
    }
}

/// Whether every folder on the way lets the user through.
fn reaches(path: &Path, uid: Uid, gid: Gid) -> bool {
    path.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|folder| {
            let bit = match () {
                () if folder.uid() == uid.as_raw() => 0o100,
                () if folder.gid() == gid.as_raw() => 0o010,
                () => 0o001,
            };
            folder.mode() & bit != 0
        })
    })
}

fn name_of(uid: Uid) -> Result<String, PostgresError> {
    let user = User::from_uid(uid).map_err(|error| PostgresError::User(error.to_string()))?;
    user.map(|user| user.name)
        .ok_or_else(|| PostgresError::User(format!("uid {uid} has no name")))
}

async fn server_user() -> Result<(Uid, Gid), PostgresError> {
    let find =
        |name: &str| User::from_name(name).map_err(|error| PostgresError::User(error.to_string()));
    if let Some(user) = find("postgres")? {
        return Ok((user.uid, user.gid));
    }
    if find(MADE_USER)?.is_none() {
        let mut useradd = Command::new("useradd");
        useradd.args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
        ]);
        useradd.args(["--shell", "/usr/sbin/nologin", MADE_USER]);
        run("useradd", useradd)
            .await
            .map_err(|error| PostgresError::User(error.to_string()))?;
    }
    let made = find(MADE_USER)?;
    made.map(|user| (user.uid, user.gid))
        .ok_or_else(|| PostgresError::User(format!("{MADE_USER} was made and is not there")))
}
