//! Agents that came after their entries: an agent enrolls as a host of its own, and its entry is linked to that.
//!
//! The row made of the entry is merged into the agent's host where the instance ids are the same and nobody has said
//! anything of it; otherwise the ledger shows the two as a pair to merge.

use std::sync::Arc;

use infratrack_shared::ids::HostId;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::api::hosts::retire::unite;
use crate::app::App;
use crate::audit::{self, Actor, Change};
use crate::jobs::run::Done;
use crate::store::expected_hosts::{self, Candidate};
use crate::store::host_instances;
use crate::store::hosts::{edit, merge};

/// Candidates of one run.
const MOST: i64 = 1000;

/// Links what can be told for sure.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let found = expected_hosts::list_candidates(connection, MOST).await?;
    for candidates in found.chunk_by(|a, b| (&a.source, &a.key) == (&b.source, &b.key)) {
        let Some(surest) = only(candidates) else {
            continue;
        };
        let is_meant_once = found.iter().all(|other| {
            other.agent_host_id != surest.agent_host_id
                || other.source != surest.source
                || other.key == surest.key
        });
        if !is_meant_once {
            continue;
        }
        let linked_by = match surest.rank {
            1 => "instance_id",
            2 => "address",
            _ => "name",
        };
        expected_hosts::update_link(connection, surest, linked_by).await?;
        if let (1, Some(from)) = (surest.rank, surest.host_id)
            && !expected_hosts::has_history(connection, from).await?
        {
            take_over(app, connection, from, surest.agent_host_id).await?;
        }
    }
    Ok(Done::Whole)
}

/// The one candidate of the surest way.
fn only(candidates: &[Candidate]) -> Option<&Candidate> {
    let surest = candidates.first()?;
    let mut same = candidates.iter().filter(|other| other.rank == surest.rank);
    (same.clone().count() == 1).then(|| same.next()).flatten()
}

/// Retires the row made of the entry in favour of the agent's host.
async fn take_over(
    app: &App,
    connection: &mut PgConnection,
    from: Uuid,
    to: Uuid,
) -> anyhow::Result<()> {
    let now = app.clock.now();
    let mut both = [from, to];
    both.sort();
    host_instances::lock(connection, &both).await?;
    let rows = edit::lock(connection, &both).await?;
    let find = |id: Uuid| rows.iter().find(|row| row.host_id == id);
    let (Some(source), Some(target)) = (find(from), find(to)) else {
        return Ok(());
    };
    // Too many tags, say: the ledger shows the pair.
    let Ok((retired, united)) = unite(source, target, now) else {
        return Ok(());
    };
    merge::events(connection, HostId(from), HostId(to)).await?;
    merge::update_merged(connection, HostId(from), HostId(to)).await?;
    expected_hosts::update_merged(connection, from, to).await?;
    edit::update(connection, &[retired, united], now).await?;
    let change = Change::new("host.merge", "host", from).after(json!({"merged_into": to}));
    audit::record(connection, &Actor::job("inventory_links"), change, now).await?;
    tracing::info!(%from, %to, "an inventory's host has an agent");
    Ok(())
}
