//! The outcome of an apply: the events of `terraform apply -json`, a line each (Terraform's "Machine-Readable UI").

use std::collections::HashMap;

use super::super::json::Json;
use super::artifact::{Artifact, Writer};
use super::mask;
use super::secrets::{Scrubber, Secrets};
use super::{MAX_CHANGES, MAX_TEXT, Refusal};

/// Messages that are kept.
const MAX_DIAGNOSTICS: usize = 200;

/// What an apply did.
#[derive(Clone, Debug, Default)]
pub struct Apply {
    pub terraform_version: Option<String>,
    /// Of the first event, as it says it, and of the last.
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    pub operations: Vec<Operation>,
    /// As the last `change_summary` counts: added, changed, removed, imported. Null where the apply did not get so far.
    pub counted: Option<Counted>,
    pub error_count: u64,
    pub warning_count: u64,
    /// Errors and warnings in words, without secrets.
    pub diagnostics: Vec<Diagnostic>,
    pub redactions: u64,
    /// Lines that are no events: what a wrapper printed between.
    pub other_lines: u64,
    /// The last line is cut off.
    pub is_cut: bool,
    /// The events to download.
    pub artifact: Artifact,
}

/// What was done to a resource.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Operation {
    pub address: String,
    /// `create`, `update`, `delete`, `read`, … as the event has it.
    pub action: String,
    /// `complete`, `errored`, or `started` where nothing tells its end.
    pub outcome: String,
    pub elapsed_s: Option<u64>,
    /// The id that the resource has then.
    pub id_value: Option<String>,
}

/// How many resources an apply says it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    pub add: u64,
    pub change: u64,
    pub remove: u64,
    pub import: u64,
}

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// `error` or `warning`.
    pub severity: String,
    pub address: Option<String>,
    pub summary: String,
    pub detail: String,
}

/// Reads the events.
pub(super) fn read(text: &[u8]) -> Result<Apply, Refusal> {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let mut secrets = Secrets::default();
    let mut events = Vec::new();
    let mut apply = Apply::default();
    let last = lines.iter().rposition(|line| !line.trim_ascii().is_empty());
    for (index, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match Json::parse(line) {
            Ok(event) if event.get("type").is_some() => {
                of_outputs(&event, &mut secrets)?;
                events.push(event);
            }
            Err(error) if error.is_cut && Some(index) == last => apply.is_cut = true,
            _ => apply.other_lines += 1,
        }
        if events.len() > MAX_CHANGES * 4 {
            return Err(Refusal::TooMany {
                what: "events",
                limit: MAX_CHANGES * 4,
            });
        }
    }
    let mut building = Building {
        scrubber: secrets.scrubber()?,
        places: HashMap::new(),
        apply,
        artifact: Writer::default(),
    };
    for event in &events {
        building.event(event)?;
    }
    building.apply.redactions = building.scrubber.count;
    building.apply.artifact = building.artifact.finish();
    Ok(building.apply)
}

fn of_outputs(event: &Json, secrets: &mut Secrets) -> Result<(), Refusal> {
    for (_, output) in event.get("outputs").map(Json::members).unwrap_or_default() {
        if output.get("sensitive") == Some(&Json::Bool(true)) {
            secrets.add(output.get("value").unwrap_or(&Json::Null))?;
        }
    }
    Ok(())
}

struct Building {
    scrubber: Scrubber,
    places: HashMap<String, usize>,
    apply: Apply,
    artifact: Writer,
}

