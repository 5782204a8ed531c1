//! The newest plan of a change against the applies since. Of large plans that takes long, and never changes: the last ones
//! are remembered.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::changes::applied::{self, Applied};
use crate::store::change_runs::RunRow;
use crate::store::run_resources::{self, Columns};

/// Resources and operations from which on a comparison is remembered.
const LARGE: usize = 2_000;
/// Comparisons that are remembered.
const REMEMBERED: usize = 16;

/// What was compared last, by the runs that it is of: the plan's, then those of applies.
#[derive(Debug, Default)]
pub struct Compared(Mutex<VecDeque<(Vec<Uuid>, Applied)>>);

impl Compared {
    fn find(&self, runs: &[Uuid]) -> Option<Applied> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(of, _)| of == runs);
        found.map(|(_, applied)| applied.clone())
    }

    fn remember(&self, runs: Vec<Uuid>, applied: Applied) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.truncate(REMEMBERED - 1);
        known.push_front((runs, applied));
    }
}

/// Compares, where there is a plan and something of its workspace was applied since.
pub async fn compare(
    connection: &mut PgConnection,
    compared: &Compared,
    runs: &[RunRow],
) -> sqlx::Result<Option<Applied>> {
    let Some(of) = plan_and_applies(runs) else {
        return Ok(None);
    };
    if let Some(known) = compared.find(&of) {
        return Ok(Some(known));
    }
    let [plan, applies @ ..] = of.as_slice() else {
        return Ok(None);
    };
    let planned = run_resources::find_planned(connection, *plan).await?;
    let mut done = Columns::default();
    for apply in applies {
        let of_run = run_resources::find_operations(connection, *apply).await?;
        done.addresses.extend(of_run.addresses);
        done.actions.extend(of_run.actions);
        done.outcomes.extend(of_run.outcomes);
    }
    let found = applied(&planned, &done);
    if planned.addresses.len() + done.addresses.len() >= LARGE {
        compared.remember(of, found.clone());
    }
    Ok(Some(found))
}

fn applied(planned: &Columns, done: &Columns) -> Applied {
    let planned = planned.addresses.iter().zip(&planned.actions);
    let planned = planned.map(|(address, action)| (address.as_str(), action.as_str()));
    let operations = done.addresses.iter().zip(&done.actions).zip(&done.outcomes);
    let operations = operations.map(|((address, action), outcome)| {
        let outcome = outcome.as_deref().unwrap_or_default();
        (address.as_str(), action.as_str(), outcome)
    });
    applied::compare(planned, operations)
}

/// The newest plan, then the applies of its workspace since.
fn plan_and_applies(runs: &[RunRow]) -> Option<Vec<Uuid>> {
    let is = |run: &RunRow, kind: &str| run.tool == "terraform" && run.kind == kind;
    let plan = runs.iter().rfind(|run| is(run, "plan"))?;
    let workspace = plan.claims.get("workspace");
    let applies = runs.iter().filter(|run| {
        is(run, "apply")
            // A plan may say nothing of when it was made, and is of when it was posted then.
            && (run.ended_at >= plan.started_at || run.received_at >= plan.received_at)
            && run.claims.get("workspace") == workspace
    });
    let mut of = vec![plan.run_id];
    of.extend(applies.map(|run| run.run_id));
    (of.len() > 1).then_some(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_comparisons_are_remembered() {
        let compared = Compared::default();
        let runs: Vec<_> = (0..40)
            .map(|number| vec![Uuid::from_u128(number)])
            .collect();
        for (planned, of) in (0..).zip(&runs) {
            let applied = Applied {
                planned,
                ..Applied::default()
            };
            compared.remember(of.clone(), applied);
        }
        let known = runs.iter().filter_map(|of| compared.find(of));
        let known: Vec<_> = known.map(|applied| applied.planned).collect();
        assert_eq!(known, (24..40).collect::<Vec<_>>());
    }
}
