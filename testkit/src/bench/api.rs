//! How long the API takes to answer over a fleet with a past: every list, filter, sort and search, each host and what
//! is below it, beside requests that ask nothing of the database's size.

pub mod questions;
pub mod report;
pub mod sample;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use infratrack_collector::api::hosts::query::HostsQuery;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_collector::roles::Role;
use infratrack_collector::server::{self, Server};
use infratrack_collector::store::hosts as stored;
use serde_json::Value;
use sqlx::PgPool;
use tokio::time::Instant;

use super::percentile;
use crate::postgres::reachable_tempdir;
use questions::Question;
use sample::Sample;

/// An answer takes no longer than this, or the measurement ends.
const LIMIT: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub sample: Sample,
    /// Requests of each question.
    pub requests: usize,
}

/// How long the answers to one question took, sorted.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: String,
    /// What the brief of the product allows at p95.
    pub goal: Option<Duration>,
    pub took: Vec<Duration>,
    pub bytes: usize,
}

/// Everything that was measured over one fleet.
#[derive(Clone, Debug)]
pub struct Results {
    pub options: Options,
    pub loaded_in: Duration,
    pub baselines: Vec<Measured>,
    pub measured: Vec<Measured>,
    /// What Postgres did for the slowest list.
    pub slowest: String,
}

/// Loads a fleet into a Postgres of its own, starts a collector on it, and asks.
pub async fn run(options: Options, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let dir = reachable_tempdir()?;
    // What is loaded need not outlive the measurement; reading is the same with it.
    let settings = ["fsync=off", "full_page_writes=off", "max_wal_size=8GB"];
    let postgres = PrivatePostgres::start(&dir.path().join("postgres"), &settings).await?;
    server::migrate(postgres.connect_options()).await?;
    let clock = Clock::system();
    let config = config(dir.path());
    let pool = server::connect(postgres.connect_options(), &config).await?;
    let collector = Server::start(config, clock.clone(), pool.clone()).await?;
    let begun = Instant::now();
    sample::load(
        postgres.connect_options(),
        options.sample,
        clock.now(),
        &say,
    )
    .await?;
    let loaded_in = begun.elapsed();
    let mut connection = pool.acquire().await?;
    let new = NewToken::of_role("bench", Role::Viewer, "bench");
    let (_, secret) = token::create(&mut connection, &new, clock.now()).await?;
    drop(connection);
    let mut client = Client::connect(collector.addresses.operators, secret).await?;
    let asked = questions::all(&mut client).await?;
    let baselines = baselines(&mut client, &pool, options.requests).await?;
    let mut measured = Vec::new();
    for question in &asked {
        let one = ask(&mut client, question, options.requests).await?;
        say(&format!(
            "{}: p95 {:?}",
            one.name,
            percentile(&one.took, 0.95)
        ));
        measured.push(one);
    }
    measured.push(count_by_status(&collector, &pool, options.requests).await?);
    let slowest = explain_slowest(&collector, &pool, &asked, &measured).await?;
    drop(client);
    collector.stop().await;
    Ok(Results {
        options,
        loaded_in,
        baselines,
        measured,
        slowest,
    })
}

fn config(dir: &Path) -> Config {
    let mut config = Config {
        data_dir: dir.join("collector"),
        ..Config::default()
    };
    // One client asks as fast as it is answered.
    config.operators.requests_per_second = 1_000_000;
    config.operators.requests_burst = 1_000_000;
    for listen in [
        &mut config.agents.listen,
        &mut config.enroll.listen,
        &mut config.operators.listen,
    ] {
        *listen = ([127, 0, 0, 1], 0).into();
    }
    config
}

async fn ask(
    client: &mut Client,
    question: &Question,
    requests: usize,
) -> anyhow::Result<Measured> {
    let mut took = Vec::with_capacity(requests);
    let mut bytes = 0;
    for index in 0..requests {
        let path = question.path(index);
        let begun = Instant::now();
        bytes = client.get(path).await?.len();
        took.push(begun.elapsed());
    }
    took.sort();
    Ok(Measured {
        name: question.name.to_owned(),
        goal: question.goal,
        took,
        bytes,
    })
}