impl Building {
    fn event(&mut self, event: &Json) -> Result<(), Refusal> {
        let kind = event.text("type").unwrap_or_default();
        if let Some(at) = event.text("@timestamp") {
            self.apply.started_at.get_or_insert_with(|| at.clone());
            self.apply.ended_at = Some(at);
        }
        match kind.as_str() {
            "version" => {
                let name = ["terraform", "tofu"];
                self.apply.terraform_version = name.iter().find_map(|name| event.text(name));
            }
            "apply_start" | "apply_complete" | "apply_errored" => self.operation(&kind, event)?,
            "change_summary" => {
                let changes = event.get("changes");
                let count = |name: &str| {
                    let number =
                        changes.and_then(|changes| changes.get(name)?.scalar()?.parse().ok());
                    number.unwrap_or_default()
                };
                if changes
                    .and_then(|changes| changes.text("operation"))
                    .as_deref()
                    != Some("plan")
                {
                    self.apply.counted = Some(Counted {
                        add: count("add"),
                        change: count("change"),
                        remove: count("remove"),
                        import: count("import"),
                    });
                }
            }
            "diagnostic" => self.diagnostic(event),
            _ => {}
        }
        // Values of outputs are nobody's business here, and progress says nothing afterwards.
        if !["outputs", "apply_progress", "provision_progress"].contains(&kind.as_str()) {
            let event = mask::clean(&without_code(event), &mut self.scrubber);
            self.artifact.push_str(&event.to_text());
            self.artifact.push_str("\n");
        }
        Ok(())
    }

    fn operation(&mut self, kind: &str, event: &Json) -> Result<(), Refusal> {
        let Some(hook) = event.get("hook") else {
            return Ok(());
        };
        let address = hook
            .get("resource")
            .and_then(|resource| resource.text("addr"));
        let address = self.scrubber.text(&address.unwrap_or_default());
        let action = hook.text("action").unwrap_or_default();
        let outcome = match kind {
            "apply_complete" => "complete",
            "apply_errored" => "errored",
            _ => "started",
        };
        let elapsed = hook.get("elapsed_seconds").and_then(Json::scalar);
        let id_value = hook.text("id_value").map(|id| self.scrubber.text(&id));
        let operation = Operation {
            address,
            action,
            outcome: outcome.to_owned(),
            elapsed_s: elapsed.and_then(|seconds| seconds.parse().ok()),
            id_value,
        };
        // A replacement is a deletion and a creation of the same address.
        let key = format!("{} {}", operation.action, operation.address);
        let place = self.places.get(&key);
        if let Some(begun) = place.and_then(|place| self.apply.operations.get_mut(*place)) {
            *begun = operation;
            return Ok(());
        }
        if self.apply.operations.len() >= MAX_CHANGES {
            return Err(Refusal::TooMany {
                what: "operations",
                limit: MAX_CHANGES,
            });
        }
        self.places.insert(key, self.apply.operations.len());
        self.apply.operations.push(operation);
        Ok(())
    }

    fn diagnostic(&mut self, event: &Json) {
        let Some(diagnostic) = event.get("diagnostic") else {
            return;
        };
        let severity = diagnostic.text("severity").unwrap_or_default();
        match severity.as_str() {
            "error" => self.apply.error_count += 1,
            _ => self.apply.warning_count += 1,
        }
        if self.apply.diagnostics.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let mut text = |name: &str| {
            let text = Json::from(diagnostic.text(name).unwrap_or_default().as_str());
            let clean = mask::clean(&text, &mut self.scrubber);
            let text = clean.as_str().unwrap_or_default();
            text.chars().take(MAX_TEXT).collect::<String>()
        };
        let (summary, detail) = (text("summary"), text("detail"));
        let address = diagnostic
            .text("address")
            .map(|address| self.scrubber.text(&address));
        self.apply.diagnostics.push(Diagnostic {
            severity,
            address,
            summary,
            detail,
        });
    }
}

/// A message without the lines of the configuration that it is about: they may have anything.
fn without_code(event: &Json) -> Json {
    let members = event.members().iter();
    let member = |(name, value): &(String, Json)| match (name.as_str(), value) {
        ("diagnostic", Json::Object(members)) => {
            let mut members = members.clone();
            members.retain(|(name, _)| name != "snippet");
            (name.clone(), Json::Object(members))
        }
        _ => (name.clone(), value.clone()),
    };
    Json::Object(members.map(member).collect())
}
