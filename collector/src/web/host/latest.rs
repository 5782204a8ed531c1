//! How a host is, as its page says it: identity, state with its reasons, and the latest heartbeat.

use infratrack_shared::ids::HostId;
use infratrack_shared::wire::heartbeat::FilesystemUsage;
use time::{Duration, OffsetDateTime};

use crate::api::hosts::{self, Host};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::facts;
use crate::store::heartbeats::{self, HeartbeatRow, signed};
use crate::web::plain::line;
use crate::web::words;

/// Filesystems that are shown, the fullest first, and addresses.
const FILESYSTEMS: usize = 30;
const ADDRESSES: usize = 8;
/// A heartbeat that is older does not say how the host is.
const OLD: Duration = Duration::minutes(5);

/// A host's state.
#[derive(Debug)]
pub struct State {
    pub host: Host,
    /// As its facts say.
    pub kernel: Option<String>,
    pub latest: Option<HeartbeatRow>,
    pub filesystems: Vec<Filesystem>,
    pub more_filesystems: usize,
}

/// A filesystem as the page shows it.
#[derive(Debug)]
pub struct Filesystem {
    pub mount: String,
    pub used: String,
    pub total: String,
    pub available: String,
}

impl State {
    /// Reads it, or 404.
    pub async fn read(app: &App, id: HostId) -> Result<Self, Problem> {
        let host = hosts::find(app, id).await?;
        let mut connection = app.pool.acquire().await?;
        let kernel = facts::find(&mut connection, id, "facts.kernel").await?;
        let kernel = kernel.and_then(|fact| {
            let part = |name: &str| Some(fact.body.get(name)?.as_str()?.to_owned());
            let release = part("release")?;
            Some(part("arch").map_or(release.clone(), |arch| format!("{release} {arch}")))
        });
        let latest = heartbeats::list(&mut connection, id, None, 1).await?.pop();
        let (filesystems, more_filesystems) = latest.as_ref().map(filesystems).unwrap_or_default();
        Ok(Self {
            host,
            kernel,
            latest,
            filesystems,
            more_filesystems,
        })
    }

    /// What it is called, as far as a page shows it.
    pub fn name(&self) -> String {
        line(&self.host.name, 120)
    }

    /// Whether it is online, and why not.
    pub fn liveness(&self) -> String {
        match (&self.host.liveness_reason, self.host.liveness.as_str()) {
            (_, "never") => "it has never reported".to_owned(),
            (Some(why), liveness) if liveness != "online" => {
                hosts::silence(liveness, &line(why, 80))
            }
            (_, liveness) => liveness.to_owned(),
        }
    }

    /// Why it is not healthy.
    pub fn reasons(&self) -> String {
        line(&self.host.reasons.join("; "), 400)
    }

    /// The first of them, and how many more.
    pub fn addresses(&self) -> String {
        let all = &self.host.addresses;
        let more = all.len().saturating_sub(ADDRESSES);
        let shown = all.iter().take(ADDRESSES).cloned().collect::<Vec<_>>();
        match (shown.is_empty(), more) {
            (true, _) => "unknown".to_owned(),
            (false, 0) => shown.join(", "),
            (false, more) => format!("{} and {more} more", shown.join(", ")),
        }
    }

    /// A text of the host's.
    pub fn text(&self, text: Option<&str>) -> String {
        let _ = self;
        text.map_or_else(|| "unknown".to_owned(), |text| line(text, 200))
    }

    /// A text of an operator's.
    pub fn said(&self, text: Option<&str>) -> String {
        let _ = self;
        text.map_or_else(|| "nobody said".to_owned(), |text| line(text, 200))
    }

    /// How far its clock is off.
    pub fn skew(&self) -> String {
        words::known(&self.host.skew_ms, |skew| match skew.abs() {
            0..2000 => "right".to_owned(),
            off => {
                let way = if skew > 0 { "ahead" } else { "behind" };
                format!("{} {way}", words::duration(off / 1000))
            }
        })
    }

    /// A day, as the certificate's end.
    pub fn day(&self, at: &OffsetDateTime) -> String {
        let _ = self;
        at.date().to_string()
    }

    /// Whether the latest values are of a time that is over.
    pub fn is_old(&self, now: &OffsetDateTime) -> bool {
        self.latest
            .as_ref()
            .is_some_and(|latest| *now - latest.at > OLD)
    }
}

/// Words for values of a heartbeat.
pub struct Latest;

impl Latest {
    /// Used memory.
    pub fn memory(latest: &HeartbeatRow) -> String {
        let used = latest.memory_total_bytes.zip(latest.memory_available_bytes);
        words::known(&used, |(total, available)| {
            let used = words::bytes(total.saturating_sub(available));
            format!("{used} of {}", words::bytes(total))
        })
    }

    /// Used swap.
    pub fn swap(latest: &HeartbeatRow) -> String {
        let used = latest.swap_total_bytes.zip(latest.swap_used_bytes);
        words::known(&used, |(total, used)| {
            if total == 0 {
                "none".to_owned()
            } else {
                format!("{} of {}", words::bytes(used), words::bytes(total))
            }
        })
    }

    /// Over 1, 5 and 15 minutes.
    pub fn load(latest: &HeartbeatRow) -> String {
        let loads = latest.load_1.zip(latest.load_5).zip(latest.load_15);
        words::known(&loads, |((one, five), fifteen)| {
            format!("{one:.2}, {five:.2}, {fifteen:.2}")
        })
    }

    /// Bytes a second.
    pub fn rate(value: &Option<i64>) -> String {
        words::known(value, |bytes| format!("{}/s", words::bytes(bytes)))
    }

    /// A number.
    pub fn count(value: &Option<i32>) -> String {
        words::known(value, |count| count.to_string())
    }

    /// A yes or no.
    pub fn yes_or_no(value: &Option<bool>) -> String {
        words::known(value, |is| if is { "yes" } else { "no" }.to_owned())
    }
}

/// The fullest, and how many more there are.
fn filesystems(latest: &HeartbeatRow) -> (Vec<Filesystem>, usize) {
    let all: Vec<FilesystemUsage> =
        serde_json::from_value(latest.filesystems.clone()).unwrap_or_default();
    let used = |f: &FilesystemUsage| {
        (f.total_bytes > 0).then(|| 1.0 - f.available_bytes as f64 / f.total_bytes as f64)
    };
    let mut all: Vec<_> = all.into_iter().map(|f| (used(&f), f)).collect();
    all.sort_by(|(a, _), (b, _)| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0)));
    let more = all.len().saturating_sub(FILESYSTEMS);
    all.truncate(FILESYSTEMS);
    let shown = all.into_iter().map(|(used, f)| Filesystem {
        used: words::known(&used, |used| format!("{:.0} %", used * 100.0)),
        total: words::bytes(signed(f.total_bytes)),
        available: words::bytes(signed(f.available_bytes)),
        mount: line(&f.mount, 120),
    });
    (shown.collect(), more)
}
