//! OVAL definitions: which tests say that a host is vulnerable, and of which package and version they are.
//!
//! Only what compares versions of packages is understood. The document has its parts in any order and refers to them by
//! id, so they are kept until its end. No DTD, and no entities but XML's own.

use std::collections::HashMap;
use std::io::BufRead;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};

use super::{
    Advisory, Applies, DEPTH, Distribution, Meter, Refused, Sink, State, Statement, cut_some,
    distributions, is_cve,
};

/// Definitions, tests, objects, states and variables, and what they refer to: a part takes some 100 bytes.
const MOST_PARTS: usize = 6_000_000;
/// Between two elements.
const TEXT_BYTES: usize = 4 * 1024 * 1024;

#[derive(Default)]
struct Definition {
    id: String,
    class: String,
    title: String,
    severity: Option<String>,
    platforms: Vec<String>,
    /// An advisory's own id, and vulnerabilities.
    references: Vec<(String, String)>,
    cves: Vec<String>,
    /// Tests, and what is said of them.
    criteria: Vec<(String, String)>,
}

#[derive(Default)]
struct Test {
    object: String,
    state: Option<String>,
}

/// What an object's name is.
enum Name {
    Is(String),
    /// Any of a variable's.
    Variable(String),
}

#[derive(Default)]
struct Parts {
    definitions: Vec<Definition>,
    tests: HashMap<String, Test>,
    objects: HashMap<String, Name>,
    /// Versions that are less than this.
    states: HashMap<String, String>,
    variables: HashMap<String, Vec<String>>,
    count: usize,
}

/// Reads a document.
pub(super) fn read(
    reader: impl BufRead,
    meter: &Meter,
    sink: &mut Sink<'_>,
) -> Result<(), Refused> {
    let mut xml = Reader::from_reader(reader);
    xml.config_mut().expand_empty_elements = true;
    let (mut walk, mut buffer) = (Walk::default(), Vec::new());
    loop {
        meter.begin();
        buffer.clear();
        let event = xml.read_event_into(&mut buffer);
        let place = || format!("byte {}", xml.buffer_position());
        let event =
            event.map_err(|error| Refused::at(place(), format!("can't be read: {error}")))?;
        let taken = match event {
            Event::Start(element) => walk.begin(&element),
            Event::End(_) => walk.end(),
            Event::Text(text) => walk.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(text) => walk.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(char)) => walk.text(char.encode_utf8(&mut [0; 4])),
                _ => walk.entity(&name.xml_content(XmlVersion::Implicit1_0)),
            },
            Event::DocType(_) => Err("has a DTD, which is not read".to_owned()),
            Event::Eof if walk.open.is_empty() && walk.is_oval => break,
            Event::Eof => Err("ends within an element, or has no oval_definitions".to_owned()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => Ok(()),
        };
        taken.map_err(|detail| Refused::at(place(), detail))?;
    }
    walk.parts.tell(sink)
}

/// Where in the document the reader is.
#[derive(Default)]
struct Walk {
    is_oval: bool,
    open: Vec<String>,
    parts: Parts,
    definition: Option<Definition>,
    /// Of the test, object, state or variable that is open.
    id: String,
    test: Test,
    text: String,
    /// The element's attributes that say what its text means.
    operation: String,
    variable: Option<String>,
    negated: usize,
}

