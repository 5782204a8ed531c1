//! What inventories cost: 10,000 hosts report 1,000 packages each for the first time, and again although nothing changed,
//! while others' heartbeats are measured; beside a raw loader of the same rows. And how long it takes to say which hosts
//! have a package below a version.

pub mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use infratrack_agent::uplink::{Connection as Uplink, Endpoint};
use infratrack_collector::clock::Clock;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use infratrack_shared::codec;
use infratrack_shared::digest::Digest;
use infratrack_shared::wire::batch::{Batch, StatePart};
use infratrack_shared::wire::packages::{
    Database, Group, Manager, PACKAGES, Package, PackagesPart,
};
use infratrack_shared::wire::{PROTOCOL, path};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::Client;
use super::beats::Beats;
use super::cpu;
use super::members::{Member, Registry};
use super::percentile;
use super::subject::Subject;
use crate::postgres::reachable_tempdir;

/// Hosts that report at once.
const AT_ONCE: usize = 16;
/// What an agent puts into one part, about.
const PART: usize = 900;
/// Hosts that have the same versions: every so many'th.
const COHORTS: usize = 10;
/// Heartbeats a second meanwhile: those of the hosts, every 30 seconds.
const INTERVAL_S: f64 = 30.0;
/// Hosts of their own send them.
const BEATING: usize = 500;
/// Without any inventory under way.
const QUIET: Duration = Duration::from_secs(20);
/// Hosts that the raw loader loads.
const LOADED: usize = 1000;
/// What begins on every listener.
const BASELINE: &str = "/health/live";

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub hosts: usize,
    pub packages: usize,
    /// Requests of each question.
    pub requests: usize,
}

/// One time that all hosts reported.
#[derive(Clone, Copy, Debug)]
pub struct Reported {
    pub elapsed: Duration,
    pub collector: Duration,
    pub postgres: Duration,
    /// Of heartbeats meanwhile, in milliseconds.
    pub beat_p50_ms: f64,
    pub beat_p99_ms: f64,
    /// Parts that had to be sent again: there was no room.
    pub again: u64,
}

/// A question and how long it took, sorted.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub took: Vec<Duration>,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Results {
    pub options: Options,
    /// Rows a second of the raw loader, and its Postgres' CPU.
    pub loader_rows_per_s: f64,
    /// Heartbeats without any inventory under way.
    pub quiet_p50_ms: f64,
    pub quiet_p99_ms: f64,
    pub first: Reported,
    pub unchanged: Reported,
    /// Rows of hosts and of the dictionary.
    pub rows: i64,
    pub dictionary: i64,
    /// Updates that are pending, in rows.
    pub updates: u64,
    pub baseline: Asked,
    pub asked: Vec<Asked>,
}

/// Runs all of it.
pub async fn run(options: Options, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let dir = reachable_tempdir()?;
    let subject = Subject::start(dir.path()).await?;
    let registry = Arc::new(Registry::open(&subject.ca_dir)?);
    let mut own = PgConnection::connect_with(&subject.own).await?;
    let mut loader = PgConnection::connect_with(&subject.loader).await?;
    let mut members = Vec::new();
    let all = options.hosts + BEATING;
    registry
        .grow(&mut members, all, &mut [&mut own, &mut loader])
        .await?;
    let beating = members.split_off(options.hosts);
    say("hosts are entered");
    let loader_rows_per_s = load(&subject, &members, options).await?;
    say(&format!("raw loader: {loader_rows_per_s:.0} rows/s"));
    let rate = options.hosts as f64 / INTERVAL_S;
    let beats = Beats::start(subject.agents, &registry, beating, rate)?;
    tokio::time::sleep(QUIET).await;
    let quiet = beats.take();
    let members = Arc::new(members);
    let mut reported = Vec::new();
    for version in 1..=2 {
        let one = report_all(&subject, &registry, &members, version, options, &beats).await?;
        say(&format!("version {version}: {one:?}"));
        reported.push(one);
    }
    beats.stop()?;
    let rows = sqlx::query_scalar("select count(*) from host_packages");
    let rows: i64 = rows.fetch_one(&mut own).await?;
    let expected = i64::try_from(options.hosts * options.packages)?;
    ensure!(rows == expected, "{rows} rows of {expected}");
    let dictionary = sqlx::query_scalar("select count(*) from packages");
    let dictionary = dictionary.fetch_one(&mut own).await?;
    let updates = pending(&mut own).await?;
    let vacuum = sqlx::query("vacuum analyze");
    vacuum.execute(&mut own).await?;
    let new = NewToken::of_role("bench", Role::Admin, "bench");
    let (_, secret) = token::create(&mut own, &new, Clock::system().now()).await?;
    let mut client = Client::connect(subject.operators, secret).await?;
    let host = members.first().context("no host")?.host;
    let (baseline, asked) = ask(&mut client, &host.to_string(), options, &say).await?;
    drop(client);
    own.close().await?;
    loader.close().await?;
    subject.stop().await?;
    let [first, unchanged] = reported
        .try_into()
        .map_err(|_| anyhow::anyhow!("two versions"))?;
    Ok(Results {
        options,
        loader_rows_per_s,
        quiet_p50_ms: quiet.p50_ms,
        quiet_p99_ms: quiet.p99_ms,
        first,
        unchanged,
        rows,
        dictionary,
        updates,
        baseline,
        asked,
    })
}

