//! Clients of the live stream, each on hosts of its own, while every host reports: what of a core that takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use uuid::Uuid;

use super::{Live, Options};
use crate::bench::cpu;
use crate::bench::subject::Subject;

/// Hosts that a page shows.
const PAGE: usize = 50;
/// Every host reports so often.
const REPORTS: Duration = Duration::from_secs(30);
/// Reports are written so often, a part of all hosts each time.
const STEP: Duration = Duration::from_millis(500);
/// What begins settles within this.
const SETTLES: Duration = Duration::from_secs(5);

/// What is left of the reports of a host: its row, as the collector's writer leaves it.
const REPORT: &str = "
    update host_liveness l set last_seen_at = now(), cpu_ratio = random()::real
    from (select host_id from host_liveness order by host_id offset $1 limit $2) as due
    where due.host_id = l.host_id";

struct Taken {
    collector: Duration,
    database: Duration,
}

/// Measures the collector without clients and with them, over the same reports.
pub(super) async fn measure(
    subject: &Subject,
    database: &mut PgConnection,
    token: &str,
    options: Options,
    say: &impl Fn(&str),
) -> anyhow::Result<Live> {
    let ids: Vec<Uuid> = sqlx::query_scalar("select host_id from hosts order by host_id")
        .fetch_all(&mut *database)
        .await?;
    let rows = Arc::new(AtomicU64::new(0));
    report(database, ids.len(), SETTLES).await?;
    let idle = taken(subject, database, ids.len(), options.lasts).await?;
    say("idle is measured; clients come");
    let mut clients = JoinSet::new();
    let mut pages = ids.chunks(PAGE).cycle();
    for _ in 0..options.clients {
        let page = pages.next().context("no hosts")?;
        let page: Vec<_> = page.iter().map(Uuid::to_string).collect();
        let path = format!("/live/hosts?ids={}", page.join(","));
        let watched = watch(subject.operators, path, token.to_owned(), Arc::clone(&rows));
        clients.spawn(watched);
    }
    report(database, ids.len(), SETTLES).await?;
    let before = rows.load(Ordering::Relaxed);
    let busy = taken(subject, database, ids.len(), options.lasts).await?;
    let seen = rows.load(Ordering::Relaxed) - before;
    if let Some(ended) = clients.try_join_next() {
        ended??;
        anyhow::bail!("a stream ended while it was measured");
    }
    clients.shutdown().await;
    let share = |taken: Duration| taken.as_secs_f64() / options.lasts.as_secs_f64();
    Ok(Live {
        idle: share(idle.collector),
        busy: share(busy.collector),
        database_idle: share(idle.database),
        database_busy: share(busy.database),
        rows_per_s: seen as f64 / options.lasts.as_secs_f64(),
    })
}

async fn taken(
    subject: &Subject,
    database: &mut PgConnection,
    hosts: usize,
    lasts: Duration,
) -> anyhow::Result<Taken> {
    let now = || -> anyhow::Result<Taken> {
        Ok(Taken {
            collector: subject.process.cpu_time()?,
            database: cpu::of_family(subject.postmaster)?,
        })
    };
    let before = now()?;
    report(database, hosts, lasts).await?;
    let after = now()?;
    Ok(Taken {
        collector: after.collector.saturating_sub(before.collector),
        database: after.database.saturating_sub(before.database),
    })
}

/// Has every host report at its time.
async fn report(database: &mut PgConnection, hosts: usize, lasts: Duration) -> anyhow::Result<()> {
    let steps = REPORTS.as_millis() / STEP.as_millis();
    let most = hosts.div_ceil(usize::try_from(steps)?);
    let (begun, mut ticks, mut at) = (Instant::now(), interval(STEP), 0);
    while begun.elapsed() < lasts {
        ticks.tick().await;
        sqlx::query(REPORT)
            .bind(i64::try_from(at)?)
            .bind(i64::try_from(most)?)
            .execute(&mut *database)
            .await?;
        at = if at + most >= hosts { 0 } else { at + most };
    }
    Ok(())
}

/// Reads a stream, and counts its rows.
async fn watch(
    address: SocketAddr,
    path: String,
    token: String,
    rows: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header("x-api-token", token)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        let found = data.windows(11).filter(|part| part == b"event: row\n");
        rows.fetch_add(found.count() as u64, Ordering::Relaxed);
    }
    Ok(())
}