impl Walk {
    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let name = element.local_name().into_inner().to_owned();
        if self.open.len() >= DEPTH {
            return Err(format!("has elements more than {DEPTH} deep"));
        }
        let mut attributes = HashMap::new();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| format!("has a bad attribute: {error}"))?;
            let key = attribute.key.local_name().into_inner().to_owned();
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| format!("has a bad attribute: {error}"))?;
            attributes.insert(key, value.into_owned());
        }
        let mut take = |name: &str| attributes.remove(name).unwrap_or_default();
        self.text.clear();
        match name.as_str() {
            "oval_definitions" => self.is_oval = true,
            "definition" => {
                self.definition = Some(Definition {
                    id: take("id"),
                    class: take("class"),
                    ..Definition::default()
                });
            }
            "reference" => {
                let reference = (take("source"), take("ref_id"));
                self.definition().references.push(reference);
            }
            "criteria" | "criterion" => self.criterion(&name, take),
            name if name.ends_with("_test") => {
                self.id = take("id");
                self.test = Test::default();
            }
            name if name.ends_with("info_object") || name.ends_with("info_state") => {
                self.id = take("id");
            }
            "constant_variable" => self.id = take("id"),
            "object" if self.is_in("_test") => self.test.object = take("object_ref"),
            "state" if self.is_in("_test") => {
                self.test.state = Some(take("state_ref")).filter(|state| !state.is_empty());
            }
            "name" | "evr" => {
                self.operation = take("operation");
                self.variable = Some(take("var_ref")).filter(|name| !name.is_empty());
            }
            _ => {}
        }
        self.open.push(name);
        Ok(())
    }

    fn criterion(&mut self, name: &str, mut take: impl FnMut(&str) -> String) {
        self.negated += usize::from(take("negate") == "true" || self.negated > 0);
        if name == "criterion" && self.negated == 0 {
            let (test, comment) = (take("test_ref"), take("comment"));
            self.definition().criteria.push((test, comment));
            self.parts.count += 1;
        }
    }

    fn definition(&mut self) -> &mut Definition {
        self.definition.get_or_insert_default()
    }

    fn is_in(&self, end: &str) -> bool {
        self.open.last().is_some_and(|open| open.ends_with(end))
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        self.text.push_str(text);
        // Of many pieces, for a piece is a record.
        if self.text.len() > TEXT_BYTES {
            return Err(format!("has a text of more than {TEXT_BYTES} bytes"));
        }
        Ok(())
    }

    fn entity(&mut self, name: &str) -> Result<(), String> {
        let text = quick_xml::escape::resolve_predefined_entity(name);
        let text =
            text.ok_or_else(|| format!("has the entity {name:?}, which is not XML's own"))?;
        self.text(text)
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(name) = self.open.pop() else {
            return Ok(());
        };
        let text = std::mem::take(&mut self.text).trim().to_owned();
        match name.as_str() {
            "definition" => {
                let whole = self.definition.take().unwrap_or_default();
                self.parts.definitions.push(whole);
            }
            "criteria" | "criterion" => self.negated = self.negated.saturating_sub(1),
            "title" if self.definition.is_some() => self.definition().title = text,
            "severity" => self.definition().severity = Some(text),
            "platform" => self.definition().platforms.push(text),
            "cve" => self.definition().cves.push(text),
            "name" if self.is_in("info_object") => {
                let name = self.variable.take().map_or(Name::Is(text), Name::Variable);
                self.parts.objects.insert(self.id.clone(), name);
            }
            "evr" if self.is_in("info_state") && self.operation == "less than" => {
                self.parts.states.insert(self.id.clone(), text);
            }
            "value" if self.is_in("constant_variable") => {
                let names = self.parts.variables.entry(self.id.clone()).or_default();
                names.push(text);
            }
            name if name.ends_with("info_test") => {
                let test = std::mem::take(&mut self.test);
                self.parts.tests.insert(self.id.clone(), test);
            }
            _ => return Ok(()),
        }
        self.parts.count += 1;
        if self.parts.count > MOST_PARTS {
            return Err(format!("has more than {MOST_PARTS} parts"));
        }
        Ok(())
    }
}

impl Parts {
    fn tell(mut self, sink: &mut Sink<'_>) -> Result<(), Refused> {
        for definition in std::mem::take(&mut self.definitions) {
            if !["patch", "vulnerability"].contains(&definition.class.as_str()) {
                sink.skipped += 1;
                continue;
            }
            let platforms = definition.platforms.iter();
            let known = platforms.filter_map(|platform| distributions::of_platform(platform));
            let mut known: Vec<_> = known.collect();
            known.sort();
            known.dedup();
            let statements = self.statements(&definition, &known);
            sink.skipped += usize::from(statements.is_empty());
            sink.push(definition.advisory(statements))?;
        }
        Ok(())
    }

