//! A plan, as `terraform show -json PLANFILE` prints it. It is read twice: first for what is secret anywhere in it, then
//! for what it changes. One resource at a time is held.

use std::fmt::Write as _;

use super::super::json::{Json, Reader};
use super::artifact::{Artifact, Writer};
use super::invocations::{self, Invocation};
use super::kind::Head;
use super::links::{Side, Table, Values, has_shape};
use super::mask::{self, Kept, Secrecy, Sides};
use super::secrets::Scrubber;
use super::{
    Action, Attribute, MAX_CHANGES, Marks, Part, Refusal, Resource, Summary, marked, names, told,
};

/// Where an uploader puts what tells a host, of plans of which no value is kept.
const MARKS: &str = "infratrack_marks";

/// A plan without secrets.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Major and minor.
    pub format: (u32, u32),
    pub terraform_version: Option<String>,
    /// When it was made, as the document says it.
    pub timestamp: Option<String>,
    /// Null where the document does not say.
    pub is_applyable: Option<bool>,
    pub is_complete: Option<bool>,
    pub is_errored: Option<bool>,
    pub summary: Summary,
    pub resources: Vec<Resource>,
    pub outputs: Vec<Output>,
    pub checks: Vec<Check>,
    pub invocations: Vec<Invocation>,
    /// Places that were masked.
    pub redactions: u64,
    pub warnings: Vec<String>,
    /// The plan to download: what changes, drifts and is checked, without secrets.
    pub artifact: Artifact,
}

/// An output that changes.
#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub action: Action,
    pub is_sensitive: bool,
    pub attributes: Vec<Attribute>,
}

/// A check (`check` block, pre- or postcondition) and what came of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    pub address: String,
    /// `pass`, `fail`, `error`, `unknown`.
    pub status: String,
    pub messages: Vec<String>,
}

/// Reads a plan.
pub(super) fn read(text: &[u8], head: Head, table: &Table) -> Result<Plan, Refusal> {
    let secrets = marked::of_plan(text)?;
    let mut scrubber = secrets.scrubber()?;
    scrubber.is_blind = head.format.0 == 0;
    let mut building = Building::new(scrubber, table, &head);
    let mut reader = Reader::new(text);
    reader.object(|name, reader| match name {
        "resource_changes" => building.list(name, reader, Part::Change),
        "resource_drift" => building.list(name, reader, Part::Drift),
        "deferred_changes" => building.list(name, reader, Part::Deferred),
        "output_changes" => building.outputs(reader),
        "checks" => building.checks(reader),
        "action_invocations" => building.invocations(reader),
        "relevant_attributes" => {
            let value = mask::clean(&reader.value()?, &mut building.scrubber);
            building.member(name, &value.to_text());
            Ok(())
        }
        _ => Ok(reader.skip()?),
    })?;
    Ok(building.end(head))
}

struct Building<'a> {
    table: &'a Table,
    scrubber: Scrubber,
    summary: Summary,
    resources: Vec<Resource>,
    outputs: Vec<Output>,
    checks: Vec<Check>,
    invocations: Vec<Invocation>,
    /// As far as it was read.
    artifact: Writer,
}

impl<'a> Building<'a> {
    fn new(mut scrubber: Scrubber, table: &'a Table, head: &Head) -> Self {
        let mut artifact = Writer::default();
        artifact.push_str(&begin(head, &mut scrubber));
        Self {
            table,
            scrubber,
            summary: Summary::default(),
            resources: Vec::new(),
            outputs: Vec::new(),
            checks: Vec::new(),
            invocations: Vec::new(),
            artifact,
        }
    }

    fn member(&mut self, name: &str, value: &str) {
        self.artifact.push_str(",\n\"");
        self.artifact.push_str(name);
        self.artifact.push_str("\":");
        self.artifact.push_str(value);
    }

    fn list(&mut self, name: &str, reader: &mut Reader<'_>, part: Part) -> Result<(), Refusal> {
        self.member(name, "[");
        let mut is_first = true;
        reader.array(|reader| {
            if self.resources.len() >= MAX_CHANGES {
                return Err(Refusal::TooMany {
                    what: "resource changes",
                    limit: MAX_CHANGES,
                });
            }
            let place = format!("{name}, before byte {}", reader.offset());
            let value = reader.value()?;
            let inner = value.get("resource_change");
            let (mut resource, mut kept) = self.resource(inner.unwrap_or(&value), part, &place)?;
            if inner.is_some() {
                let reason = value.text("reason");
                resource.deferred_reason = reason.map(|reason| self.scrubber.text(&reason));
                kept = deferred(resource.deferred_reason.as_deref(), kept);
            }
            self.artifact.push_str(if is_first { "\n" } else { ",\n" });
            is_first = false;
            self.artifact.push_str(&kept.to_text());
            self.summary.count(&resource);
            self.resources.push(resource);
            Ok(())
        })?;
        self.artifact.push_str("]");
        Ok(())
    }

