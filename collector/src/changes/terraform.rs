//! What Terraform and `OpenTofu` say of a run: a plan or a state as `terraform show -json` prints them, the events of
//! `terraform apply -json`. Formats: the JSON Output Format of Terraform's documentation, plans 0.1 to 1.x.
//!
//! Secrets leave here masked: by the marks of the document, by value wherever they appear again, by type and by name.
//! docs/formats/terraform.md has the rules.

mod apply;
mod artifact;
mod invocations;
mod kind;
mod lines;
mod links;
mod marked;
mod mask;
mod names;
mod plan;
mod secrets;
mod state;
mod text;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

pub use self::apply::{Apply, Operation};
pub use self::artifact::Artifact;
pub use self::invocations::Invocation;
use self::kind::Kind;
pub use self::links::{Mark, Rule, Table, Values};
pub use self::plan::{Output, Plan};
pub use self::state::{Existing, State};
use super::json::{self, BadJson, Json};

/// Changes, drift and deferred ones together, in one plan; resources in one state.
pub const MAX_CHANGES: usize = 200_000;
/// Attributes of a resource that are kept.
pub const MAX_ATTRIBUTES: usize = 2_000;
/// Texts are cut there, in characters.
pub const MAX_TEXT: usize = 8_192;

/// What was posted.
#[derive(Clone, Debug)]
pub enum Document {
    Plan(Box<Plan>),
    State(State),
    Apply(Apply),
}

/// Why a document is not taken. Never has a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the document is empty; expected what `terraform show -json PLANFILE` prints")]
    Empty,
    #[error("the text is not UTF-8 or UTF-16: {what} at byte {offset}")]
    Encoding { offset: usize, what: &'static str },
    #[error("not JSON: {0}")]
    Json(BadJson),
    #[error("the document is cut off: {what} at byte {offset}; was the file written to its end?")]
    Cut { what: String, offset: usize },
    #[error(
        "the document begins with other text at byte {offset}, not with a JSON object; is a command's line or output before it?"
    )]
    Wrapped { offset: usize },
    #[error("there is more text at byte {offset}, after the end of the document")]
    Trailing { offset: usize },
    #[error("this is {given}; send {wanted}")]
    Other {
        given: &'static str,
        wanted: &'static str,
    },
    #[error("format_version {0} is not known: plans of major version 0 and 1 are")]
    Version(String),
    #[error(
        "there is no format_version; with `Infratrack-Lenient: true` such a plan is read as format 1.0"
    )]
    NoVersion,
    #[error("{what} at {place} is {found}, expected {expected}")]
    Shape {
        what: &'static str,
        place: String,
        found: &'static str,
        expected: &'static str,
    },
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
}

impl From<BadJson> for Refusal {
    fn from(bad: BadJson) -> Self {
        if bad.is_cut {
            return Self::Cut {
                what: bad.what,
                offset: bad.offset,
            };
        }
        Self::Json(bad)
    }
}

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    NoOp,
    Create,
    Read,
    Update,
    Delete,
    /// Destroyed, then created.
    DeleteCreate,
    /// Created, then destroyed.
    CreateDelete,
    Forget,
    CreateForget,
    /// A word that is not known here: shown, never counted.
    Unrecognised,
}

impl Action {
    /// Of a change's `actions`.
    pub fn of(actions: &[String]) -> Self {
        let words: Vec<_> = actions.iter().map(String::as_str).collect();
        match words[..] {
            ["no-op"] => Self::NoOp,
            ["create"] => Self::Create,
            ["read"] => Self::Read,
            ["update"] => Self::Update,
            ["delete"] => Self::Delete,
            ["delete", "create"] => Self::DeleteCreate,
            ["create", "delete"] => Self::CreateDelete,
            ["forget"] => Self::Forget,
            ["create", "forget"] => Self::CreateForget,
            _ => Self::Unrecognised,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::NoOp => "no_op",
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::DeleteCreate => "delete_create",
            Self::CreateDelete => "create_delete",
            Self::Forget => "forget",
            Self::CreateForget => "create_forget",
            Self::Unrecognised => "unrecognised",
        }
    }
}

/// Checks by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckCounts {
    pub pass: u64,
    pub fail: u64,
    pub error: u64,
    pub unknown: u64,
}

