//! A state, as `terraform show -json` prints it: which resources there are, and what tells the hosts that they are.

use super::super::json::{Json, Reader};
use super::artifact::{Artifact, Writer};
use super::kind::Head;
use super::links::{Side, Table, Values};
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
    pub artifact: Artifact,
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
    pub marks: Values,
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
        artifact: Writer::default(),
    };
    let (major, minor) = head.format;
    building.artifact.push_str(&format!(
        "{{\"format_version\":\"{major}.{minor}\",\"values\":{{\"root_module\":{{\"resources\":["
    ));
    Reader::new(text).object(|name, reader| match name {
        "values" => reader.object(|name, reader| match name {
            "root_module" => building.module(reader),
            _ => Ok(reader.skip()?),
        }),
        _ => Ok(reader.skip()?),
    })?;
    building.artifact.push_str("\n]}}}\n");
    Ok(State {
        format: head.format,
        terraform_version: head.terraform_version,
        resources: building.resources,
        redactions: building.scrubber.count,
        artifact: building.artifact.finish(),
    })
}

struct Building<'a> {
    table: &'a Table,
    scrubber: Scrubber,
    resources: Vec<Existing>,
    artifact: Writer,
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
        let mask = value.get("sensitive_values");
        let mut marks = values
            .map(|value| self.table.marks(&kind, Side { value, mask }))
            .unwrap_or_default();
        marks.retain(|_, values| {
            values.retain(|value| !self.scrubber.finds(value));
            !values.is_empty()
        });
        let sides = Sides {
            after: values,
            after_mask: mask,
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
        self.artifact.push_str(&Json::Object(members).to_text());
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
