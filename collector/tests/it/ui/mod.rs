//! Pages as people meet them: in a real browser, by the flows of `testkit/browser/flows/`, over a fleet that was made up;
//! and what their answers say to a browser.

mod answers;
mod host;
mod hostile;
mod hosts;

use http::Method;
use infratrack_collector::roles::{Access, routes};
use infratrack_testkit::browser;
use serde_json::{Value, json};

use crate::changes::documents::change_of;
use crate::harness::Collector;
use crate::operators::logins::{PASSWORD, user};
use crate::sample;
use crate::volumes::volume_of;

/// What is known of vulnerabilities, and one of them.
const ADVISORIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/advisories/tracker.json"
);
const ADVISORY: &str = "CVE-2023-5678";

/// A collector with a fleet, and a user of each role, who is called as the role.
pub(crate) async fn collector() -> Collector {
    let collector = Collector::start_with(|config| {
        // The browsers of a test share an address and a user.
        config.operators.requests_per_second = 1000;
        config.operators.requests_burst = 10_000;
        let feed = json!({"name": "debian", "format": "debian-tracker", "location": ADVISORIES});
        config.advisories.feeds = vec![serde_json::from_value(feed).unwrap()];
    })
    .await;
    collector.job_has_run("advisories").await;
    sample::load(&collector, sample::small()).await.unwrap();
    for role in ["viewer", "operator", "lead", "admin"] {
        user(&collector, role, role).await;
    }
    collector
}

/// Every page that somebody who is logged in may read, those of one host, one change and one volume among them, by a name for
/// its picture.
fn pages(host: &str, change: &(String, Vec<String>), volume: &str) -> Vec<Value> {
    let is_page =
        |path: &str| !path.starts_with("/api/") && !path.starts_with("/live") && path != "/metrics";
    let pages = routes().iter().filter(|route| {
        route.method == Method::GET && route.access != Access::Public && is_page(&route.path)
    });
    let (change, parts) = change;
    let pages = pages.map(|route| {
        let id = match route.path.split('/').nth(1) {
            Some("advisories") => ADVISORY,
            Some("changes") => change,
            // A volume's drill has its id.
            Some("volumes" | "drills") => volume,
            _ => host,
        };
        route.path.replace("{id}", id)
    });
    let pages = pages.filter(|path| !path.contains('{') && !path.ends_with("/report"));
    let mut pages: Vec<_> = pages.collect();
    pages.extend(parts.iter().skip(1).cloned());
    let named = pages.into_iter().map(|path| {
        let (place, part) = path.split_once('?').unwrap_or((&path, ""));
        let part = part.rsplit('&').next().unwrap_or_default();
        let part: String = part.chars().take(12).collect();
        let name = format!("{place}_{part}");
        let name = name
            .replace(host, "host")
            .replace(change, "change")
            .replace(volume, "volume")
            .replace(['/', '='], "_");
        json!({ "path": path, "name": name.trim_end_matches('_') })
    });
    named.collect()
}

/// Plays all flows of a part as the administrator; `more` is what its flows want to know.
pub(crate) async fn play(collector: &Collector, part: &str, more: Value) {
    let mut job = json!({
        "base": format!("http://{}", collector.server.addresses.operators),
        "name": "admin",
        "password": PASSWORD,
        "parts": [part],
    });
    if let (Some(job), Value::Object(more)) = (job.as_object_mut(), more) {
        job.extend(more);
    }
    let played = browser::flows(job).await.unwrap();
    assert!(!played.starts_with("0 "), "{played}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_around_every_page_works_in_a_browser() {
    play(&collector().await, "basics", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_a_fleet_is_in_order() {
    let collector = collector().await;
    let hosts = collector.get("/api/v1/hosts?limit=1&status=degraded").await;
    let id = hosts["items"][0]["id"].as_str().unwrap();
    let change = change_of(&collector, "Packages").await;
    let volume = volume_of(&collector, id, "web").await;
    let job = json!({ "paths": pages(id, &change, &volume), "fleet": "sample" });
    play(&collector, "every", job).await;
}
