//! The cluster's directory: who holds it, which release made it, and how it is made.
//!
//! What stands at its place is whole: `initdb` fills a directory of its own beside it, which is renamed
//! when all of it is on disk. What an interrupted one left is deleted, never used.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::binaries::Binaries;
use super::place::Place;
use super::{NAME, PostgresError, orphans, run};

/// How long a process that is about to end, or a child of it on its way to another program, may still hold the lock.
const HELD: Duration = Duration::from_secs(2);

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError {
    let path = path.to_owned();
    move |source| PostgresError::File {
        doing,
        path,
        source,
    }
}

/// Takes the lock of `data_dir`, which ends with the process. Its text says who holds it.
pub(super) async fn lock(data_dir: &Path) -> Result<File, PostgresError> {
    let path = data_dir.join("postgres.lock");
    // Not truncated: it may be another's.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    let deadline = Instant::now() + HELD;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)
                    .map_err(failed("read", &path))?;
                return Err(PostgresError::Held {
                    data_dir: data_dir.to_owned(),
                    pid: pid.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed("write", &path))?;
    Ok(file)
}

/// The release that made the cluster: its major version, none where there is no cluster.
pub(super) fn major(place: &Place) -> Result<Option<u32>, PostgresError> {
    let path = place.cluster().join("PG_VERSION");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", &path)(source)),
    };
    let number = text.trim().parse();
    number
        .map(Some)
        .map_err(|error| failed("read", &path)(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Deletes a directory. A server that its initdb had started may write a last file into it meanwhile.
async fn delete(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + HELD;
    loop {
        match fs::remove_dir_all(path) {
            Err(error)
                if error.kind() == io::ErrorKind::DirectoryNotEmpty
                    && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

/// Makes the cluster where there is none.
pub(super) async fn make(binaries: &Binaries, place: &Place) -> Result<(), PostgresError> {
    orphans::stop_initdb(place).await?;
    for entry in fs::read_dir(place.dir()).map_err(failed("list", place.dir()))? {
        let path = entry.map_err(failed("list", place.dir()))?.path();
        if place.is_unfinished(&path) {
            tracing::warn!(path = %path.display(), "deleting what an interrupted initdb left");
            delete(&path).await.map_err(failed("delete", &path))?;
        }
    }
    if major(place)?.is_some() {
        return Ok(());
    }
    // A name of its own: nothing that outlived its collector can write into it.
    let unfinished = place.unfinished(Uuid::new_v4());
    let mut initdb = Command::new(binaries.path("initdb"));
    initdb.arg("--pgdata").arg(&unfinished);
    initdb.args(["--username", NAME, "--encoding", "UTF8"]);
    initdb.args(["--locale", "C.UTF-8", "--data-checksums", "--auth", "peer"]);
    place.run_as(initdb.as_std_mut());
    run("initdb", initdb).await?;
    let cluster = place.cluster();
    fs::rename(&unfinished, &cluster).map_err(failed("make", &cluster))?;
    // initdb has synced what is in it; this is its name.
    File::open(place.dir())
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", place.dir()))
}

/// Says who may come in: the collector's user of today. Written at every start.
pub(super) fn admit(place: &Place) -> Result<(), PostgresError> {
    let write = |name: &str, text: String| {
        let path: PathBuf = place.cluster().join(name);
        fs::write(&path, text).map_err(failed("write", &path))
    };
    write(
        "pg_hba.conf",
        "local all all peer map=collector\n".to_owned(),
    )?;
    write(
        "pg_ident.conf",
        format!("collector {} {NAME}\n", place.collector_user),
    )
}
