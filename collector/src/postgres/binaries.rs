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

/// The first place that has a server that is new enough.
pub(super) async fn find() -> Result<Binaries, PostgresError> {
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
    for place in places {
        if place.join("postgres").is_file()
            && place.join("initdb").is_file()
            && is_new(&place).await
        {
            return Ok(Binaries(place));
        }
    }
    Err(PostgresError::NotInstalled)
}

/// `<dir>/*/<leaf>`, highest name first.
fn versioned(dir: &str, leaf: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path().join(leaf)).collect();
    found.sort();
    found.reverse();
    found
}

async fn is_new(place: &Path) -> bool {
    let mut version = Command::new(place.join("postgres"));
    version.arg("--version");
    let text = run("postgres", version).await.unwrap_or_default();
    major(&text).is_some_and(|major| major >= OLDEST)
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