/// What the way itself takes.
async fn baselines(
    client: &mut Client,
    pool: &PgPool,
    requests: usize,
) -> anyhow::Result<Vec<Measured>> {
    let health = Question::fixed("GET /health", None, "/health");
    let whoami = Question::fixed("GET /api/v1/whoami", None, "/api/v1/whoami");
    let mut took = Vec::new();
    for _ in 0..requests {
        let begun = Instant::now();
        sqlx::query("select 1").execute(pool).await?;
        took.push(begun.elapsed());
    }
    took.sort();
    let select = Measured {
        name: "select 1, without HTTP".to_owned(),
        goal: None,
        took,
        bytes: 0,
    };
    let health = ask(client, &health, requests).await?;
    let mut all = vec![select, health];
    if let Ok(whoami) = ask(client, &whoami, requests).await {
        all.push(whoami);
    }
    Ok(all)
}

/// What each collector does every 15 s for its metrics.
async fn count_by_status(
    collector: &Server,
    pool: &PgPool,
    requests: usize,
) -> anyhow::Result<Measured> {
    let app = &collector.app;
    let mut took = Vec::new();
    for _ in 0..requests {
        let begun = Instant::now();
        let mut connection = pool.acquire().await?;
        let cutoffs = app.silence.cutoffs(app.clock.now());
        stored::count_by_status(&mut connection, cutoffs).await?;
        took.push(begun.elapsed());
    }
    took.sort();
    Ok(Measured {
        name: "hosts by status, every 15 s, without HTTP".to_owned(),
        goal: None,
        took,
        bytes: 0,
    })
}

async fn explain_slowest(
    collector: &Server,
    pool: &PgPool,
    asked: &[Question],
    measured: &[Measured],
) -> anyhow::Result<String> {
    let lists = asked
        .iter()
        .zip(measured)
        .filter(|(question, _)| question.query(0).is_some());
    let slowest = lists.max_by_key(|(_, measured)| percentile(&measured.took, 0.95));
    let (question, _) = slowest.context("no list was measured")?;
    let query = question.query(0).context("it is a list")?;
    let query: HostsQuery = serde_html_form::from_str(query)?;
    let filter = query
        .filter()
        .map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
    let sort = query
        .sort()
        .map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
    let page = stored::list::Page {
        filter,
        sort,
        after: None,
        limit: query.limit.unwrap_or(50),
        with_total: true,
    };
    let app = &collector.app;
    let mut connection = pool.acquire().await?;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let plan = stored::list::explain(&mut connection, &page, cutoffs, true).await?;
    Ok(format!("{}\n{plan}", question.path(0)))
}

/// One connection that stays open, as a program's does.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    token: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects with an API token.
    pub async fn connect(address: SocketAddr, token: String) -> anyhow::Result<Self> {
        let sender = Self::open(address).await?;
        Ok(Self {
            address,
            token,
            sender,
        })
    }

    async fn open(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// The whole body of an answer that is 200.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let answer = tokio::time::timeout(LIMIT, self.ask(path)).await;
        answer
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("GET {path}"))
    }

    /// How long an answer that is 200 takes to begin, and its body.
    pub async fn first_byte(&mut self, path: &str) -> anyhow::Result<(Duration, Bytes)> {
        let begun = Instant::now();
        let response = self.send(path).await?;
        let took = begun.elapsed();
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status == StatusCode::OK, "{path}: {status}");
        Ok((took, body))
    }

    /// The status of an answer.
    pub async fn status(&mut self, path: &str) -> anyhow::Result<StatusCode> {
        let response = self.send(path).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }

    async fn send(&mut self, path: &str) -> anyhow::Result<Response<Incoming>> {
        self.request(Request::get(path), Bytes::new()).await
    }

    async fn request(
        &mut self,
        request: request::Builder,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        if self.sender.ready().await.is_err() {
            self.sender = Self::open(self.address).await?;
        }
        let request = request
            .header(header::HOST, self.address.to_string())
            .header("x-api-token", &self.token)
            .body(Full::new(body))?;
        Ok(self.sender.send_request(request).await?)
    }

    /// The document of an answer that something was made.
    pub async fn create(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let response = self.request(request, body.to_string().into()).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            status == StatusCode::CREATED,
            "POST {path}: {status} {}",
            String::from_utf8_lossy(&body)
        );
        Ok(serde_json::from_slice(&body)?)
    }

    async fn ask(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let response = self.send(path).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            status == StatusCode::OK,
            "{status} {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }

    /// The document of an answer that is 200.
    pub async fn document(&mut self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }
}
