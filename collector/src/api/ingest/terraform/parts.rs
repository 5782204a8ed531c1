//! What is stored of each document, and what of it leads to hosts.

use serde_json::{Value, json};

use crate::changes::linking::{self, Wanted};
use crate::changes::terraform::{self, Apply, Document, Existing, Plan, Resource, Summary};
use crate::store::change_runs::NewResource;

/// What is stored of a document.
pub(crate) struct Parts {
    pub kind: &'static str,
    pub outcome: &'static str,
    pub at: Option<String>,
    pub until: Option<String>,
    pub tool_version: Option<String>,
    pub format: Option<String>,
    pub summary: Value,
    pub detail: Value,
    pub warnings: Vec<String>,
    pub redactions: u64,
    pub artifact: terraform::Artifact,
    pub resources: Box<dyn Iterator<Item = NewResource> + Send>,
}

/// What of a document leads to hosts.
pub(crate) enum Links {
    Plan(Vec<Wanted>),
    State(Vec<Existing>),
    Apply(Box<Apply>),
}

/// What is stored of a document, and what leads to hosts.
pub(crate) fn apart(document: Document, exit_code: Option<i32>) -> (Parts, Links) {
    match document {
        Document::Plan(plan) => {
            let wanted = linking::of_plan(&plan.resources);
            (of_plan(*plan, exit_code), Links::Plan(wanted))
        }
        Document::State(mut state) => {
            let existing = std::mem::take(&mut state.resources);
            (of_state(state, existing.len()), Links::State(existing))
        }
        Document::Apply(apply) => (
            of_apply(apply.clone(), exit_code),
            Links::Apply(Box::new(apply)),
        ),
    }
}

fn of_plan(plan: Plan, exit_code: Option<i32>) -> Parts {
    // 2 is "there are changes" of `-detailed-exitcode`.
    let is_failed =
        plan.is_errored == Some(true) || exit_code.is_some_and(|code| ![0, 2].contains(&code));
    let outputs: Vec<_> = plan
        .outputs
        .iter()
        .map(|output| {
            json!({
                "name": output.name, "action": output.action.name(), "is_sensitive": output.is_sensitive,
                "attributes": output.attributes,
            })
        })
        .collect();
    let (major, minor) = plan.format;
    let rows = plan.resources.into_iter().zip(0..);
    Parts {
        kind: "plan",
        outcome: if is_failed { "failed" } else { "planned" },
        at: plan.timestamp,
        until: None,
        tool_version: plan.terraform_version,
        format: Some(format!("{major}.{minor}")),
        summary: json!(plan.summary),
        detail: json!({
            "outputs": outputs, "checks": plan.checks, "invocations": plan.invocations, "applyable": plan.is_applyable,
            "complete": plan.is_complete, "errored": plan.is_errored,
        }),
        warnings: plan.warnings,
        redactions: plan.redactions,
        artifact: plan.artifact,
        resources: Box::new(rows.map(|(resource, ordinal)| row(resource, ordinal))),
    }
}

fn of_state(state: terraform::State, resource_count: usize) -> Parts {
    let (major, minor) = state.format;
    Parts {
        kind: "state",
        outcome: "succeeded",
        at: None,
        until: None,
        tool_version: state.terraform_version,
        format: Some(format!("{major}.{minor}")),
        summary: json!(Summary::default()),
        detail: json!({"resource_count": resource_count}),
        warnings: Vec::new(),
        redactions: state.redactions,
        artifact: state.artifact,
        resources: Box::new(std::iter::empty()),
    }
}

fn of_apply(apply: Apply, exit_code: Option<i32>) -> Parts {
    let outcome = match exit_code {
        Some(0) => "succeeded",
        Some(_) => "failed",
        None if apply.error_count > 0 => "failed",
        None if apply.counted.is_some() => "succeeded",
        None => "interrupted",
    };
    let mut warnings = Vec::new();
    if apply.is_cut {
        warnings.push("the last line is cut off".to_owned());
    }
    if apply.other_lines > 0 {
        warnings.push(format!("{} lines are no events", apply.other_lines));
    }
    let counted = apply.counted.unwrap_or_default();
    let summary = Summary {
        add: counted.add,
        change: counted.change,
        destroy: counted.remove,
        import: counted.import,
        ..Summary::default()
    };
    let rows = apply.operations.into_iter().zip(0..);
    let rows = rows.map(|(operation, ordinal)| NewResource {
        ordinal,
        part: "operation".to_owned(),
        address: operation.address,
        deposed: None,
        module_address: None,
        mode: "managed".to_owned(),
        kind: String::new(),
        name: String::new(),
        provider: String::new(),
        actions: vec![operation.action.clone()],
        action: operation.action,
        action_reason: None,
        deferred_reason: None,
        previous_address: None,
        is_imported: false,
        outcome: Some(operation.outcome),
        attributes: terraform::told(&[]),
        is_cut: false,
    });
    Parts {
        kind: "apply",
        outcome,
        at: apply.started_at,
        until: apply.ended_at,
        tool_version: apply.terraform_version,
        format: None,
        summary: json!(summary),
        detail: json!({"diagnostics": apply.diagnostics, "errors": apply.error_count, "warnings": apply.warning_count}),
        warnings,
        redactions: apply.redactions,
        artifact: apply.artifact,
        resources: Box::new(rows),
    }
}

fn row(resource: Resource, ordinal: i32) -> NewResource {
    NewResource {
        ordinal,
        part: part(&resource).to_owned(),
        attributes: resource.attributes,
        action: resource.action.name().to_owned(),
        address: resource.address,
        deposed: resource.deposed,
        module_address: resource.module_address,
        mode: resource.mode,
        kind: resource.kind,
        name: resource.name,
        provider: resource.provider,
        actions: resource.actions,
        action_reason: resource.action_reason,
        deferred_reason: resource.deferred_reason,
        previous_address: resource.previous_address,
        is_imported: resource.is_imported,
        outcome: None,
        is_cut: resource.is_cut,
    }
}

fn part(resource: &Resource) -> &'static str {
    match resource.part {
        terraform::Part::Change => "change",
        terraform::Part::Drift => "drift",
        terraform::Part::Deferred => "deferred",
    }
}
