//! Programs that use a collector's API while it is killed: they make tasks, change one together, and read lists;
//! each asks again until it is answered, as docs of the API tell them to. What they were told is held against the
//! tables in `clients/verdict.rs`.

mod verdict;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::operators::{Answer, Operators};
pub use verdict::{Finding, verify};

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(20);
/// Before a request is sent again.
const AGAIN: Duration = Duration::from_millis(100);
/// A collector answers again within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the clients were told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Tasks that were made: title and id.
    pub made: Vec<(String, String)>,
    /// Titles of those that were made, says their key, without an answer that came through.
    pub answer_lost: Vec<String>,
    /// Changes of the common task that were acknowledged, each by its word, with the tag before and the one after.
    pub changed: Vec<(String, String, String)>,
    /// Changes that were sent and never answered.
    pub doubtful: Vec<String>,
    /// The common task.
    pub common: String,
    /// Lists and exports that came whole.
    pub lists: usize,
}

/// Clients at work; they end with [`Clients::stop`].
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shared {
    operators: Operators,
    host: String,
    told: Mutex<Told>,
    /// Requests that were not answered, or put off.
    repeated: AtomicU64,
    stopped: watch::Receiver<bool>,
}

impl Clients {
    /// Makes the common task and lets them go: four of each kind, and one reader.
    pub async fn start(address: SocketAddr, token: String) -> anyhow::Result<Self> {
        let operators = Operators { address, token };
        let hosts = operators.get("/api/v1/hosts?limit=1").await?.1;
        let hosts: Value = serde_json::from_slice(&hosts)?;
        let host = hosts["items"][0]["id"].as_str().context("a host")?;
        let common = json!({"host_id": host, "kind": "other", "title": "common", "notes": "start after nothing"});
        let common = operators.create("/api/v1/tasks", &common).await?;
        let (stop, stopped) = watch::channel(false);
        let told = Told {
            common: common["id"].as_str().context("its id")?.to_owned(),
            ..Told::default()
        };
        let shared = Arc::new(Shared {
            operators,
            host: host.to_owned(),
            told: Mutex::new(told),
            repeated: AtomicU64::new(0),
            stopped,
        });
        let mut tasks = JoinSet::new();
        for name in ["a", "b", "c", "d"] {
            tasks.spawn(make(Arc::clone(&shared), name));
            tasks.spawn(change(Arc::clone(&shared), name));
        }
        tasks.spawn(read(Arc::clone(&shared)));
        Ok(Self {
            shared,
            tasks,
            stop,
        })
    }

    /// How often a request was sent again so far.
    pub fn repeated(&self) -> u64 {
        self.shared.repeated.load(Ordering::Relaxed)
    }

    /// Lets each end what it has begun. Fails where one was not served, or not as the API says.
    pub async fn stop(mut self) -> anyhow::Result<Told> {
        self.stop.send_replace(true);
        while let Some(done) = self.tasks.join_next().await {
            done.context("a client panicked")??;
        }
        Ok(self.shared.told().clone())
    }
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// An answer, or `None` where there was none that says anything.
    async fn once(&self, ask: &Ask<'_>) -> anyhow::Result<Option<Answer>> {
        let headers: Vec<_> = ask.header.iter().copied().collect();
        let body = ask.body.map(ToString::to_string).unwrap_or_default();
        let answer = self
            .operators
            .send(ask.method.clone(), ask.path, &headers, body.into());
        let answer = match answer.await {
            Ok(answer) if !is_put_off(answer.status) => Some(answer),
            Ok(_) | Err(_) => {
                self.repeated.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        Ok(answer)
    }

    /// The first answer that says anything.
    async fn until_answered(&self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.once(ask).await? {
                return Ok(answer);
            }
            let (method, path) = (&ask.method, ask.path);
            anyhow::ensure!(
                Instant::now() < deadline,
                "{method} {path}: no answer in {PATIENCE:?}"
            );
            sleep(AGAIN).await;
        }
    }
}

/// A request.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    header: Option<(&'a str, &'a str)>,
    body: Option<&'a Value>,
}

impl<'a> Ask<'a> {
    fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            header: None,
            body: None,
        }
    }
}

