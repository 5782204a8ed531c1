//! How long it takes to answer what changed, over a year of changes: the list by every filter, a change and what it is made of,
//! a host's timeline, and their pages. What a collector does not have yet is left out, and said to be.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use infratrack_collector::clock::Clock;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use sqlx::{Connection, PgConnection};
use time::format_description::well_known::Rfc3339;
use time::{Duration as Span, OffsetDateTime};
use tokio::time::Instant;

use super::sample::{self, Past};
use crate::bench::api::Client;
use crate::bench::api::sample as fleet;
use crate::bench::percentile;
use crate::bench::subject::Subject;
use crate::postgres::reachable_tempdir;

/// What the brief of the product allows at p95.
const GOAL: Duration = Duration::from_millis(200);
/// Changes, and hosts, that are asked for in turns.
const FORMS: i64 = 20;
/// What begins on every listener.
const BASELINE: &str = "/health/live";
/// Changes that the newest are asked for, without their filters: `{}` is a number.
const LISTS: [(&str, &str); 13] = [
    ("all", ""),
    ("500 a page", "limit=500"),
    (
        "of a repository with a tenth of all",
        "repository=git.example/team/infra-0",
    ),
    (
        "of a repository with few",
        "repository=git.example/team/infra-1{}",
    ),
    (
        "of a repository with none",
        "repository=git.example/team/none-{}",
    ),
    ("of an actor", "actor=user-{}"),
    ("of a tool", "tool=ansible"),
    ("failed", "outcome=failed"),
    ("interrupted, of which there are few", "outcome=interrupted"),
    ("running, of which there are none", "outcome=running"),
    ("of a month", "from={from}&to={to}"),
    ("before a time long ago", "to={long_ago}"),
    (
        "of a repository and an actor, failed, of a tool, of a month",
        "repository=git.example/team/infra-0&actor=user-{}&outcome=failed&tool=terraform&from={from}&to={to}",
    ),
];

/// How long the answers to one question took, sorted.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: String,
    pub goal: Option<Duration>,
    pub took: Vec<Duration>,
    pub bytes: usize,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Results {
    pub past: Past,
    pub requests: usize,
    /// Rows of results, of resources, and of links.
    pub rows: (i64, i64, i64),
    pub loaded_in: Duration,
    pub measured: Vec<Measured>,
    /// Questions whose route or parameter there is not.
    pub missing: Vec<String>,
}

/// A question in its forms.
struct Question {
    name: String,
    paths: Vec<String>,
}

impl Question {
    fn of(name: &str, paths: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.to_owned(),
            paths: paths.into_iter().collect(),
        }
    }
}

/// Loads such a past into a collector's Postgres, and asks.
pub async fn run(past: Past, requests: usize, say: &impl Fn(&str)) -> anyhow::Result<Results> {
    let dir = reachable_tempdir()?;
    let subject = Subject::start(dir.path()).await?;
    let now = Clock::system().now();
    let begun = Instant::now();
    let hosts = fleet::Sample {
        hosts: past.hosts,
        heartbeats: i64::from(past.hosts) * 20,
        events: i64::from(past.hosts) * 50,
    };
    fleet::load(subject.own.clone(), hosts, now, say).await?;
    let mut database = PgConnection::connect_with(&subject.own).await?;
    sample::load(&mut database, past, now, say).await?;
    let loaded_in = begun.elapsed();
    let rows = sqlx::query_as(
        "select (select count(*) from change_results), (select count(*) from change_resources),
             (select count(*) from change_links)",
    );
    let rows = rows.fetch_one(&mut database).await?;
    let new = NewToken::of_role("bench", Role::Admin, "bench");
    let (_, secret) = token::create(&mut database, &new, now).await?;
    let mut client = Client::connect(subject.operators, secret).await?;
    let questions = questions(&mut client, &mut database, past, now).await?;
    let (mut measured, mut missing) = (Vec::new(), Vec::new());
    let baseline = Question::of("GET /health/live", [BASELINE.to_owned()]);
    let mut baseline = ask(&mut client, &baseline, requests).await?;
    baseline.goal = None;
    measured.push(baseline);
    for question in &questions {
        if is_missing(&mut client, question).await? {
            say(&format!("{}: is not there", question.name));
            missing.push(question.name.clone());
            continue;
        }
        let one = ask(&mut client, question, requests).await?;
        say(&format!(
            "{}: p95 {:?}",
            one.name,
            percentile(&one.took, 0.95)
        ));
        measured.push(one);
    }
    drop(client);
    database.close().await?;
    subject.stop().await?;
    Ok(Results {
        past,
        requests,
        rows,
        loaded_in,
        measured,
        missing,
    })
}

