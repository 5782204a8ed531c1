//! Why apt would not install what it wants: asked again with one obstacle less, it tells which one it was.

use std::collections::BTreeMap;

use infratrack_shared::wire::packages::{BlockedWhy, PendingUpdate};

use super::simulation::{Name, Simulation};
use super::{Found, Installed, blocked, simulate};
use crate::updates::Reason;
use crate::updates::tool::Check;

const ALL_PHASES: &str = "--option=APT::Get::Always-Include-Phased-Updates=true";
/// Of packages that are told by name.
const NAMED: usize = 5;

/// Marks every update that an upgrade leaves behind, and those for which something else would have to go.
pub(super) async fn explain(
    check: &Check<'_>,
    updates: &mut BTreeMap<Name, Found>,
    simulation: &Simulation,
    installed: &Installed,
) -> Result<(), Reason> {
    let is_open = |found: &Found| found.update.blocked.is_none();
    let is_behind = |name: &Name| !simulation.upgrades.contains_key(name);
    let is_phased = |(name, found): (&Name, &Found)| {
        is_open(found) && is_behind(name) && found.phased.is_some()
    };
    // Without this obstacle.
    let all_phases = if updates.iter().any(is_phased) {
        simulate(check, &[ALL_PHASES, "dist-upgrade"]).await?
    } else {
        Simulation::default()
    };
    let is_open = |found: &Found| found.update.blocked.is_none();
    let without_removals = if simulation.removals.is_empty() {
        None
    } else {
        Some(simulate(check, &["--with-new-pkgs", "upgrade"]).await?)
    };
    for (name, found) in updates.iter_mut().filter(|(_, found)| is_open(found)) {
        let PendingUpdate { blocked: why, .. } = &mut found.update;
        if !is_behind(name) {
            let stays = |other: &Simulation| !other.upgrades.contains_key(name);
            if without_removals.as_ref().is_some_and(stays) {
                *why = Some(blocked(BlockedWhy::Dependencies, Some(removes(simulation))));
            }
        } else if installed.0.get(name).is_some_and(|package| package.held) {
            *why = Some(blocked(BlockedWhy::Held, None));
        } else if let Some(share) = found.phased
            && all_phases.upgrades.contains_key(name)
        {
            *why = Some(blocked(BlockedWhy::Phased, Some(format!("{share} %"))));
        } else {
            *why = Some(blocked(
                BlockedWhy::Dependencies,
                Some("kept back".to_owned()),
            ));
        }
    }
    Ok(())
}

fn removes(simulation: &Simulation) -> String {
    let removals = &simulation.removals;
    let named: Vec<_> = removals.iter().take(NAMED).map(String::as_str).collect();
    let more = match removals.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("would remove {}{more}", named.join(", "))
}
