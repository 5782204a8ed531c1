//! What is installed and what there is to install, as operators see it.

mod advisories;
mod api;
pub(crate) mod pages;

use infratrack_shared::wire::packages::{
    Blocked, BlockedWhy, Manager, PACKAGES, PendingUpdate, UPDATES, UpdateCheck, UpdatesPart,
};

use crate::agents::lane::{of_dpkg, part, send, whole};
use crate::harness::{Collector, Host};

/// An update of a package from version 1.
fn update(name: &str, candidate: &str, severity: Option<&str>) -> PendingUpdate {
    PendingUpdate {
        name: name.to_owned(),
        arch: "amd64".to_owned(),
        installed: "1".to_owned(),
        candidate: candidate.to_owned(),
        security: Some(severity.is_some()),
        severity: severity
            .filter(|severity| *severity != "unrated")
            .map(str::to_owned),
        advisories: severity
            .map(|_| format!("DSA-{name}"))
            .into_iter()
            .collect(),
        ..PendingUpdate::default()
    }
}

fn held(update: PendingUpdate) -> PendingUpdate {
    PendingUpdate {
        blocked: Some(Blocked {
            why: BlockedWhy::Held,
            detail: None,
        }),
        ..update
    }
}

fn asked(unknown: Option<&str>, pending: Vec<PendingUpdate>) -> UpdatesPart {
    UpdatesPart {
        checks: vec![UpdateCheck {
            manager: Manager::Dpkg,
            tool: "apt".to_owned(),
            unknown: unknown.map(str::to_owned),
            metadata_at_s: Some(1_767_139_200),
            warnings: vec!["deb.example stable: no lists".to_owned()],
        }],
        pending: of_dpkg(pending),
    }
}

/// A host that has these packages and updates.
async fn host(collector: &Collector, packages: &[(&str, &str)], updates: &UpdatesPart) -> Host {
    let host = collector.host().await;
    let state = vec![
        part(PACKAGES, 1, "packages", &whole(packages)),
        part(UPDATES, 2, "updates", updates),
    ];
    let (_, late) = send(collector, &host, state).await;
    assert_eq!(late.unwrap().state.len(), 2);
    host
}
