//! Which of the documents that look alike it is.

use super::super::json::{Json, Reader};
use super::{Options, Refusal};

const PLAN: &str = "what `terraform show -json PLANFILE` prints";
const STATE: &str = "what `terraform show -json` prints";

/// A document that is read.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Plan(Head),
    State(Head),
    Apply,
}

/// What stands at the top.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// Major and minor.
    pub format: (u32, u32),
    pub terraform_version: Option<String>,
    pub timestamp: Option<String>,
    pub is_applyable: Option<bool>,
    pub is_complete: Option<bool>,
    pub is_errored: Option<bool>,
    pub has_no_version: bool,
}

/// The names of an object's members that matter here.
#[derive(Default)]
struct Seen {
    names: Vec<String>,
    head: Head,
    format_version: Option<String>,
    is_event: bool,
}

impl Seen {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|seen| seen == name)
    }

    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }
}

/// Looks at the document's top level.
pub(super) fn of(text: &[u8], options: Options) -> Result<Kind, Refusal> {
    let Some(begin) = text.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return Err(Refusal::Empty);
    };
    match text.get(begin) {
        Some(b'{') => {}
        Some(b'[') => {
            return Err(Refusal::Other {
                given: "a JSON list",
                wanted: PLAN,
            });
        }
        Some(b'"') => {
            return Err(Refusal::Other {
                given: "a JSON text, with quotes around",
                wanted: "the document itself",
            });
        }
        Some(b'P')
            if text
                .get(begin..)
                .is_some_and(|rest| rest.starts_with(b"PK")) =>
        {
            return Err(Refusal::Other {
                given: "a plan file of `terraform plan -out`",
                wanted: PLAN,
            });
        }
        // What a wrapper printed before the first event.
        _ if options.is_apply && has_event(text) => return Ok(Kind::Apply),
        _ => return Err(Refusal::Wrapped { offset: begin }),
    }
    let mut reader = Reader::new(text);
    let seen = top(&mut reader)?;
    let end = reader.offset();
    if seen.is_event {
        return events(text, options);
    }
    if let Some(more) = text
        .get(end..)
        .and_then(|rest| rest.iter().position(|byte| !byte.is_ascii_whitespace()))
    {
        return Err(Refusal::Trailing { offset: end + more });
    }
    whole(&seen, options)
}

fn top(reader: &mut Reader<'_>) -> Result<Seen, Refusal> {
    let mut seen = Seen::default();
    reader.object(|name, reader| {
        if seen.has(name) {
            return Err(Refusal::Shape {
                what: "a member",
                place: "the top level".to_owned(),
                found: "there twice",
                expected: "once",
            });
        }
        let text = |value: Json| value.as_str().map(str::to_owned);
        match name {
            "format_version" => {
                seen.format_version = reader.value()?.scalar().map(str::to_owned);
            }
            "terraform_version" => seen.head.terraform_version = text(reader.value()?),
            "timestamp" => seen.head.timestamp = text(reader.value()?),
            "applyable" => seen.head.is_applyable = reader.value()?.as_bool(),
            "complete" => seen.head.is_complete = reader.value()?.as_bool(),
            "errored" => seen.head.is_errored = reader.value()?.as_bool(),
            _ => reader.skip()?,
        }
        seen.names.push(name.to_owned());
        Ok::<_, Refusal>(())
    })?;
    seen.is_event = seen.has("@level") && seen.has("type");
    Ok(seen)
}

/// Whether a line is an event.
fn has_event(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.any(|line| line.starts_with(br#"{"@level":"#))
}

/// A stream of events tells of a plan, or of an apply.
fn events(text: &[u8], options: Options) -> Result<Kind, Refusal> {
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    if options.is_apply
        || has(br#""type":"apply_"#)
        || has(br#""operation":"apply""#)
        || has(br#""operation":"destroy""#)
    {
        return Ok(Kind::Apply);
    }
    Err(Refusal::Other {
        given: "the stream of events of `terraform plan -json`",
        wanted: PLAN,
    })
}

fn whole(seen: &Seen, options: Options) -> Result<Kind, Refusal> {
    if seen.has("plan_format_version") {
        return Err(Refusal::Other {
            given: "HCP Terraform's redacted rendering of a plan",
            wanted: "its JSON output (`json-output` of the plan), or what `terraform show -json PLANFILE` prints",
        });
    }
    if seen.has("serial") || seen.has("lineage") {
        return Err(Refusal::Other {
            given: "a raw state snapshot, as a backend keeps it",
            wanted: STATE,
        });
    }
    let is_plan = seen.has_any(&[
        "resource_changes",
        "planned_values",
        "output_changes",
        "resource_drift",
        "configuration",
        "deferred_changes",
        "prior_state",
        "relevant_attributes",
        "applyable",
        "complete",
        "errored",
    ]);
    if !is_plan && seen.has_any(&["provider_schemas"]) {
        return Err(Refusal::Other {
            given: "what `terraform providers schema -json` prints",
            wanted: PLAN,
        });
    }
    let mut head = seen.head.clone();
    let Some(version) = &seen.format_version else {
        if !is_plan {
            return Err(Refusal::Other {
                given: "JSON, but neither a plan nor a state of Terraform",
                wanted: PLAN,
            });
        }
        if options.is_lenient && seen.has("resource_changes") {
            head.format = (1, 0);
            head.has_no_version = true;
            return Ok(Kind::Plan(head));
        }
        return Err(Refusal::NoVersion);
    };
    head.format = format(version)?;
    if is_plan {
        Ok(Kind::Plan(head))
    } else if seen.has("values") || seen.names.iter().all(|name| is_state_member(name)) {
        Ok(Kind::State(head))
    } else {
        Err(Refusal::Other {
            given: "JSON with a format version, but neither a plan nor a state of Terraform",
            wanted: PLAN,
        })
    }
}

/// A state of nothing is its version alone.
fn is_state_member(name: &str) -> bool {
    ["format_version", "terraform_version", "values", "checks"].contains(&name)
}

fn format(version: &str) -> Result<(u32, u32), Refusal> {
    let unknown = || {
        let shown: String = version
            .chars()
            .filter(char::is_ascii_graphic)
            .take(20)
            .collect();
        Refusal::Version(shown)
    };
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let major = numbers.next().and_then(Result::ok).ok_or_else(unknown)?;
    let minor = match numbers.next() {
        None => 0,
        Some(minor) => minor.map_err(|_| unknown())?,
    };
    if major > 1 {
        return Err(unknown());
    }
    Ok((major, minor))
}
