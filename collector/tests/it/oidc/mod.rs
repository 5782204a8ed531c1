//! Logging in by a provider of OpenID Connect: a real one, and one that lies.

mod browser;
mod chromium;
mod hostile;
mod people;
mod real;
pub(crate) mod rig;

use infratrack_collector::config::Config;
use infratrack_collector::secret::Source;

use crate::harness::{Collector, eventually};

/// Where browsers reach the collector. There is no such name: the tests' browser knows the way.
pub(crate) const URL: &str = "https://infratrack.example";

/// A collector whose people log in by the provider at `issuer`, before it was reached.
pub(crate) async fn collector(
    issuer: &str,
    secret: &str,
    change: impl FnOnce(&mut Config),
) -> Collector {
    collector_at(URL, issuer, secret, change).await
}

/// Likewise where browsers reach it at another address.
async fn collector_at(
    url: &str,
    issuer: &str,
    secret: &str,
    change: impl FnOnce(&mut Config),
) -> Collector {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oidc-secret");
    std::fs::write(&path, secret).unwrap();
    let roles = [("staff", "read"), ("sre", "admin")];
    Collector::start_with(|config| {
        config.operators.url = url.into();
        config.oidc.issuer = issuer.into();
        config.oidc.client_id = "infratrack".into();
        config.oidc.client_secret_file = Some(Source::File(path));
        config.oidc.roles = roles
            .map(|(group, role)| (group.to_owned(), role.to_owned()))
            .into();
        change(config);
    })
    .await
}

/// Waits until the provider is known.
pub(crate) async fn ready(collector: &Collector) {
    eventually("the provider is known", async || {
        let provider = collector.server.app.oidc.as_ref().unwrap();
        provider.is_available().then_some(())
    })
    .await;
}

pub(crate) async fn sessions(collector: &Collector) -> i64 {
    sqlx::query_scalar("select count(*) from sessions")
        .fetch_one(&collector.pool)
        .await
        .unwrap()
}
