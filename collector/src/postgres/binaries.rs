//! Where the server's programs are: PATH, then `pg_config --bindir`, then the distributions' usual places.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{PostgresError, run};

/// The oldest release that works.
const OLDEST: u32 = 15;

/// A directory with `postgres` and `initdb`.
#[derive(Clone, Debug)]
pub(super) struct Binaries(PathBuf);

impl Binaries {
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }
}

/// The server for the cluster at `cluster`: of the release that made it (`needs`), or for a new one the first
/// that is new enough.
pub(super) async fn find(cluster: &Path, needs: Option<u32>) -> Result<Binaries, PostgresError> {
    let mut installed = Vec::new();
    for place in places().await {
        if place.join("initdb").is_file()
            && let Some(major) = major_in(&place).await
        {
            if major >= OLDEST && needs.is_none_or(|needs| needs == major) {
                return Ok(Binaries(place));
            }
            installed.push(major);
        }
    }
    Err(missing(cluster, needs, installed))
}

/// What is wrong where none of the `installed` will do.
fn missing(cluster: &Path, needs: Option<u32>, mut found: Vec<u32>) -> PostgresError {
    found.sort_unstable();
    found.dedup();
    match needs {
        Some(needs) if !found.is_empty() => PostgresError::OtherMajor {
            cluster: cluster.to_owned(),
            needs,
            found,
        },
        Some(_) | None => PostgresError::NotInstalled,
    }
}

/// `15`, or `15, 16`.
pub(super) fn list(majors: &[u32]) -> String {
    let majors: Vec<_> = majors.iter().map(ToString::to_string).collect();
    majors.join(", ")
}

/// Where to look, in order.
async fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    let mut config = Command::new("pg_config");
    config.arg("--bindir");
    if let Ok(bindir) = run("pg_config", config).await {
        places.push(PathBuf::from(bindir.trim()));
    }
    places.extend(versioned("/usr/lib/postgresql", "bin"));
    places.extend(
        versioned("/usr", "bin")
            .into_iter()
            .filter(|dir| dir.starts_with("/usr/pgsql")),
    );
    places.extend(["/usr/libexec/postgresql", "/usr/local/pgsql/bin"].map(PathBuf::from));
    places.retain(|place| place.join("postgres").is_file());
    places
}

/// `<dir>/*/<leaf>`, highest name first.
fn versioned(dir: &str, leaf: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path().join(leaf)).collect();
    found.sort();
    found.reverse();
    found
}

async fn major_in(place: &Path) -> Option<u32> {
    let mut version = Command::new(place.join("postgres"));
    version.arg("--version");
    major(&run("postgres", version).await.ok()?)
}

/// The 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or of `… 18beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("bash: postgres: not found"), None);
    }
}
