//! A database for each test, in one cluster that is kept between runs.
//!
//! The cluster is the product's own private Postgres with durability off; tests that kill Postgres start
//! their own with it on. A database is a copy of a migrated template, dropped when its test succeeded.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use infratrack_collector::postgres::{PostgresError, PrivatePostgres};
use infratrack_collector::{server, store};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Another test run of this checkout has this long to finish.
const WAIT: Duration = Duration::from_secs(120);

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

struct Cluster {
    options: PgConnectOptions,
    template: String,
}

/// One test's database.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
}

impl TestDatabase {
    /// A migrated, empty database.
    pub async fn create() -> anyhow::Result<Self> {
        let cluster = CLUSTER.get_or_try_init(start).await?;
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&cluster.options).await?;
        let template = &cluster.template;
        let sql = format!("create database {name} template {template} strategy file_copy");
        connection
            .execute(AssertSqlSafe(sql))
            .await
            .context("cannot copy the template")?;
        connection.close().await?;
        Ok(Self {
            options: cluster.options.clone().database(&name),
            name,
        })
    }

    /// How to connect to it.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(database = self.name, "kept for a look");
            return;
        }
        let options = self.options.clone().database("postgres");
        let sql = format!("drop database if exists {} with (force)", self.name);
        // A destructor can't wait; a thread with a runtime of its own can.
        let dropped = std::thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&options).await?;
                connection.execute(AssertSqlSafe(sql)).await?;
                Ok(connection.close().await?)
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            tracing::warn!(
                error = format!("{error:#}"),
                "a test's database was not dropped"
            );
        }
    }
}

async fn start() -> anyhow::Result<Cluster> {
    // On a thread and runtime of its own: the first test's runtime ends with that test.
    let started = std::thread::spawn(|| -> anyhow::Result<Cluster> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(start_cluster())
    });
    tokio::task::spawn_blocking(move || started.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the cluster's thread panicked"))?
}

async fn start_cluster() -> anyhow::Result<Cluster> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/testkit");
    let settings = ["fsync=off", "full_page_writes=off", "max_connections=300"];
    let deadline = tokio::time::Instant::now() + WAIT;
    let postgres = loop {
        match PrivatePostgres::start(&dir, &settings).await {
            Err(PostgresError::Held { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            other => break other?,
        }
    };
    let pid = postgres.pid().context("the cluster has ended")?;
    let options = postgres.connect_options().database("postgres");
    // Kept until the process ends, and the lock with it.
    std::mem::forget(postgres);
    stop_with_us(pid)?;
    let template = template(&options).await?;
    Ok(Cluster { options, template })
}

/// Has the server stopped when this process is gone, however it went: its end of the pipe closes then.
fn stop_with_us(pid: u32) -> anyhow::Result<()> {
    let watcher = std::process::Command::new("sh")
        .args(["-c", "cat; kill -INT \"$0\"", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    std::mem::forget(watcher);
    Ok(())
}

/// The migrated database to copy, named by its migrations.
async fn template(options: &PgConnectOptions) -> anyhow::Result<String> {
    let mut hash = blake3::Hasher::new();
    for migration in store::schema::MIGRATIONS.iter() {
        hash.update(&migration.checksum);
    }
    let name = format!("template_{}", &hash.finalize().to_hex()[..16]);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;
    let sql = "select exists (select from pg_database where datname = $1 and datistemplate)";
    let whole: bool = sqlx::query_scalar(sql).bind(&name).fetch_one(&pool).await?;
    if !whole {
        for sql in [
            format!("drop database if exists {name} with (force)"),
            format!("create database {name}"),
        ] {
            pool.execute(AssertSqlSafe(sql)).await?;
        }
        server::migrate(options.clone().database(&name)).await?;
        // Last: what is marked as a template is whole.
        pool.execute(AssertSqlSafe(format!(
            "alter database {name} is_template true"
        )))
        .await?;
    }
    pool.close().await;
    Ok(name)
}

/// A cluster of a test's own, with durability on, to be killed.
pub async fn durable_cluster(dir: &Path) -> anyhow::Result<PrivatePostgres> {
    let postgres = PrivatePostgres::start(dir, &["shared_buffers=32MB"]).await?;
    server::migrate(postgres.connect_options()).await?;
    Ok(postgres)
}

/// A directory that a server's user can reach, removed when dropped.
pub fn reachable_tempdir() -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// The workspace's binaries, beside the test's own.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let dir = exe
        .ancestors()
        .nth(2)
        .context("a test runs from target/<profile>/deps")?;
    let path = dir.join(name);
    anyhow::ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}
