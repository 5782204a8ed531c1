//! How long pages take to begin over 10,000 hosts, beside a request that asks nothing of anybody; how much they weigh;
//! when a list of hosts can be used in a browser; and what clients of the live stream cost the collector while every host reports.

mod live;
pub mod report;

use std::time::Duration;

use anyhow::Context;
use http::{Method, StatusCode};
use infratrack_collector::clock::Clock;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::{Access, Role, routes};
use sqlx::{Connection, PgConnection};

use super::api::Client;
use super::api::sample::{self, Sample};
use super::percentile;
use super::subject::Subject;
use crate::browser;
use crate::postgres::reachable_tempdir;

/// What a page may take to its first byte at p95, and weigh without charts.
pub const FIRST_BYTE: Duration = Duration::from_millis(200);
pub const WEIGHT_BYTES: usize = 250_000;
/// A list of hosts can be used in a browser within this at p95.
pub const USABLE: Duration = Duration::from_secs(1);
/// The list that is loaded in a browser, so often.
const LIST: &str = "/hosts?view=all";
const LOADS: usize = 20;
/// What all clients of the live stream may take of a core.
pub const LIVE_SHARE: f64 = 0.05;
/// What begins on every page.
const BASELINE: &str = "/health/live";

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub hosts: i32,
    /// Requests of each page.
    pub requests: usize,
    /// Clients of the live stream.
    pub clients: usize,
    /// For how long they are measured.
    pub lasts: Duration,
}

/// How a page did.
#[derive(Clone, Debug)]
pub struct Measured {
    pub path: String,
    /// To the first byte, sorted.
    pub took: Vec<Duration>,
    pub bytes: usize,
}

/// What the live stream took.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// The collector's CPU, in cores, without clients and with them.
    pub idle: f64,
    pub busy: f64,
    /// That of the database, likewise.
    pub database_idle: f64,
    pub database_busy: f64,
    /// Rows that arrived a second, at all clients.
    pub rows_per_s: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Results {
    pub options: Options,
    pub baseline: Measured,
    pub pages: Vec<Measured>,
    /// Of each load in a browser, sorted.
    pub usable: Vec<Duration>,
    pub live: Live,
}

/// Loads a fleet into a collector's Postgres and asks for its pages.
pub async fn run(options: Options, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let dir = reachable_tempdir()?;
    let subject = Subject::start(dir.path()).await?;
    let clock = Clock::system();
    let past = Sample {
        hosts: options.hosts,
        heartbeats: i64::from(options.hosts) * 20,
        events: i64::from(options.hosts) * 10,
    };
    sample::load(subject.own.clone(), past, clock.now(), &say).await?;
    let mut database = PgConnection::connect_with(&subject.own).await?;
    let new = NewToken::of_role("bench", Role::Admin, "bench");
    let (_, secret) = token::create(&mut database, &new, clock.now()).await?;
    let mut client = Client::connect(subject.operators, secret.clone()).await?;
    let paths = paths(&mut client).await?;
    let mut baseline = Measured {
        path: BASELINE.to_owned(),
        took: Vec::new(),
        bytes: 0,
    };
    let mut pages = Vec::new();
    for path in paths {
        let mut page = Measured {
            path,
            took: Vec::new(),
            bytes: 0,
        };
        for _ in 0..options.requests {
            // In turns, so that the machine's mood is that of both.
            for measured in [&mut baseline, &mut page] {
                let (took, body) = client.first_byte(&measured.path).await?;
                measured.took.push(took);
                measured.bytes = body.len();
            }
        }
        page.took.sort();
        say(&format!(
            "{}: p95 {:?}",
            page.path,
            percentile(&page.took, 0.95)
        ));
        pages.push(page);
    }
    baseline.took.sort();
    let base = format!("http://{}", subject.operators);
    let mut usable = browser::usable(&base, &secret, LIST, LOADS).await?;
    usable.sort();
    say(&format!(
        "usable in a browser: p95 {:?}",
        percentile(&usable, 0.95)
    ));
    let live = live::measure(&subject, &mut database, &secret, options, &say).await?;
    drop(client);
    database.close().await?;
    subject.stop().await?;
    Ok(Results {
        options,
        baseline,
        pages,
        usable,
        live,
    })
}

/// The pages: all that there are, those that the first one links to, and lists of every kind.
async fn paths(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let mut paths: Vec<String> = [
        "/",
        LIST,
        "/hosts?sort=status",
        "/hosts?status=unhealthy",
        "/hosts?liveness=offline",
        "/hosts?certificate_days=14",
        "/hosts?tag=env%3Aprod&tag=role%3Aweb&not_tag=dc%3A3&sort=-disk_used_ratio",
        "/hosts?q=linux",
        "/login",
    ]
    .map(str::to_owned)
    .into();
    // Every other page that is one and not one of many.
    let is_page = |path: &str| {
        let is_other = ["/api/", "/live/", "/metrics"]
            .iter()
            .any(|start| path.starts_with(start));
        !path.contains('{') && !is_other
    };
    let pages = routes().iter().filter(|route| {
        route.method == Method::GET && route.access != Access::Public && is_page(&route.path)
    });
    let mut others: Vec<String> = pages.map(|route| route.path.clone()).collect();
    let home = String::from_utf8_lossy(&client.get("/").await?).into_owned();
    let list = client.document("/api/v1/hosts?limit=500&fields=id").await?;
    let cursor = list["next_cursor"].as_str().context("one page of hosts")?;
    paths.push(format!("/hosts?cursor={cursor}"));
    let host = list["items"][0]["id"].as_str().context("no host")?;
    paths.push(format!("/hosts/{host}"));
    let links = home.split("href=\"").skip(1);
    let links = links.filter_map(|part| part.split('"').next());
    let links = links.filter(|link| link.starts_with('/') && !link.starts_with("/static"));
    others.extend(links.map(|link| link.replace("&#38;", "&")));
    for other in others {
        if !paths.contains(&other) && client.status(&other).await? == StatusCode::OK {
            paths.push(other);
        }
    }
    Ok(paths)
}
