//! What plays cost the collector: records of tasks that changed each of 500 hosts, posted as the callback's forwarder does,
//! 500 at a time.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::ensure;
use http::StatusCode;
use infratrack_collector::clock::Clock;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::post::{Pieces, Poster};
use super::token;
use crate::bench::api::sample::{self, Sample};
use crate::bench::cpu;
use crate::bench::subject::Subject;
use crate::postgres::reachable_tempdir;

/// Records of a request, as the forwarder sends them.
const BATCH: usize = 500;
/// Hosts of each play.
const HOSTS: usize = 500;
/// Runs of all records; the first goes alone, the others so many at once.
const RUNS: usize = 20;
const LANES: usize = 4;
const FLEET: i32 = 2000;

/// What some runs cost.
#[derive(Clone, Debug)]
pub struct Posted {
    pub name: String,
    pub records: usize,
    pub bytes: u64,
    pub elapsed: Duration,
    pub collector: Duration,
    pub postgres: Duration,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Results {
    pub alone: Posted,
    pub together: Posted,
}

/// Posts records of about so many results to a collector of its own, whose fleet has the plays' hosts.
pub async fn run(results: usize, say: &impl Fn(&str)) -> anyhow::Result<Results> {
    let dir = reachable_tempdir()?;
    let subject = Subject::start(dir.path()).await?;
    let fleet = Sample {
        hosts: FLEET,
        heartbeats: FLEET.into(),
        events: FLEET.into(),
    };
    let now = Clock::system().now();
    sample::load(subject.own.clone(), fleet, now, say).await?;
    let mut connection = PgConnection::connect_with(&subject.own).await?;
    let names: Vec<String> = sqlx::query_scalar("select name from hosts order by host_id limit $1")
        .bind(i64::try_from(HOSTS)?)
        .fetch_all(&mut connection)
        .await?;
    let secret = token(&subject).await?;
    let tasks = (results / RUNS / HOSTS).max(1);
    let records = records(&names, tasks, now)?;
    let alone = post(&subject, &secret, "one run", &records, 1).await?;
    say(&format!("{alone:?}"));
    let name = format!("{} more, {LANES} at once", RUNS - 1);
    let together = post(&subject, &secret, &name, &records, RUNS - 1).await?;
    say(&format!("{together:?}"));
    let stored = sqlx::query_scalar("select count(*) from change_results");
    let stored: i64 = stored.fetch_one(&mut connection).await?;
    let expected = i64::try_from(RUNS * tasks * names.len())?;
    ensure!(stored == expected, "{stored} results of {expected}");
    connection.close().await?;
    subject.stop().await?;
    Ok(Results { alone, together })
}

/// Posts `runs` runs, at most [`LANES`] at once, each batch when the one before it is acknowledged.
async fn post(
    subject: &Subject,
    secret: &str,
    name: &str,
    records: &[Value],
    runs: usize,
) -> anyhow::Result<Posted> {
    // What a client does is none of the collector's cost, but on the same cores: nothing is made while they are measured.
    let mut lanes: HashMap<usize, Vec<Vec<Pieces>>> = HashMap::new();
    let mut bytes = 0;
    for number in 0..runs {
        let run = batches(Uuid::new_v4(), records);
        bytes += run.iter().map(Pieces::len).sum::<u64>();
        lanes.entry(number % LANES).or_default().push(run);
    }
    let pid = subject.process.pid();
    let spent = (cpu::of_process(pid)?, cpu::of_family(subject.postmaster)?);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (_, runs) in lanes {
        let mut poster = Poster::connect(subject.operators, secret).await?;
        tasks.spawn(async move {
            for batch in runs.into_iter().flatten() {
                let answer = poster.post("/ingest/ansible", &[], batch).await?;
                ensure!(answer.status == StatusCode::OK, "{answer:?}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(Posted {
        name: name.to_owned(),
        records: runs * records.len(),
        bytes,
        elapsed: begun.elapsed(),
        collector: cpu::of_process(pid)?.saturating_sub(spent.0),
        postgres: cpu::of_family(subject.postmaster)?.saturating_sub(spent.1),
    })
}

fn batches(run: Uuid, records: &[Value]) -> Vec<Pieces> {
    let batches = records.chunks(BATCH).enumerate();
    let body = |(number, records): (usize, &[Value])| {
        let body = json!({"run": run, "first_seq": number * BATCH + 1, "records": records});
        Pieces::whole(&body.to_string().into())
    };
    batches.map(body).collect()
}

/// The records of a play.
fn records(names: &[String], tasks: usize, now: OffsetDateTime) -> anyhow::Result<Vec<Value>> {
    let at = now.format(&Rfc3339)?;
    let last = names.len().saturating_sub(1);
    let mut records = vec![json!({
        "kind": "start", "at": at, "format": 1, "process": Uuid::new_v4(), "playbook_number": 1,
        "ansible_version": "2.19.14", "python_version": "3.11.7", "controller": "ci-1", "user": "ada",
        "playbook": "site.yml", "playbook_path": "/srv/plays/site.yml", "check": false, "diff": false,
    })];
    for (number, name) in names.iter().enumerate() {
        records.push(
            json!({"kind": "host", "number": number, "name": name, "distribution": "Debian"}),
        );
    }
    records.push(json!({
        "kind": "play", "at": at, "play": "02fc0000-0001-f763-611d-000000000002", "name": "Web", "batch": 1,
        "pattern": "web", "strategy": "linear", "hosts": format!("0-{last}"), "host_count": names.len(),
    }));
    for task in 0..tasks {
        let id = format!("02fc0000-0001-f763-611d-{task:012x}");
        records.push(json!({
            "kind": "task", "task": id, "play": "02fc0000-0001-f763-611d-000000000002", "batch": 1, "at": at,
            "name": format!("Step {task}"), "action": "ansible.builtin.apt", "role": "web",
            "path": "roles/web/tasks/main.yml", "line": task + 1,
        }));
        for name in names {
            records.push(json!({
                "kind": "result", "task": id, "batch": 1, "host": name, "status": "changed", "started_at": at,
                "ended_at": at, "message": format!("package-{task} was upgraded from 1.{task} to 2.{task}"),
            }));
        }
    }
    let recap = json!({"ok": tasks, "changed": tasks, "failures": 0, "unreachable": 0, "skipped": 0, "rescued": 0,
                       "ignored": 0});
    for some in names.chunks(250) {
        let hosts: HashMap<_, _> = some.iter().map(|name| (name, &recap)).collect();
        records.push(json!({"kind": "stats", "hosts": hosts}));
    }
    records.push(json!({"kind": "end", "at": at, "outcome": "ok"}));
    Ok(records)
}
