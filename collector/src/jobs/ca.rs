//! Keeps a collector in step with its CA: fresh certificates for its listeners, and the changes of a rotation.
//!
//! Collectors share the CA by its files, so they look at them; no restart is needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::agents::tls::FleetTls;
use crate::app::{App, policy_version};
use crate::jobs::every;

/// How often the files are looked at, and the listeners' certificate is made anew.
const LOOK: Duration = Duration::from_secs(2);
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// Starts both jobs.
pub(super) fn start(app: &Arc<App>, fleet: Arc<FleetTls>, jobs: &mut JoinSet<()>) {
    let listeners = Arc::clone(&fleet);
    let renew = move |app: Arc<App>| {
        let listeners = Arc::clone(&listeners);
        async move { Ok(listeners.renew(&app.ca.load(), app.clock.now())?) }
    };
    jobs.spawn(every("server_certificate", RENEW, Arc::clone(app), renew));
    let signing = signing(app).unwrap_or_default();
    let seen = Arc::new(Mutex::new((app.ca.load().change(), signing)));
    let look = move |app: Arc<App>| {
        let (fleet, seen) = (Arc::clone(&fleet), Arc::clone(&seen));
        async move { look(&app, &fleet, &seen) }
    };
    jobs.spawn(every("ca", LOOK, Arc::clone(app), look));
}

/// Takes over what has changed: the files, or who signs.
fn look(app: &App, fleet: &FleetTls, seen: &Mutex<(u32, [u8; 32])>) -> anyhow::Result<()> {
    app.ca.reload()?;
    let ca = app.ca.load();
    let is = (ca.change(), signing(app)?);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if *seen == is {
        return Ok(());
    }
    fleet.renew(&ca, app.clock.now())?;
    app.policy.send_modify(|policy| {
        policy.version = policy_version(&ca, policy.version & u64::from(u32::MAX));
        policy.trust_bundle = ca.trust_bundle();
    });
    let accepted = ca.accepted().count();
    tracing::info!(change = is.0, accepted, "the CA has changed");
    *seen = is;
    Ok(())
}

/// The pin of the generation that signs.
fn signing(app: &App) -> anyhow::Result<[u8; 32]> {
    Ok(app.ca.load().root_pin(app.clock.now())?)
}