    fn statements(&self, definition: &Definition, known: &[Distribution]) -> Vec<Statement> {
        let mut statements = Vec::new();
        for (test, comment) in &definition.criteria {
            let Some(test) = self.tests.get(test) else {
                continue;
            };
            let fixed = test.state.as_ref().map(|state| self.states.get(state));
            let (state, fixed) = match fixed {
                // A test of something else: of a signature, an architecture, a release.
                Some(None) => continue,
                Some(Some(fixed)) if ["0", "0:0"].contains(&fixed.as_str()) => {
                    (State::NotAffected, None)
                }
                Some(Some(fixed)) => (State::Fixed, Some(fixed)),
                None => match definition.without_version(comment) {
                    Some(state) => (state, None),
                    None => continue,
                },
            };
            for package in self.names(&test.object) {
                let meant = known.iter().filter(|one| is_of(one, known.len(), fixed));
                statements.extend(meant.map(|distribution| {
                    let fixed = fixed.map(|fixed| without_epoch(fixed).to_owned());
                    let is_extra = fixed.as_ref().is_some_and(|fixed| fixed.contains("esm"));
                    Statement {
                        applies: applies(distribution, test, self),
                        distribution: Distribution {
                            is_extra: is_extra && distribution.name.starts_with("ubuntu:"),
                            ..distribution.clone()
                        },
                        package: package.clone(),
                        state,
                        fixed_version: fixed,
                        first_affected: None,
                        last_affected: None,
                        note: (state != State::Fixed).then(|| cut_some(comment)).flatten(),
                    }
                }));
            }
        }
        statements
    }

    fn names(&self, object: &str) -> &[String] {
        match self.objects.get(object) {
            Some(Name::Is(name)) => std::slice::from_ref(name),
            Some(Name::Variable(name)) => self.variables.get(name).map_or(&[], Vec::as_slice),
            None => &[],
        }
    }
}

/// Ubuntu lists binary packages by a variable.
fn applies(distribution: &Distribution, test: &Test, parts: &Parts) -> Applies {
    match parts.objects.get(&test.object) {
        Some(Name::Variable(_)) => Applies::Binary,
        _ => distribution.applies,
    }
}

/// Of several distributions in one definition, whose version this is: the release says so (`el9`), or nothing does.
fn is_of(distribution: &Distribution, known: usize, fixed: Option<&String>) -> bool {
    if known == 1 {
        return true;
    }
    let version = distribution.name.split(':').next_back().unwrap_or_default();
    let mark = format!(".el{version}");
    let mut found = fixed
        .into_iter()
        .flat_map(|fixed| fixed.split(&mark).skip(1));
    distribution.manager == "rpm"
        && found.any(|rest| !rest.starts_with(|char: char| char.is_ascii_digit()))
}

/// OVAL wants an epoch; `0:` is none.
fn without_epoch(evr: &str) -> &str {
    evr.strip_prefix("0:").unwrap_or(evr)
}

impl Definition {
    /// What is said of a package that is only looked for.
    fn without_version(&self, comment: &str) -> Option<State> {
        if self.id.contains(".unaffected:") {
            return Some(State::NotAffected);
        }
        let comment = comment.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| comment.contains(word));
        if self.class != "vulnerability" {
            None
        } else if says(&["not affected", "not vulnerable"]) {
            Some(State::NotAffected)
        } else if says(&["undetermined", "being evaluated", "under evaluation"]) {
            Some(State::Unknown)
        } else if says(&["affected", "vulnerable", "needs fixing", "is installed"]) {
            Some(State::NoFix)
        } else {
            None
        }
    }

    fn advisory(self, statements: Vec<Statement>) -> Advisory {
        let mut cves: Vec<_> = self.cves.into_iter().filter(|cve| is_cve(cve)).collect();
        let mut id = None;
        for (source, name) in self.references {
            if is_cve(&name) {
                cves.push(name);
            } else if !name.is_empty() && source != "CVE" && id.is_none() {
                id = Some(name);
            }
        }
        cves.sort();
        cves.dedup();
        // A vulnerability's definition is called by its vulnerability; an advisory's by the advisory.
        let id = match (self.class.as_str(), cves.as_slice(), id) {
            ("vulnerability", [cve], _) | (_, [cve], None) => cve.clone(),
            (_, _, Some(id)) => id,
            (_, _, None) => self.id,
        };
        Advisory {
            id,
            cves,
            severity: self.severity,
            summary: self.title,
            statements,
        }
    }
}
