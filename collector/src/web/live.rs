//! `GET /live/hosts`: rows of the Hosts page as they change, as server-sent events.
//!
//! The one reader of a collector runs while somebody watches. Every two seconds it asks, in one query, for those of all
//! watched hosts of which something was heard, makes each row once for all that show it alike, and hands out the bytes.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::hosts::Host;
use crate::api::problem::Problem;
use crate::api::{auth, views};
use crate::app::App;
use crate::audit::ActorKind;
use crate::caller::Caller;
use crate::live::{Credential, End, MOST_HOSTS, Wanted, Watcher};
use crate::login::session::Client;
use crate::store::fleet;
use crate::store::hosts::list::HostRow;
use crate::store::hosts::watch::{self, Watched};
use crate::web::hosts::columns::Shown;
use crate::web::hosts::row::Row;
use crate::web::words;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Who comes is looked after so soon.
const SOON: Duration = Duration::from_millis(50);
/// Looks between two at everything that is watched: what time alone changes, and what was deleted.
const WHOLE: u32 = 15;
/// Looks between two at the fleet.
const FLEET: u32 = 2;
/// A stream is not silent for longer, lest proxies end it.
const BEAT: Duration = Duration::from_secs(15);
/// What was heard may be committed so much later.
const LATE: time::Duration = time::Duration::seconds(4);
/// A query at most, with the ids of [`MOST_HOSTS`].
const QUERY_BYTES: usize = 8 * 1024;
const TOKEN: HeaderName = HeaderName::from_static("x-api-token");

