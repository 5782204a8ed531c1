//! What large documents cost a collector: a plan of 50 MB in each form in which it may come, three at once, and what is
//! refused.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::plan;
use super::post::{Answer, Pieces, Poster};
use super::token;
use crate::bench::subject::Subject;
use crate::bench::{cpu, memory};
use crate::postgres::reachable_tempdir;

/// What the brief of the product allows for a plan of 50 MB.
pub const CPU: Duration = Duration::from_secs(5);
pub const GROWTH_BYTES: u64 = 200 << 20;
/// The collector gives back what it does not need, and Postgres writes what it has, before the next.
const QUIET: Duration = Duration::from_secs(3);
/// Documents that are posted at once.
const AT_ONCE: usize = 3;
/// Bytes of what is far too large.
const BOMB: u64 = 500_000_000;
const DEPTH: u64 = 100_000;
const MANY: u64 = 1_000_000;
const PATH: &str = "/ingest/terraform";

/// What one post cost, or several at once.
#[derive(Clone, Debug)]
pub struct Posted {
    pub name: String,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Statuses, and the type of a problem.
    pub told: Vec<String>,
    pub elapsed: Duration,
    pub collector: Duration,
    pub postgres: Duration,
    /// Resident before it, and by how much more at most during it.
    pub before_bytes: u64,
    pub growth_bytes: u64,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Results {
    /// Of the plan.
    pub resources: usize,
    pub bytes: u64,
    pub taken: Vec<Posted>,
    pub refused: Vec<Posted>,
}

/// Posts them to a collector of their own.
pub async fn run(resources: usize, say: &impl Fn(&str)) -> anyhow::Result<Results> {
    let dir = reachable_tempdir()?;
    let path = dir.path().join("plan.json");
    let bytes = plan::write(&path, resources)?;
    say(&format!("a plan of {resources} resources, {bytes} bytes"));
    let subject = Subject::start(dir.path()).await?;
    let secret = token(&subject).await?;
    let mut measuring = Measuring {
        subject: &subject,
        secret,
        say,
    };
    let taken = measuring.taken(&path).await?;
    let refused = measuring.refused().await?;
    subject.stop().await?;
    Ok(Results {
        resources,
        bytes,
        taken,
        refused,
    })
}

struct Measuring<'a, S> {
    subject: &'a Subject,
    secret: String,
    say: &'a S,
}

