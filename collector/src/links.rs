//! Links of runs to hosts: found when a run comes, and again as states tell more of resources and agents of hosts.

use std::sync::Arc;

use serde_json::json;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::app::App;
use crate::changes::claims::Claims;
use crate::changes::linking::{self, Found, Wanted};
use crate::changes::terraform::{Apply, Existing, Mark, Table, Values};
use crate::jobs::run::Done;
use crate::store::change_links::{self, NewLink, Settled, StateOf, Waiting};
use crate::store::expected_hosts;

/// Links that are looked for at once.
const AT_ONCE: usize = 1_000;
/// States that claim nothing are taken for the same only so long.
const NAMELESS: Duration = Duration::hours(12);

/// Links what a run is about, and stores what is not found yet. `since`: when the run began.
pub async fn of_run(
    connection: &mut PgConnection,
    run_id: Uuid,
    since: OffsetDateTime,
    wanted: &[Wanted],
) -> sqlx::Result<()> {
    for some in wanted.chunks(AT_ONCE) {
        let marks: Vec<_> = some.iter().map(|wanted| &wanted.marks).collect();
        let known = change_links::list_known(connection, &marks).await?;
        let links = some.iter().map(|wanted| {
            let new_since = wanted.is_new.then_some(since);
            let found = linking::choose(&wanted.marks, &known, new_since);
            let (host_id, method, confidence) = columns(found);
            NewLink {
                run_id,
                ordinal: wanted.ordinal,
                role: wanted.role,
                name: wanted.name.clone(),
                marks: json!(wanted.marks),
                state: state(found),
                host_id,
                method,
                confidence,
                is_weak: is_weak(&wanted.marks, found),
                new_since,
            }
        });
        change_links::upsert(connection, &links.collect::<Vec<_>>()).await?;
    }
    change_links::refresh_hosts(connection, &[run_id]).await?;
    Ok(())
}

/// Links what an apply did: as its plan's links are, with the ids that it tells. Hosts that it destroyed are so in the ledger.
pub async fn of_apply(
    connection: &mut PgConnection,
    (change_id, run_id): (Uuid, Uuid),
    apply: &Apply,
    has_succeeded: bool,
    table: &Table,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let done: Vec<_> = apply
        .operations
        .iter()
        .filter(|operation| operation.outcome == "complete")
        .collect();
    let mut waiting = change_links::list_of_change(connection, (change_id, run_id)).await?;
    waiting.retain_mut(|link| {
        let made = done
            .iter()
            .find(|operation| operation.address == link.name && operation.action != "delete");
        let id = made.and_then(|operation| operation.id_value.clone());
        id.is_some_and(|id| {
            let kind = link.kind.as_deref().unwrap_or_default();
            let marks: Values = table
                .of_id(kind)
                .map(|mark| (mark, vec![id.clone()]))
                .collect();
            tell(link, &marks)
        })
    });
    settle(connection, waiting).await?;
    // Where nothing tells what was done, all of the plan was meant to be.
    let is_told = !apply.operations.is_empty() || !has_succeeded;
    let (addresses, actions): (Vec<_>, Vec<_>) = done
        .iter()
        .map(|operation| (operation.address.clone(), operation.action.clone()))
        .unzip();
    let only = is_told.then_some((addresses.as_slice(), actions.as_slice()));
    change_links::insert_of_plan(connection, (change_id, run_id), only).await?;
    change_links::refresh_hosts(connection, &[run_id]).await?;
    for host in change_links::list_destroyed(connection, run_id).await? {
        expected_hosts::mark_destroyed(connection, host, now).await?;
    }
    Ok(())
}

/// Takes from a state what it tells of resources that wait for their host.
pub async fn of_state(
    connection: &mut PgConnection,
    claims: &Claims,
    existing: &[Existing],
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let state = StateOf {
        repository: claims.repository.as_deref(),
        environment: claims.environment.as_deref(),
        workspace: claims.workspace.as_deref(),
    };
    let is_nameless = claims.repository.is_none() && claims.workspace.is_none();
    let since = if is_nameless {
        now - NAMELESS
    } else {
        OffsetDateTime::UNIX_EPOCH
    };
    let with_marks = existing
        .iter()
        .filter(|resource| resource.mode == "managed" && !resource.marks.is_empty());
    let with_marks: Vec<_> = with_marks.collect();
    for some in with_marks.chunks(AT_ONCE) {
        let addresses: Vec<_> = some
            .iter()
            .map(|resource| resource.address.clone())
            .collect();
        let mut waiting =
            change_links::list_of_state(connection, &state, since, &addresses).await?;
        waiting.retain_mut(|link| {
            let resource = some.iter().find(|resource| resource.address == link.name);
            resource.is_some_and(|resource| tell(link, &linking::normal(resource.marks.clone())))
        });
        settle(connection, waiting).await?;
    }
    Ok(())
}