/// Counts as the command line has them in "Plan: X to add, Y to change, Z to destroy", and what that leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = TerraformSummary)]
pub struct Summary {
    pub add: u64,
    pub change: u64,
    pub destroy: u64,
    /// Counted in `add` and `destroy` too.
    pub replace: u64,
    pub import: u64,
    #[serde(rename = "move")]
    pub moved: u64,
    pub forget: u64,
    pub read: u64,
    pub no_op: u64,
    /// What had changed outside of Terraform; counted nowhere else.
    pub drift: u64,
    /// Outputs that change.
    pub outputs: u64,
    /// Deferred to a later plan; counted nowhere else.
    pub deferred: u64,
    pub unrecognised: u64,
    /// Actions that are invoked; counted nowhere else.
    #[serde(default)]
    pub actions: u64,
    pub checks: CheckCounts,
}

impl Summary {
    fn count(&mut self, resource: &Resource) {
        match resource.part {
            Part::Drift => {
                self.drift += u64::from(resource.action != Action::NoOp);
                return;
            }
            Part::Deferred => {
                self.deferred += 1;
                return;
            }
            Part::Change => {}
        }
        self.import += u64::from(resource.is_imported);
        self.moved += u64::from(resource.previous_address.is_some());
        match resource.action {
            Action::NoOp => self.no_op += 1,
            Action::Create => self.add += 1,
            Action::Read => self.read += 1,
            Action::Update => self.change += 1,
            Action::Delete => self.destroy += 1,
            Action::DeleteCreate | Action::CreateDelete => {
                self.add += 1;
                self.destroy += 1;
                self.replace += 1;
            }
            Action::Forget => self.forget += 1,
            Action::CreateForget => {
                self.add += 1;
                self.forget += 1;
            }
            Action::Unrecognised => self.unrecognised += 1,
        }
    }
}

/// Where in a plan a resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `resource_changes`: what will be done.
    Change,
    /// `resource_drift`: what had changed outside of Terraform.
    Drift,
    /// `deferred_changes`: what a later plan will tell.
    Deferred,
}

/// A resource of a plan. Address and deposed key tell it from others of its part.
#[derive(Clone, Debug)]
pub struct Resource {
    pub part: Part,
    pub address: String,
    pub deposed: Option<String>,
    pub module_address: Option<String>,
    /// `managed` or `data`.
    pub mode: String,
    pub kind: String,
    pub name: String,
    /// A number or a text, as JSON has it.
    pub index: Option<Json>,
    /// In full: `registry.terraform.io/hashicorp/aws`.
    pub provider: String,
    pub action: Action,
    /// As the document has them.
    pub actions: Vec<String>,
    pub action_reason: Option<String>,
    /// Why it waits for a later plan: `instance_count_unknown`, `provider_config_unknown`, …
    pub deferred_reason: Option<String>,
    pub previous_address: Option<String>,
    pub is_imported: bool,
    /// What is different, without what is secret, as JSON: a plan may have hundreds of thousands of [`Attribute`]s.
    pub attributes: Box<RawValue>,
    /// There were more.
    pub is_cut: bool,
    /// What may tell the host that it is, by what it is called in the table of links.
    pub marks: Marks,
}

/// Values that may name a host: that the resource was, that it is then, that it is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub before: Values,
    pub after: Values,
    pub affected: Values,
}

/// An attribute that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attribute {
    /// Names and indices from the resource on.
    pub path: Vec<String>,
    pub what: Difference,
    /// Told as texts of JSON, so that numbers stay as they are.
    #[serde(serialize_with = "as_text")]
    pub before: Option<Json>,
    #[serde(serialize_with = "as_text")]
    pub after: Option<Json>,
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn as_text<S: Serializer>(value: &Option<Json>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Json::to_text).serialize(serializer)
}

/// Attributes as JSON.
pub fn told(attributes: &[Attribute]) -> Box<RawValue> {
    to_raw_value(attributes).expect("names and texts are JSON")
}

/// How an attribute differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    Added,
    Removed,
    Changed,
    /// Known after apply.
    Unknown,
    /// Secret; changes.
    SensitiveChanged,
    /// Secret; stays, or nothing tells.
    Sensitive,
}

/// How a document is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A plan without a format version is one of 1.0.
    pub is_lenient: bool,
    /// It is said to be the outcome of an apply.
    pub is_apply: bool,
}

/// Reads what was posted.
pub fn read(bytes: &[u8], options: Options, table: &Table) -> Result<Document, Refusal> {
    let text = text::utf8(bytes)?;
    json::check_depth(&text)?;
    match kind::of(&text, options)? {
        Kind::Plan(head) => {
            plan::read(&text, head, table).map(|plan| Document::Plan(Box::new(plan)))
        }
        Kind::State(head) => state::read(&text, head, table).map(Document::State),
        Kind::Apply => apply::read(&text).map(Document::Apply),
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