impl<S: Fn(&str)> Measuring<'_, S> {
    async fn taken(&mut self, path: &Path) -> anyhow::Result<Vec<Posted>> {
        let plain = Bytes::from(std::fs::read(path)?);
        let plain = Pieces::whole(&plain);
        let mut all = Vec::new();
        for (name, body) in [
            ("plain", plain.clone()),
            ("gzip", gzip(&plain)?),
            ("zstd", zstd(&plain)?),
        ] {
            let one = self.post(name, vec![body]).await?;
            ensure!(one.told == ["201"], "{name}: {:?}", one.told);
            all.push(one);
        }
        let name = format!("{AT_ONCE} at once");
        all.push(self.post(&name, vec![plain; AT_ONCE]).await?);
        Ok(all)
    }

    async fn refused(&mut self) -> anyhow::Result<Vec<Posted>> {
        let before = self.stored().await?;
        let large = large();
        let mut all = Vec::new();
        for (name, body, expected) in [
            ("500 MB", large.clone(), &["413 too_large"][..]),
            ("500 MB as gzip", gzip(&large)?, &["413 too_large"]),
            ("500 MB as zstd", zstd(&large)?, &["413 too_large"]),
            ("100,000 levels", deep(), &["422 invalid"]),
            (
                "a million resources",
                many(),
                &["422 too_many", "413 too_large"],
            ),
        ] {
            let one = self.post(name, vec![body]).await?;
            let is_expected = one
                .told
                .iter()
                .all(|told| expected.contains(&told.as_str()));
            ensure!(is_expected, "{name}: {:?}", one.told);
            all.push(one);
        }
        ensure!(
            self.stored().await? == before,
            "something of a refused document was stored"
        );
        Ok(all)
    }

    /// Changes, runs, resources and links.
    async fn stored(&self) -> anyhow::Result<(i64, i64, i64, i64)> {
        let mut connection = PgConnection::connect_with(&self.subject.own).await?;
        let counts = sqlx::query_as(
            "select (select count(*) from changes), (select count(*) from change_runs),
                 (select count(*) from change_resources), (select count(*) from change_links)",
        );
        let counts = counts.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(counts)
    }

    /// Posts these at once, each as a run of its own.
    async fn post(&mut self, name: &str, bodies: Vec<Pieces>) -> anyhow::Result<Posted> {
        tokio::time::sleep(QUIET).await;
        let subject = self.subject;
        let pid = subject.process.pid();
        let bytes = bodies.iter().map(Pieces::len).sum();
        memory::forget_peak(pid)?;
        let resident = memory::of_process(pid)?;
        let spent = (cpu::of_process(pid)?, cpu::of_family(subject.postmaster)?);
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, body) in bodies.into_iter().enumerate() {
            let run = format!("{name} {number}");
            let mut poster = Poster::connect(subject.operators, &self.secret).await?;
            tasks.spawn(async move {
                let headers = [
                    ("infratrack-repository", "git.example/team/infra"),
                    ("infratrack-ci-provider", "gitlab"),
                    ("infratrack-run-id", run.as_str()),
                ];
                poster.post(PATH, &headers, body).await
            });
        }
        let mut told = Vec::new();
        while let Some(answer) = tasks.join_next().await {
            let answer: Answer = answer?.with_context(|| name.to_owned())?;
            told.push(answer.told());
        }
        told.sort();
        let elapsed = begun.elapsed();
        let collector = cpu::of_process(pid)?.saturating_sub(spent.0);
        let postgres = cpu::of_family(subject.postmaster)?.saturating_sub(spent.1);
        let peak = memory::of_process(pid)?.peak_bytes;
        let posted = Posted {
            name: name.to_owned(),
            bytes,
            told,
            elapsed,
            collector,
            postgres,
            before_bytes: resident.bytes,
            growth_bytes: peak.saturating_sub(resident.bytes),
        };
        (self.say)(&format!("{posted:?}"));
        Ok(posted)
    }
}

/// One value that does not end.
fn large() -> Pieces {
    let piece = Bytes::from(vec![b'a'; 1_000_000]);
    let head = Bytes::from_static(br#"{"format_version":"1.2","resource_changes":[],"checks":""#);
    Pieces::of([(head, 1), (piece, BOMB / 1_000_000), ("\"}".into(), 1)])
}

fn deep() -> Pieces {
    let head = Bytes::from_static(br#"{"format_version":"1.2","resource_changes":"#);
    Pieces::of([
        (head, 1),
        (Bytes::from(vec![b'['; 1000]), DEPTH / 1000),
        (Bytes::from(vec![b']'; 1000]), DEPTH / 1000),
        ("}".into(), 1),
    ])
}

/// Small enough to be read.
fn many() -> Pieces {
    let head = r#"{"format_version":"1.2","resource_changes":["#;
    let one = r#"{"address":"a.b","change":{"actions":["no-op"]}}"#;
    let some = format!("{one},").repeat(1000);
    Pieces::of([
        (head.into(), 1),
        (some.into(), MANY / 1000 - 1),
        (format!("{one},").repeat(999).into(), 1),
        (format!("{one}]}}").into(), 1),
    ])
}

fn gzip(body: &Pieces) -> anyhow::Result<Pieces> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    body.read(|some| encoder.write_all(some))?;
    Ok(Pieces::whole(&encoder.finish()?.into()))
}

fn zstd(body: &Pieces) -> anyhow::Result<Pieces> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
    body.read(|some| encoder.write_all(some))?;
    Ok(Pieces::whole(&encoder.finish()?.into()))
}