/// The rows of some hosts by plain statements, a transaction a host, over two connections.
async fn load(subject: &Subject, members: &[Member], options: Options) -> anyhow::Result<f64> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    let hosts = members.len().min(LOADED);
    for lane in 0..2 {
        let mut connection = PgConnection::connect_with(&subject.loader).await?;
        let hosts: Vec<_> = members.iter().take(hosts).skip(lane).step_by(2).collect();
        let hosts: Vec<_> = hosts.iter().map(|member| member.host.0).collect();
        let ids: Vec<i64> = (0..i64::try_from(options.packages)?).collect();
        tasks.spawn(async move {
            for host in hosts {
                sqlx::query(
                    "insert into host_packages (host_id, package_id, installed_at, held, broken)
                     select $1, id, null, false, null from unnest($2::int8[]) as i (id)
                     on conflict (host_id, package_id) do nothing",
                )
                .bind(host)
                .bind(&ids)
                .execute(&mut connection)
                .await?;
            }
            connection.close().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok((hosts * options.packages) as f64 / begin.elapsed().as_secs_f64())
}

/// Enters updates: about one of forty packages of each host, a third of them for security, of 400 advisories.
async fn pending(connection: &mut PgConnection) -> anyhow::Result<u64> {
    let rows = sqlx::query(
        "insert into pending_updates (host_id, manager, name, arch, installed, candidate, is_security, advisories,
             first_seen_at, security_since, due_at)
         select h.host_id, 'dpkg', 'package-' || lpad(n::text, 4, '0'), 'amd64', '1', '2', n % 3 = 0,
             case when n % 3 = 0 then array['DSA-' || n] else '{}' end, now(),
             case when n % 3 = 0 then now() - n * interval '30 min' end,
             case when n % 3 = 0 then now() + (n - 400) * interval '30 min' end
         from hosts h, generate_series(1, 1200) n where abs(hashtext(h.host_id::text || n)) % 40 = 0",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into host_patches (host_id, metadata_at, checked_at, update_count, security_count, blocked_count,
             security_since, due_at)
         select host_id, now(), now(), count(*), count(*) filter (where is_security), 0, min(security_since),
             min(due_at)
         from pending_updates group by host_id on conflict do nothing",
    )
    .execute(connection)
    .await?;
    Ok(rows.rows_affected())
}