    fn resource(
        &mut self,
        value: &Json,
        part: Part,
        place: &str,
    ) -> Result<(Resource, Json), Refusal> {
        let shape = |what| Refusal::Shape {
            what,
            place: place.to_owned(),
            found: "missing or of another type",
            expected: "as the JSON output format has it",
        };
        let change = value
            .get("change")
            .ok_or_else(|| shape("`change` of a resource"))?;
        let address = value
            .text("address")
            .ok_or_else(|| shape("`address` of a resource"))?;
        let actions = actions_of(change).ok_or_else(|| shape("`change.actions` of a resource"))?;
        let kind = value.text("type").unwrap_or_default();
        let sides = Sides {
            before: change.get("before"),
            after: change.get("after"),
            unknown: change.get("after_unknown"),
            before_mask: change.get("before_sensitive"),
            after_mask: change.get("after_sensitive"),
        };
        let secrecy = if self.scrubber.is_blind {
            Secrecy::Unmarked
        } else if names::is_secret_type(&kind) {
            Secrecy::Type
        } else {
            Secrecy::Plain
        };
        let action = Action::of(&actions);
        let is_imported = change
            .get("importing")
            .is_some_and(|importing| !importing.is_null());
        // What stays as it is links nothing, unless it comes under Terraform's care.
        let is_touched = is_imported || !matches!(action, Action::NoOp | Action::Read);
        let marks = if is_touched {
            self.marks(&kind, value, sides)
        } else {
            Marks::default()
        };
        let kept = mask::change(sides, secrecy, &mut self.scrubber);
        let mut text = |name: &str| value.text(name).map(|text| self.scrubber.text(&text));
        let resource = Resource {
            part,
            deposed: text("deposed"),
            module_address: text("module_address"),
            mode: text("mode").unwrap_or_else(|| "managed".to_owned()),
            name: text("name").unwrap_or_default(),
            provider: text("provider_name").unwrap_or_default(),
            action_reason: text("action_reason"),
            deferred_reason: None,
            previous_address: text("previous_address"),
            kind: text("type").unwrap_or_default(),
            address: self.scrubber.text(&address),
            index: value
                .get("index")
                .map(|index| mask::clean(index, &mut self.scrubber)),
            action,
            is_imported,
            attributes: told(&kept.attributes),
            is_cut: kept.is_cut,
            marks,
            actions,
        };
        let document = self.document(value, change, &kept);
        Ok((resource, document))
    }

    /// As the artifact has it: what names the resource, and its change without secrets, configuration and code.
    fn document(&mut self, value: &Json, change: &Json, kept: &Kept) -> Json {
        let mut members = Vec::new();
        for (name, member) in value.members() {
            if name != "change" && name != MARKS {
                members.push((name.clone(), mask::clean(member, &mut self.scrubber)));
            }
        }
        let mut inner = Vec::new();
        for (name, member) in change.members() {
            let kept = match name.as_str() {
                "before" => kept.before.clone(),
                "after" => kept.after.clone(),
                // HCL, which may have anything.
                "generated_config" => None,
                _ => Some(mask::clean_names(member, &mut self.scrubber)),
            };
            if let Some(kept) = kept {
                inner.push((name.clone(), kept));
            }
        }
        members.push(("change".to_owned(), Json::Object(inner)));
        Json::Object(members)
    }

    /// What may tell a host, unless a secret is in it. Where nothing says what is one, only of types that are known, what has the
    /// shape of an id or an address.
    fn marks(&self, kind: &str, resource: &Json, sides: Sides<'_>) -> Marks {
        let is_blind = self.scrubber.is_blind;
        if is_blind && !self.table.has(kind) {
            return Marks::default();
        }
        // Who masked the values says beside them what told a host.
        let told = resource.get(MARKS).filter(|_| is_blind);
        let side = |name, value: Option<_>, mask| match told {
            Some(told) => told.get(name).map(Side::plain),
            None => value.map(|value| Side { value, mask }),
        };
        let was = side("before", sides.before, sides.before_mask);
        let is = side("after", sides.after, sides.after_mask);
        let find = |side: Option<_>, find: &dyn Fn(Side<'_>) -> Values| {
            let mut marks = side.map(find).unwrap_or_default();
            marks.retain(|mark, values| {
                let may_be = |text: &String| {
                    !self.scrubber.finds(text) && (!is_blind || has_shape(*mark, text))
                };
                values.retain(may_be);
                !values.is_empty()
            });
            marks
        };
        let of_host = |side: Side<'_>| self.table.marks(kind, side);
        let of_others = |side: Side<'_>| self.table.affected(kind, side);
        Marks {
            before: find(was, &of_host),
            after: find(is, &of_host),
            affected: find(is.filter(|is| !is.value.is_null()).or(was), &of_others),
        }
    }