/// `GET /live/hosts?ids=…&columns=…`: as events `row`, `gone`, `counts` and, before it is over, `end`.
pub async fn hosts(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (hosts, shown) = asked(query.as_deref().unwrap_or_default())?;
    let watcher = Watcher {
        who: views::owner(&caller),
        hosts,
        view: shown.bits(),
        credential: Credential {
            headers: named(request.headers()),
            address: Client::of(&app, &request),
            role: caller.role,
            is_asked_again: caller.kind != ActorKind::Proxy,
        },
    };
    let Ok(subscription) = app.live.watch(watcher, app.clock.now()) else {
        let problem = Problem::unavailable("too many pages are being kept up to date; try again");
        return Ok(([(RETRY_AFTER, HeaderValue::from_static("30"))], problem).into_response());
    };
    if app.live.begin_reading() {
        tokio::spawn(keep_reading(Arc::clone(&app)));
    }
    // When to come back; not all at once.
    let hello = format!("retry: {}\n\n", rand::random_range(1000..5000));
    let first = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from(hello))));
    let rest = stream::unfold(subscription, |mut subscription| async {
        let message = subscription.next().await?;
        Some((Ok(message), subscription))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        // nginx would hold it back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// Which hosts, shown how.
fn asked(query: &str) -> Result<(Vec<Uuid>, Shown), Problem> {
    if query.len() > QUERY_BYTES {
        let detail = format!("must name {MOST_HOSTS} hosts at most");
        return Err(Problem::parameter("ids", detail));
    }
    let pairs: Vec<(String, String)> = serde_html_form::from_str(query)
        .map_err(|error| Problem::parameter("", error.to_string()))?;
    let (mut hosts, mut columns, mut selects) = (Vec::new(), None, false);
    for (name, value) in pairs {
        match name.as_str() {
            "ids" => {
                let ids = value.split(',').filter(|id| !id.is_empty());
                let ids: Result<Vec<Uuid>, _> = ids.map(Uuid::parse_str).collect();
                let ids = ids.map_err(|_| Problem::parameter("ids", "must be ids with commas"))?;
                hosts.extend(ids);
            }
            "columns" => columns = Some(value),
            "select" => selects = value == "1",
            _ => return Err(Problem::parameter(name, "is not known here")),
        }
    }
    if hosts.len() > MOST_HOSTS {
        let detail = format!("must be {MOST_HOSTS} at most");
        return Err(Problem::parameter("ids", detail));
    }
    Ok((hosts, Shown::parse(columns.as_deref())?.selecting(selects)))
}

/// What of a request's headers says who it is.
fn named(headers: &HeaderMap) -> HeaderMap {
    let mut named = HeaderMap::new();
    for name in [COOKIE, AUTHORIZATION, TOKEN] {
        for value in headers.get_all(&name) {
            named.append(name.clone(), value.clone());
        }
    }
    crate::login::session::mark_unattended(&mut named);
    named
}

/// What was last seen, to tell what changed.
struct Reader {
    app: Arc<App>,
    /// Of each watched host.
    seen: HashMap<Uuid, u64>,
    looked_at: OffsetDateTime,
    looks: u32,
    fleet: Option<fleet::Counts>,
    spoke: Instant,
}

/// Reads while somebody watches; a fault of one look does not end that of all who wait for the next.
async fn keep_reading(app: Arc<App>) {
    while let Err(error) = tokio::spawn(read(Arc::clone(&app))).await {
        tracing::error!(%error, "the reader of open pages failed");
        sleep(LOOK).await;
    }
}

/// Reads while somebody watches.
async fn read(app: Arc<App>) {
    let mut reader = Reader {
        looked_at: app.clock.now(),
        seen: HashMap::new(),
        looks: 0,
        fleet: None,
        spoke: Instant::now(),
        app: Arc::clone(&app),
    };
    loop {
        if app.draining.load(Ordering::Relaxed) {
            app.live.end_all();
        }
        if app.live.end_reading() {
            return;
        }
        reader.check().await;
        if let Err(error) = reader.look().await {
            tracing::warn!(%error, "open pages are not kept up to date");
        }
        reader.beat();
        tokio::select! {
            () = sleep(LOOK) => {}
            // Those that come together are looked after together.
            () = app.live.arrived() => sleep(SOON).await,
        }
    }
}

impl Reader {
    /// Ends the streams of those who may not watch any more.
    async fn check(&self) {
        let (app, now) = (&self.app, self.app.clock.now());
        for (id, credential) in app.live.due(now) {
            match auth::again(app, &credential.headers, &credential.address).await {
                Ok(Some(caller)) if caller.role == credential.role => app.live.is_checked(id, now),
                // Its page may show what the role no more allows, or not what it allows now.
                Ok(_) => app.live.end(id, End::Login),
                Err(_) => app.live.is_unchecked(id, now),
            }
        }
    }

    async fn look(&mut self) -> sqlx::Result<()> {
        let now = self.app.clock.now();
        let cutoffs = self.app.silence.cutoffs(now);
        let is_whole = self.looks.is_multiple_of(WHOLE);
        let is_of_fleet = self.looks.is_multiple_of(FLEET);
        self.looks = self.looks.wrapping_add(1);
        let wanted = self.app.live.wanted();
        let since = (!is_whole).then_some(self.looked_at - LATE);
        let mut connection = self.app.pool.acquire().await?;
        let rows = if wanted.hosts.is_empty() {
            Vec::new()
        } else {
            let watched = Watched {
                hosts: &wanted.hosts,
                anyway: &wanted.fresh_hosts,
                since,
            };
            watch::list_changed(&mut connection, watched, cutoffs).await?
        };
        let fleet = if is_of_fleet || wanted.has_fresh {
            Some(fleet::count(&mut connection, cutoffs, 0).await?)
        } else {
            None
        };
        drop(connection);
        self.looked_at = now;
        if is_whole {
            self.forget(&wanted, &rows);
        }
        if let Some(fleet) = fleet {
            self.tell_fleet(fleet);
        }
        self.tell(&wanted, rows, now);
        Ok(())
    }

    /// Hosts that are no more are told of, and those that nobody watches forgotten.
    fn forget(&mut self, wanted: &Wanted, rows: &[HostRow]) {
        let found: HashSet<_> = rows.iter().map(|row| row.host_id).collect();
        let watched: HashSet<_> = wanted.hosts.iter().copied().collect();
        let gone = self.seen.keys().filter(|id| !found.contains(id));
        for id in gone.filter(|id| watched.contains(id)) {
            self.app.live.send_all(&event("gone", &json!({ "id": id })));
        }
        self.seen.retain(|id, _| found.contains(id));
    }

    /// Sends the rows that changed to those that watch them.
    fn tell(&mut self, wanted: &Wanted, rows: Vec<HostRow>, now: OffsetDateTime) {
        let changed: HashSet<_> = rows
            .iter()
            .filter(|row| {
                let print = fingerprint(row);
                self.seen.insert(row.host_id, print) != Some(print)
            })
            .map(|row| row.host_id)
            .collect();
        let fresh: HashSet<_> = wanted.fresh_hosts.iter().copied().collect();
        let hosts = rows.into_iter().map(Host::from);
        let hosts: HashMap<_, _> = hosts
            .filter(|host| changed.contains(&host.id) || fresh.contains(&host.id))
            .map(|host| (host.id, host))
            .collect();
        let made = wanted.rows.iter().filter_map(|(id, view)| {
            let host = hosts.get(id)?;
            let shown = Shown::from_bits(*view);
            let html = Row { host, shown, now }.html();
            let message = event("row", &json!({ "id": id, "html": html }));
            Some(((*id, *view), message))
        });
        let made = made.collect();
        let hello = self.fleet.as_ref().map(counts);
        let live = &self.app.live;
        live.send_rows(wanted, &changed, &made, hello.as_ref());
    }

    /// Says how many hosts there are in each status, and by the time of the newest that there is one more.
    fn tell_fleet(&mut self, fleet: fleet::Counts) {
        let before = self.fleet.replace(fleet);
        if before.is_none_or(|before| before == fleet) {
            return;
        }
        self.app.live.send_all(&counts(&fleet));
        self.spoke = Instant::now();
    }

    /// Says at times that it is there.
    fn beat(&mut self) {
        if self.spoke.elapsed() >= BEAT {
            self.spoke = Instant::now();
            self.app.live.send_all(&Bytes::from_static(b": beat\n\n"));
        }
    }
}

/// How many hosts there are in each status, and when the newest was made.
fn counts(fleet: &fleet::Counts) -> Bytes {
    let newest = fleet.newest_at.as_ref().map(words::utc);
    let data = json!({
        "total": fleet.total, "healthy": fleet.healthy, "degraded": fleet.degraded,
        "unhealthy": fleet.unhealthy, "unknown": fleet.unknown, "newest": newest,
    });
    event("counts", &data)
}

/// An event; JSON has no line ends in it.
fn event(name: &str, data: &serde_json::Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// The same where a row would look the same.
fn fingerprint(row: &HostRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&row.name, &row.status, &row.reasons, &row.liveness).hash(&mut hasher);
    (&row.tags, &row.owner, &row.environment, &row.addresses).hash(&mut hasher);
    (&row.os_name, &row.agent_version, &row.origin).hash(&mut hasher);
    (row.last_seen_at, row.retired_at, row.cert_not_after).hash(&mut hasher);
    (row.skew_ms, row.failed_unit_count, &row.liveness_reason).hash(&mut hasher);
    let ratios = [row.cpu_ratio, row.memory_used_ratio, row.disk_used_ratio];
    ratios
        .map(|ratio| ratio.map(f32::to_bits))
        .hash(&mut hasher);
    hasher.finish()
}