async fn report_all(
    subject: &Subject,
    registry: &Arc<Registry>,
    members: &Arc<Vec<Member>>,
    version: u64,
    options: Options,
    beats: &Beats,
) -> anyhow::Result<Reported> {
    beats.take();
    let pid = subject.process.pid();
    let before = (cpu::of_process(pid)?, cpu::of_family(subject.postmaster)?);
    let begin = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let again = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (registry, members) = (Arc::clone(registry), Arc::clone(members));
        let (next, again) = (Arc::clone(&next), Arc::clone(&again));
        let endpoint = (subject.agents.to_string(), registry.server_name()?);
        tasks.spawn(async move {
            loop {
                let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed))?;
                let Some(member) = members.get(index) else {
                    return anyhow::Ok(());
                };
                let endpoint = Endpoint {
                    address: endpoint.0.clone(),
                    name: endpoint.1.clone(),
                    tls: registry.tls_of(member),
                };
                let parts = parts(index % COHORTS, version, options.packages)?;
                let sent = report_one(&endpoint, member, parts).await?;
                again.fetch_add(sent, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let elapsed = begin.elapsed();
    let took = beats.take();
    Ok(Reported {
        elapsed,
        collector: cpu::of_process(pid)?.saturating_sub(before.0),
        postgres: cpu::of_family(subject.postmaster)?.saturating_sub(before.1),
        beat_p50_ms: took.p50_ms,
        beat_p99_ms: took.p99_ms,
        again: again.load(Ordering::Relaxed),
    })
}

/// What a host of a cohort has: every cohort another version of each.
fn parts(cohort: usize, version: u64, packages: usize) -> anyhow::Result<Vec<StatePart>> {
    let package = |number: usize| Package {
        name: format!("package-{number:04}"),
        version: format!("1.{cohort}.{number}-1+deb12u{cohort}"),
        arch: "amd64".to_owned(),
        source: number
            .is_multiple_of(3)
            .then(|| format!("source-{}", number / 3)),
        installed_at_s: Some(1_767_225_600),
        ..Package::default()
    };
    let numbers: Vec<_> = (0..packages).collect();
    let count = u32::try_from(numbers.chunks(PART).count())?;
    let hash = Digest::of(format!("{cohort} {packages}").as_bytes());
    let part = |(place, numbers): (usize, &[usize])| {
        let database = Database {
            manager: Manager::Dpkg,
            has_log: true,
            ..Database::default()
        };
        let body = PackagesPart {
            databases: if place == 0 {
                vec![database]
            } else {
                Vec::new()
            },
            put: vec![Group {
                manager: Manager::Dpkg,
                packages: numbers.iter().copied().map(package).collect(),
            }],
            gone: Vec::new(),
        };
        Ok(StatePart {
            key: PACKAGES.to_owned(),
            version,
            base_hash: None,
            new_hash: hash,
            part: u32::try_from(place)?,
            parts: count,
            body: codec::to_value(&body)?,
        })
    };
    numbers.chunks(PART).enumerate().map(part).collect()
}

/// Sends every part until it is acknowledged; answers how often one had to be sent again.
async fn report_one(
    endpoint: &Endpoint,
    member: &Member,
    parts: Vec<StatePart>,
) -> anyhow::Result<u64> {
    let mut connection = Uplink::open(endpoint).await?;
    let mut again = 0;
    for part in parts {
        let batch = Batch {
            protocol: PROTOCOL,
            stream: member.stream,
            instance: member.instance,
            boot_id: member.boot_id,
            sent_at: Clock::system().unix_millis(),
            mono_ms: None,
            policy_version: u64::MAX,
            wait_ms: 0,
            commands_seen: Vec::new(),
            heartbeat: None,
            parts: Vec::new(),
            state: vec![part],
        };
        loop {
            let mut answer = connection
                .stream(path::BATCH, &batch, Duration::ZERO)
                .await?;
            let mut is_stored = false;
            while let Some(frame) = answer.next_frame().await? {
                is_stored |= frame.ack.is_some_and(|ack| !ack.state.is_empty());
            }
            if is_stored {
                break;
            }
            again += 1;
            ensure!(again < 1000, "a part is never stored");
        }
    }
    Ok(again)
}

/// What operators ask, in turns with what asks nothing of anybody.
async fn ask(
    client: &mut Client,
    host: &str,
    options: Options,
    say: &impl Fn(&str),
) -> anyhow::Result<(Asked, Vec<Asked>)> {
    let asked = |path: String| Asked {
        path,
        took: Vec::new(),
    };
    let mut baseline = asked(BASELINE.to_owned());
    let paths = [
        "/api/v1/packages/hosts?name=package-0500&version=%3C1.5".to_owned(),
        "/api/v1/packages/hosts?name=package-0500".to_owned(),
        "/api/v1/packages?q=package-05".to_owned(),
        "/packages".to_owned(),
        format!("/hosts/{host}/packages"),
        "/patches".to_owned(),
        "/patches?view=packages".to_owned(),
        "/patches?view=advisories".to_owned(),
        "/patches?view=updates".to_owned(),
        "/api/v1/updates?security=true&overdue=true".to_owned(),
    ];
    let mut all = Vec::new();
    for path in paths {
        let mut one = asked(path);
        for _ in 0..options.requests {
            for measured in [&mut baseline, &mut one] {
                let (took, _) = client.first_byte(&measured.path).await?;
                measured.took.push(took);
            }
        }
        one.took.sort();
        say(&format!(
            "{}: p95 {:?}",
            one.path,
            percentile(&one.took, 0.95)
        ));
        all.push(one);
    }
    baseline.took.sort();
    Ok((baseline, all))
}