    fn outputs(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let mut document = Vec::new();
        reader.object(|name, reader| {
            let change = reader.value()?;
            let actions = actions_of(&change).unwrap_or_default();
            let secrecy = if self.scrubber.is_blind || names::is_secret_name(name) {
                Secrecy::Named
            } else {
                Secrecy::Plain
            };
            let sides = Sides {
                before: change.get("before"),
                after: change.get("after"),
                unknown: change.get("after_unknown"),
                before_mask: change.get("before_sensitive"),
                after_mask: change.get("after_sensitive"),
            };
            let kept = mask::change(sides, secrecy, &mut self.scrubber);
            let is_sensitive = ["before_sensitive", "after_sensitive"]
                .iter()
                .any(|name| change.get(name) == Some(&Json::Bool(true)));
            let action = Action::of(&actions);
            self.summary.outputs += u64::from(action != Action::NoOp);
            let name = self.scrubber.text(name);
            let wrapped = Json::Object(vec![("change".to_owned(), change.clone())]);
            let inner = self.document(&wrapped, &change, &kept);
            document.push((
                name.clone(),
                inner.get("change").cloned().unwrap_or_default(),
            ));
            self.outputs.push(Output {
                name,
                action,
                is_sensitive,
                attributes: kept.attributes,
            });
            Ok::<_, Refusal>(())
        })?;
        self.member("output_changes", &Json::Object(document).to_text());
        Ok(())
    }

    fn checks(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let mut document = Vec::new();
        reader.array(|reader| {
            let check = mask::clean(&reader.value()?, &mut self.scrubber);
            let status = check.text("status").unwrap_or_default();
            let counts = &mut self.summary.checks;
            match status.as_str() {
                "pass" => counts.pass += 1,
                "fail" => counts.fail += 1,
                "error" => counts.error += 1,
                _ => counts.unknown += 1,
            }
            let address = check.get("address");
            let address = address
                .and_then(|address| address.text("to_display"))
                .unwrap_or_default();
            let instances = check.get("instances").map(Json::items).unwrap_or_default();
            let problems = instances.iter().flat_map(|instance| {
                instance
                    .get("problems")
                    .map(Json::items)
                    .unwrap_or_default()
            });
            let messages = problems
                .filter_map(|problem| problem.text("message"))
                .collect();
            self.checks.push(Check {
                address,
                status,
                messages,
            });
            document.push(check);
            Ok::<_, Refusal>(())
        })?;
        self.member("checks", &Json::Array(document).to_text());
        Ok(())
    }

    fn invocations(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let mut document = Vec::new();
        reader.array(|reader| {
            let (invocation, kept) = invocations::read(&reader.value()?, &mut self.scrubber);
            self.summary.actions += 1;
            self.invocations.push(invocation);
            document.push(kept);
            Ok::<_, Refusal>(())
        })?;
        self.member("action_invocations", &Json::Array(document).to_text());
        Ok(())
    }

    fn end(mut self, head: Head) -> Plan {
        let mut warnings = Vec::new();
        if head.has_no_version {
            warnings.push("there is no format_version: it was read as format 1.0".to_owned());
        }
        if head.format.0 == 0 {
            warnings.push(
                "plans before format 1.0 do not mark what is sensitive: their values are not kept"
                    .to_owned(),
            );
        }
        if head.is_errored == Some(true) {
            warnings.push("the plan is of a run that failed".to_owned());
        }
        if self.summary.unrecognised > 0 {
            warnings.push(format!(
                "{} changes have an action that is not known: they are counted nowhere else",
                self.summary.unrecognised
            ));
        }
        self.artifact.push_str("\n}\n");
        Plan {
            format: head.format,
            terraform_version: head.terraform_version,
            timestamp: head.timestamp,
            is_applyable: head.is_applyable,
            is_complete: head.is_complete,
            is_errored: head.is_errored,
            summary: self.summary,
            resources: self.resources,
            outputs: self.outputs,
            checks: self.checks,
            invocations: self.invocations,
            redactions: self.scrubber.count,
            warnings,
            artifact: self.artifact.finish(),
        }
    }
}

/// What stands at the top of the artifact.
fn begin(head: &Head, scrubber: &mut Scrubber) -> String {
    let text = |text: &Option<String>| text.as_deref().map_or(Json::Null, Json::from);
    let (major, minor) = head.format;
    let mut artifact = format!("{{\"format_version\":\"{major}.{minor}\",\"terraform_version\":");
    artifact.push_str(&mask::clean(&text(&head.terraform_version), scrubber).to_text());
    artifact.push_str(",\"timestamp\":");
    artifact.push_str(&mask::clean(&text(&head.timestamp), scrubber).to_text());
    for (name, value) in [
        ("applyable", head.is_applyable),
        ("complete", head.is_complete),
        ("errored", head.is_errored),
    ] {
        if let Some(value) = value {
            let _ = write!(artifact, ",\"{name}\":{value}");
        }
    }
    artifact
}

/// A deferred change as the document has it: why, and what.
fn deferred(reason: Option<&str>, change: Json) -> Json {
    let mut members = Vec::new();
    members.extend(reason.map(|reason| ("reason".to_owned(), Json::from(reason))));
    members.push(("resource_change".to_owned(), change));
    Json::Object(members)
}

fn actions_of(change: &Json) -> Option<Vec<String>> {
    let Some(Json::Array(actions)) = change.get("actions") else {
        return None;
    };
    let words = actions
        .iter()
        .map(|action| action.as_str().map(str::to_owned));
    words.collect()
}
