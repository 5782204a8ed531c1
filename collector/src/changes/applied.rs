//! What was planned against what was applied, resource by resource, by their addresses.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

/// Resources that are named; all are counted.
pub const NAMED: usize = 100;

/// A plan held against what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PlannedAndApplied)]
pub struct Applied {
    /// Resources that the plan changes; what it only reads, moves, imports or forgets is not counted.
    pub planned: u64,
    pub applied: u64,
    pub failed: u64,
    /// Begun, and nothing tells how it ended.
    pub unfinished: u64,
    pub not_applied: u64,
    /// Resources that were changed and that the plan does not change.
    pub unplanned: u64,
    /// All but those that were applied: the first 100, in the plan's order.
    pub differences: Vec<Difference>,
}

/// A resource that did not become what was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AppliedDifference)]
pub struct Difference {
    pub address: String,
    /// As the plan has it, or the apply where the plan does not.
    pub action: String,
    /// `failed | unfinished | not_applied | unplanned`.
    pub came: Came,
}

/// What came of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppliedOutcome)]
pub enum Came {
    Applied,
    Failed,
    Unfinished,
    NotApplied,
    Unplanned,
}

impl Came {
    /// In words, after a resource.
    pub fn words(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Failed => "failed",
            Self::Unfinished => "unfinished",
            Self::NotApplied => "not applied",
            Self::Unplanned => "not planned",
        }
    }
}

/// A resource of the plan: address and action.
pub type Planned<'a> = (&'a str, &'a str);
/// What an apply did: address, action and outcome.
pub type Operation<'a> = (&'a str, &'a str, &'a str);

/// Compares. Operations are in the order in which they were done: of one that was tried again the last counts.
pub fn compare<'a>(
    planned: impl IntoIterator<Item = Planned<'a>>,
    operations: impl IntoIterator<Item = Operation<'a>>,
) -> Applied {
    // By address and action; whether the plan has it.
    let mut done: HashMap<(&str, &str), (&str, bool)> = HashMap::new();
    let mut order = Vec::new();
    for (address, action, outcome) in operations {
        if !is_change(action) {
            continue;
        }
        let earlier = done.insert((address, action), (outcome, false));
        if earlier.is_none() {
            order.push((address, action));
        }
    }
    let mut compared = Applied::default();
    for (address, action) in planned {
        let steps = steps(action);
        if steps.is_empty() {
            continue;
        }
        let mut outcomes = Vec::with_capacity(steps.len());
        for step in steps {
            let found = done.get_mut(&(address, *step));
            outcomes.push(found.map(|(outcome, is_planned)| {
                *is_planned = true;
                *outcome
            }));
        }
        compared.planned += 1;
        compared.count(address, action, came(&outcomes));
    }
    for (address, action) in order {
        if done
            .get(&(address, action))
            .is_some_and(|(_, is_planned)| !is_planned)
        {
            compared.count(address, action, Came::Unplanned);
        }
    }
    compared
}

impl Applied {
    fn count(&mut self, address: &str, action: &str, came: Came) {
        let count = match came {
            Came::Applied => &mut self.applied,
            Came::Failed => &mut self.failed,
            Came::Unfinished => &mut self.unfinished,
            Came::NotApplied => &mut self.not_applied,
            Came::Unplanned => &mut self.unplanned,
        };
        *count += 1;
        if came != Came::Applied && self.differences.len() < NAMED {
            self.differences.push(Difference {
                address: address.to_owned(),
                action: action.to_owned(),
                came,
            });
        }
    }
}

/// What an apply does for an action of a plan.
fn steps(action: &str) -> &'static [&'static str] {
    match action {
        "create" | "create_forget" => &["create"],
        "update" => &["update"],
        "delete" => &["delete"],
        "delete_create" | "create_delete" => &["delete", "create"],
        _ => &[],
    }
}

fn is_change(operation: &str) -> bool {
    ["create", "update", "delete"].contains(&operation)
}

/// Of what a resource needed; `None`: it was not begun.
fn came(outcomes: &[Option<&str>]) -> Came {
    if outcomes.contains(&Some("errored")) {
        Came::Failed
    } else if outcomes.iter().all(Option::is_none) {
        Came::NotApplied
    } else if outcomes.iter().all(|outcome| *outcome == Some("complete")) {
        Came::Applied
    } else {
        Came::Unfinished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(compared: &Applied) -> Vec<(&str, Came)> {
        let all = compared.differences.iter();
        all.map(|one| (one.address.as_str(), one.came)).collect()
    }

    #[test]
    fn each_resource_of_the_plan_is_counted_once_by_what_came_of_it() {
        let compared = compare(
            [
                ("a.done", "create"),
                ("a.failed", "update"),
                ("a.replaced", "delete_create"),
                ("a.half", "create_delete"),
                ("a.begun", "delete"),
                ("a.left", "create"),
                ("data.read", "read"),
                ("a.same", "no_op"),
                ("a.odd", "unrecognised"),
            ],
            [
                ("a.done", "create", "complete"),
                ("a.failed", "update", "errored"),
                ("a.replaced", "delete", "complete"),
                ("a.replaced", "create", "complete"),
                ("a.half", "create", "complete"),
                ("a.begun", "delete", "started"),
                ("data.read", "read", "complete"),
                ("a.extra", "delete", "complete"),
            ],
        );
        assert_eq!((compared.planned, compared.applied), (6, 2));
        assert_eq!((compared.failed, compared.unfinished), (1, 2));
        assert_eq!((compared.not_applied, compared.unplanned), (1, 1));
        assert_eq!(
            named(&compared),
            [
                ("a.failed", Came::Failed),
                ("a.half", Came::Unfinished),
                ("a.begun", Came::Unfinished),
                ("a.left", Came::NotApplied),
                ("a.extra", Came::Unplanned),
            ]
        );
    }

    #[test]
    fn a_replacement_whose_second_half_failed_has_failed() {
        let planned = [("a.b", "delete_create")];
        let done = [("a.b", "delete", "complete"), ("a.b", "create", "errored")];
        assert_eq!(compare(planned, done).failed, 1);
    }

    #[test]
    fn what_was_tried_again_counts_as_it_ended() {
        let planned = [("a.b", "update")];
        let again = [("a.b", "update", "errored"), ("a.b", "update", "complete")];
        let compared = compare(planned, again);
        assert_eq!((compared.applied, compared.failed), (1, 0));
        assert_eq!(compared.differences, []);
    }

    #[test]
    fn a_deposed_object_goes_with_its_address() {
        let planned = [("a.b", "update"), ("a.b", "delete")];
        let done = [("a.b", "update", "complete"), ("a.b", "delete", "complete")];
        let compared = compare(planned, done);
        assert_eq!(
            (compared.planned, compared.applied, compared.unplanned),
            (2, 2, 0)
        );
    }

    #[test]
    fn of_many_that_differ_all_are_counted_and_some_are_named() {
        let addresses: Vec<_> = (0..500).map(|number| format!("a.b[{number}]")).collect();
        let planned = addresses.iter().map(|address| (address.as_str(), "create"));
        let compared = compare(planned, []);
        assert_eq!((compared.planned, compared.not_applied), (500, 500));
        assert_eq!(compared.differences.len(), NAMED);
    }
}
