//! Actions that a plan invokes, of Terraform 1.14 and later: which, and what sets them off. Nothing of their configuration is
//! kept. The format is the plan's of `terraform show -json`.

use serde::Serialize;

use super::super::json::Json;
use super::mask;
use super::names;
use super::secrets::Scrubber;

/// What is kept of one: all but its configuration.
const KEPT: [&str; 6] = [
    "address",
    "type",
    "name",
    "provider_name",
    "lifecycle_action_trigger",
    "invoke_action_trigger",
];

/// An action that a plan invokes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invocation {
    pub address: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// In full: `registry.terraform.io/hashicorp/aws`.
    pub provider: String,
    /// `after_update`, …; `invoke` where somebody asked for it; empty where the document does not say.
    pub trigger: String,
    /// The resource that sets it off.
    pub resource: Option<String>,
}

/// Of an item of `action_invocations`; with it, what is kept of the item.
pub(super) fn read(value: &Json, scrubber: &mut Scrubber) -> (Invocation, Json) {
    let members = value.members().iter();
    let members = members.filter(|(name, _)| KEPT.contains(&name.as_str()));
    let members = members.map(|(name, member)| (name.clone(), mask::clean(member, scrubber)));
    let kept = Json::Object(members.collect());
    let (trigger, resource) = match (
        kept.get("lifecycle_action_trigger"),
        kept.get("invoke_action_trigger"),
    ) {
        (Some(lifecycle), _) => (
            names::snake(&lifecycle.text("action_trigger_event").unwrap_or_default()),
            lifecycle.text("triggering_resource_address"),
        ),
        (None, Some(invoke)) => ("invoke".to_owned(), invoke.text("calling_resource_address")),
        (None, None) => (String::new(), None),
    };
    let text = |name| kept.text(name).unwrap_or_default();
    let invocation = Invocation {
        address: text("address"),
        kind: text("type"),
        provider: text("provider_name"),
        trigger,
        resource,
    };
    (invocation, kept)
}