/// Looks again for hosts of links that wait, where what is known of hosts has moved; gives up those that wait too long.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let waits = app.config.changes.links_wait;
    let before = app.clock.now() - waits;
    change_links::expire(connection, before).await?;
    let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let waiting = change_links::list_untried(connection, limit).await?;
    settle(connection, waiting).await?;
    Ok(Done::Whole)
}

/// Adds to what is known of a link's resource. Not where the two cannot be one.
fn tell(link: &mut Waiting, marks: &Values) -> bool {
    let is_other = [Mark::InstanceId, Mark::Uuid].iter().any(|mark| {
        match (link.marks.0.get(mark), marks.get(mark)) {
            (Some(own), Some(told)) => !own.iter().any(|value| told.contains(value)),
            _ => false,
        }
    });
    if !is_other {
        link.marks.0 = linking::both(&link.marks.0, marks);
    }
    !is_other
}

/// Looks for the hosts of links that wait.
async fn settle(connection: &mut PgConnection, waiting: Vec<Waiting>) -> sqlx::Result<()> {
    for some in waiting.chunks(AT_ONCE) {
        let marks: Vec<_> = some.iter().map(|link| &link.marks.0).collect();
        let known = change_links::list_known(connection, &marks).await?;
        let settled = some.iter().map(|link| {
            let found = linking::choose(&link.marks.0, &known, link.new_since);
            let (host_id, method, confidence) = columns(found);
            let is_weak = is_weak(&link.marks.0, found);
            let mut settled = Settled {
                link_id: link.link_id,
                marks: json!(link.marks.0),
                state: state(found).to_owned(),
                host_id,
                method: method.map(str::to_owned),
                confidence: confidence.map(str::to_owned),
                is_weak,
            };
            if link.host_id.is_some() && (is_weak || host_id.is_none()) {
                // Nothing surer than before.
                settled.state.clone_from(&link.state);
                settled.host_id = link.host_id;
                settled.method.clone_from(&link.method);
                settled.confidence.clone_from(&link.confidence);
                settled.is_weak = has_id(&link.marks.0);
            }
            settled
        });
        let settled: Vec<_> = settled.collect();
        change_links::update_settled(connection, &settled).await?;
        let found = some.iter().zip(&settled);
        let found = found.filter(|(link, settled)| {
            settled.host_id != link.host_id || settled.method != link.method
        });
        let mut runs: Vec<_> = found.map(|(link, _)| link.run_id).collect();
        runs.sort_unstable();
        runs.dedup();
        if !runs.is_empty() {
            change_links::refresh_hosts(connection, &runs).await?;
        }
    }
    Ok(())
}

type Columns = (Option<Uuid>, Option<&'static str>, Option<&'static str>);

fn columns(found: Found) -> Columns {
    match found {
        Found::Nobody | Found::Several => (None, None, None),
        Found::One {
            host_id,
            method,
            confidence,
        } => (Some(host_id), Some(method.name()), Some(confidence.name())),
    }
}

fn state(found: Found) -> &'static str {
    match found {
        Found::Nobody => "pending",
        Found::Several => "ambiguous",
        Found::One { .. } => "linked",
    }
}

/// It has an id, and was found by something else: the agent may not have told the id yet.
fn is_weak(marks: &Values, found: Found) -> bool {
    let Found::One { method, .. } = found else {
        return false;
    };
    method > Mark::MachineId && has_id(marks)
}

fn has_id(marks: &Values) -> bool {
    const IDS: [Mark; 4] = [Mark::InstanceId, Mark::Uuid, Mark::Serial, Mark::MachineId];
    IDS.iter().any(|id| marks.contains_key(id))
}