/// Every question. Ids and cursors are asked for.
async fn questions(
    client: &mut Client,
    database: &mut PgConnection,
    past: Past,
    now: OffsetDateTime,
) -> anyhow::Result<Vec<Question>> {
    let mut questions = lists(now)?;
    let half_way = deep(client, "/api/v1/changes?", past.changes / 2).await?;
    questions.push(Question::of("changes: half-way", [half_way]));
    let ids = "select change_id::text from changes order by started_at desc, change_id desc offset 2 limit $1";
    questions.extend(of_changes("a change", &strings(database, ids).await?));
    let large = "select change_id::text from changes order by started_at desc, change_id desc limit least($1, 2)";
    let large = strings(database, large).await?;
    let [plan, play] = large.as_slice() else {
        anyhow::bail!("there are no two large changes")
    };
    for (of, id, lists) in [
        (
            "the large plan",
            plan,
            &[
                ("resources?", past.resources / 3),
                ("resources?unchanged=true&", past.resources / 2),
            ][..],
        ),
        (
            "the large play",
            play,
            &[("tasks?", 0), ("results?", past.results / 20)],
        ),
    ] {
        questions.extend(of_changes(of, std::slice::from_ref(id)));
        let change = client.document(&format!("/api/v1/changes/{id}")).await?;
        let run = change["runs"][0]["id"].as_str().context("it has no run")?;
        for (list, rows) in lists {
            let path = format!("/api/v1/changes/{id}/runs/{run}/{list}");
            let name = format!("{of}: {}", list.trim_end_matches(['?', '&']));
            questions.push(Question::of(&name, [format!("{path}limit=50")]));
            // Small lists have one page.
            if *rows >= 500 {
                let half_way = deep(client, &path, *rows).await?;
                questions.push(Question::of(&format!("{name}, half-way"), [half_way]));
            }
        }
    }
    let hosts = "select host_id::text from change_hosts where at > now() - interval '3 days' group by host_id
                 order by count(*) desc, host_id limit $1";
    questions.extend(of_hosts(&strings(database, hosts).await?));
    for (name, path) in [
        ("page of changes", "/changes"),
        (
            "page of changes, of a repository",
            "/changes?repository=git.example/team/infra-0",
        ),
        ("page of changes, failed", "/changes?outcome=failed"),
    ] {
        questions.push(Question::of(name, [path.to_owned()]));
    }
    Ok(questions)
}

/// The list by its filters.
fn lists(now: OffsetDateTime) -> anyhow::Result<Vec<Question>> {
    let time = |days| (now - Span::days(days)).format(&Rfc3339);
    let times = [
        ("{from}", time(60)?),
        ("{to}", time(30)?),
        ("{long_ago}", time(300)?),
    ];
    let question = |(name, filters): (&str, &str)| {
        let begin = filters.to_owned();
        let filled = times
            .iter()
            .fold(begin, |filled, (name, at)| filled.replace(name, at));
        let forms = if filled.contains("{}") { 10 } else { 1 };
        let paths = (0..forms).map(|n| {
            let filters = filled.replace("{}", &n.to_string());
            format!("/api/v1/changes?{filters}")
        });
        Question::of(&format!("changes: {name}"), paths)
    };
    Ok(LISTS.into_iter().map(question).collect())
}

/// These changes, and what they touched.
fn of_changes(of: &str, ids: &[String]) -> Vec<Question> {
    let below = [
        ("", "/api/v1/changes/", ""),
        (": its hosts", "/api/v1/changes/", "/hosts"),
        (": what is related", "/api/v1/changes/", "/related"),
        (": its page", "/changes/", ""),
    ];
    let questions = below.into_iter().map(|(what, before, after)| {
        let paths = ids.iter().map(|id| format!("{before}{id}{after}"));
        Question::of(&format!("{of}{what}"), paths)
    });
    questions.collect()
}

/// What happened to these hosts.
fn of_hosts(hosts: &[String]) -> Vec<Question> {
    let below = [
        ("changes: of a host", "/api/v1/changes?host=", ""),
        ("a host's timeline", "/api/v1/hosts/", "/timeline"),
        (
            "a host's timeline, changes alone",
            "/api/v1/hosts/",
            "/timeline?kinds=change",
        ),
        ("what changed on a host", "/api/v1/hosts/", "/what-changed"),
        (
            "what changed on a host in a week",
            "/api/v1/hosts/",
            "/what-changed?hours=168",
        ),
        ("a host's page", "/hosts/", ""),
    ];
    let questions = below.into_iter().map(|(name, before, after)| {
        let paths = hosts.iter().map(|host| format!("{before}{host}{after}"));
        Question::of(name, paths)
    });
    questions.collect()
}

async fn strings(database: &mut PgConnection, sql: &'static str) -> anyhow::Result<Vec<String>> {
    let rows = sqlx::query_scalar(sql).bind(FORMS).fetch_all(database);
    Ok(rows.await?)
}

/// A route that there is not, or a parameter that is not known.
async fn is_missing(client: &mut Client, question: &Question) -> anyhow::Result<bool> {
    let path = question.paths.first().context("a question has no form")?;
    let status = client.status(path).await?;
    Ok([StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&status))
}

async fn ask(
    client: &mut Client,
    question: &Question,
    requests: usize,
) -> anyhow::Result<Measured> {
    let mut took = Vec::with_capacity(requests);
    let mut bytes = 0;
    for path in question.paths.iter().cycle().take(requests) {
        let begun = Instant::now();
        bytes = client.get(path).await?.len();
        took.push(begun.elapsed());
    }
    took.sort();
    Ok(Measured {
        name: question.name.clone(),
        goal: Some(GOAL),
        took,
        bytes,
    })
}

/// The page of 50 after so many rows of a list.
async fn deep(client: &mut Client, path: &str, rows: i32) -> anyhow::Result<String> {
    let (mut next, mut seen) = (format!("{path}limit=500"), 0);
    loop {
        let page = client.document(&next).await?;
        seen += 500;
        let cursor = page["next_cursor"].as_str().context("a list of one page")?;
        if seen >= rows {
            return Ok(format!("{path}limit=50&cursor={cursor}"));
        }
        next = format!("{path}limit=500&cursor={cursor}");
    }
}
