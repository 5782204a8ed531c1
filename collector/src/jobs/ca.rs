//! Keeps a collector in step with its CA: fresh certificates for its listeners, and the changes of a rotation.
//!
//! Collectors share the CA by its files, so they look at them; no restart is needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::agents::tls::FleetTls;
use crate::app::{App, policy_version};
use crate::jobs::LIMIT;
use crate::jobs::run::{Job, Task, Work};

/// How often the files are looked at, and the listeners' certificate is made anew.
const LOOK: Duration = Duration::from_secs(2);
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// Both jobs.
pub(super) fn jobs(app: &Arc<App>, fleet: Arc<FleetTls>) -> [Job; 2] {
    let listeners = Arc::clone(&fleet);
    let renew = move |app: Arc<App>| {
        let listeners = Arc::clone(&listeners);
        let renew = async move { Ok(listeners.renew(&app.ca.load(), app.clock.now())?) };
        Box::pin(renew) as Work<'static>
    };
    let signing = signing(app).unwrap_or_default();
    let seen = Arc::new(Mutex::new((app.ca.load().change(), signing)));
    let look = move |app: Arc<App>| {
        let (fleet, seen) = (Arc::clone(&fleet), Arc::clone(&seen));
        Box::pin(async move { look(&app, &fleet, &seen) }) as Work<'static>
    };
    [
        Job {
            name: "server_certificate",
            interval: RENEW,
            limit: LIMIT,
            task: Task::Here(Box::new(renew)),
        },
        Job {
            name: "ca",
            interval: LOOK,
            limit: LIMIT,
            task: Task::Here(Box::new(look)),
        },
    ]
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