fn is_put_off(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn unexpected(what: &str, answer: &Answer) -> anyhow::Error {
    let body = String::from_utf8_lossy(&answer.body);
    anyhow::anyhow!("{what}: {} {body}", answer.status)
}

/// Makes tasks, each with a key of its own.
async fn make(shared: Arc<Shared>, name: &'static str) -> anyhow::Result<()> {
    for nth in 0_u64.. {
        if shared.is_stopped() {
            break;
        }
        let title = format!("{name}-{nth}");
        let body = json!({"host_id": shared.host, "kind": "other", "title": title});
        let ask = Ask {
            method: Method::POST,
            path: "/api/v1/tasks",
            header: Some(("idempotency-key", &title)),
            body: Some(&body),
        };
        let begun = Instant::now();
        loop {
            let answer = shared.until_answered(&ask).await?;
            if answer.status.is_success() {
                let task: Value = serde_json::from_slice(&answer.body)?;
                let id = task["id"].as_str().context("a task's id")?.to_owned();
                shared.told().made.push((title, id));
                break;
            }
            let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if problem["type"] == "idempotency_answer_lost" {
                shared.told().answer_lost.push(title);
                break;
            }
            let is_under_way = problem["type"] == "idempotency_under_way";
            anyhow::ensure!(
                is_under_way && begun.elapsed() < PATIENCE,
                unexpected("a task", &answer)
            );
            sleep(AGAIN).await;
        }
        sleep(PACE).await;
    }
    Ok(())
}

/// Changes the common task again and again: each change names the one that it saw.
async fn change(shared: Arc<Shared>, name: &'static str) -> anyhow::Result<()> {
    let path = format!("/api/v1/tasks/{}", shared.told().common);
    for nth in 0_u64.. {
        if shared.is_stopped() {
            break;
        }
        sleep(PACE).await;
        let seen = shared.until_answered(&Ask::get(&path)).await?;
        anyhow::ensure!(
            seen.status == StatusCode::OK,
            unexpected("the common task", &seen)
        );
        let task: Value = serde_json::from_slice(&seen.body)?;
        let last = word(&task["notes"]).context("a word in the notes")?;
        let own = format!("{name}{nth}");
        let before = seen.etag.context("the tag of a task")?;
        let ask = Ask {
            method: Method::PATCH,
            path: &path,
            header: Some(("if-match", &before)),
            body: Some(&json!({"notes": format!("{own} after {last}")})),
        };
        let Some(answer) = shared.once(&ask).await? else {
            shared.told().doubtful.push(own);
            continue;
        };
        match answer.status {
            StatusCode::OK => {
                let after = answer.etag.context("the tag of a changed task")?;
                shared.told().changed.push((own, before, after));
            }
            // Another one was faster.
            StatusCode::PRECONDITION_FAILED => {}
            _ => return Err(unexpected("a change", &answer)),
        }
    }
    Ok(())
}

/// The first word: whose change it was.
fn word(notes: &Value) -> Option<String> {
    Some(notes.as_str()?.split(' ').next()?.to_owned())
}

/// Reads pages and exports: whatever comes with 200 is whole.
async fn read(shared: Arc<Shared>) -> anyhow::Result<()> {
    while !shared.is_stopped() {
        for path in ["/api/v1/tasks?limit=500", "/api/v1/hosts?limit=500"] {
            let answer = shared.until_answered(&Ask::get(path)).await?;
            anyhow::ensure!(answer.status == StatusCode::OK, unexpected(path, &answer));
            let page: Value = serde_json::from_slice(&answer.body)?;
            let total = page["total"].as_u64().context("a total")?;
            let items = page["items"].as_array().context("items")?.len() as u64;
            // Nothing is deleted: between the page and its total it can only become more.
            let is_whole = items == 500 || (items <= total && items + 20 >= total);
            anyhow::ensure!(is_whole, "{path}: {items} of {total}");
            shared.told().lists += 1;
        }
        let export = "/api/v1/hosts?format=csv";
        let answer = shared.until_answered(&Ask::get(export)).await?;
        anyhow::ensure!(answer.status == StatusCode::OK, unexpected(export, &answer));
        let is_whole = answer.body.ends_with(b"\n");
        anyhow::ensure!(is_whole, "{export}: the last line is cut off");
        shared.told().lists += 1;
        sleep(PACE).await;
    }
    Ok(())
}
