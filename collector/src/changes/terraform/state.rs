//! A state, as `terraform show -json` prints it: which resources there are, and what tells the hosts that they are.

use std::collections::BTreeMap;

use super::super::json::{Json, Reader};
use super::kind::Head;
use super::links::{Mark, Table};
use super::marked;
use super::mask::{self, Secrecy, Sides};
use super::names;
use super::secrets::{Scrubber, Secrets};
use super::{MAX_CHANGES, Refusal};

/// A state without secrets.
#[derive(Clone, Debug)]
pub struct State {
    pub format: (u32, u32),
    pub terraform_version: Option<String>,
    pub resources: Vec<Existing>,
    pub redactions: u64,
    /// The state to download.
    pub artifact: String,
}

/// A resource that there is.
#[derive(Clone, Debug)]
pub struct Existing {
    pub address: String,
    pub deposed: Option<String>,
    /// `managed` or `data`.
    pub mode: String,
    pub kind: String,
    pub provider: String,
    pub marks: BTreeMap<Mark, Vec<String>>,
}

/// Reads a state.
pub(super) fn read(text: &[u8], head: Head, table: &Table) -> Result<State, Refusal> {
    let mut secrets = Secrets::default();
    Reader::new(text).object(|name, reader| match name {
        "values" => marked::of_values(reader, &mut secrets),
        _ => Ok(reader.skip()?),
    })?;
    let mut scrubber = secrets.scrubber()?;
    // Nothing in it says what is sensitive.
    scrubber.is_blind = head.format.0 == 0;
    let mut building = Building {
        table,
        scrubber,
        resources: Vec::new(),
        artifact: String::new(),
    };
    Reader::new(text).object(|name, reader| match name {
        "values" => reader.object(|name, reader| match name {
            "root_module" => building.module(reader),
            _ => Ok(reader.skip()?),
        }),
        _ => Ok(reader.skip()?),
    })?;
    let (major, minor) = head.format;
    let artifact = format!(
        "{{\"format_version\":\"{major}.{minor}\",\"values\":{{\"root_module\":{{\"resources\":[{}\n]}}}}}}\n",
        building.artifact
    );
    Ok(State {
        format: head.format,
        terraform_version: head.terraform_version,
        resources: building.resources,
        redactions: building.scrubber.count,
        artifact,
    })
}

struct Building<'a> {
    table: &'a Table,
    scrubber: Scrubber,
    resources: Vec<Existing>,
    artifact: String,
}

impl Building<'_> {
    fn module(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        reader.object(|name, reader| match name {
            "resources" => reader.array(|reader| {
                let offset = reader.offset();
                let value = reader.value()?;
                self.resource(&value, offset)
            }),
            "child_modules" => reader.array(|reader| self.module(reader)),
            _ => Ok(reader.skip()?),
        })
    }

    fn resource(&mut self, value: &Json, offset: usize) -> Result<(), Refusal> {
        if self.resources.len() >= MAX_CHANGES {
            return Err(Refusal::TooMany {
                what: "resources",
                limit: MAX_CHANGES,
            });
        }
        let address = value.text("address").ok_or_else(|| Refusal::Shape {
            what: "`address` of a resource",
            place: format!("byte {offset}"),
            found: "missing",
            expected: "a text",
        })?;
        let kind = value.text("type").unwrap_or_default();
        let values = value.get("values");
        let mut marks = values
            .map(|values| self.table.marks(&kind, values))
            .unwrap_or_default();
        for values in marks.values_mut() {
            values.retain(|value| !self.scrubber.finds(value));
        }
        let sides = Sides {
            after: values,
            after_mask: value.get("sensitive_values"),
            ..Sides::default()
        };
        if self.scrubber.is_blind {
            marks.clear();
        }
        let secrecy = if self.scrubber.is_blind {
            Secrecy::Unmarked
        } else if names::is_secret_type(&kind) {
            Secrecy::Type
        } else {
            Secrecy::Plain
        };
        let kept = mask::change(sides, secrecy, &mut self.scrubber);
        let mut members = Vec::new();
        for (name, member) in value.members() {
            let member = if name == "values" {
                kept.after.clone().unwrap_or_default()
            } else {
                mask::clean_names(member, &mut self.scrubber)
            };
            members.push((name.clone(), member));
        }
        self.artifact.push_str(if self.resources.is_empty() {
            "\n"
        } else {
            ",\n"
        });
        Json::Object(members).write(&mut self.artifact);
        let mut text = |name: &str| value.text(name).map(|text| self.scrubber.text(&text));
        self.resources.push(Existing {
            deposed: text("deposed_key"),
            mode: text("mode").unwrap_or_else(|| "managed".to_owned()),
            kind: text("type").unwrap_or_default(),
            provider: text("provider_name").unwrap_or_default(),
            address: self.scrubber.text(&address),
            marks,
        });
        Ok(())
    }
}
