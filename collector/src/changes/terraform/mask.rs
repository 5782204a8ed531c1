//! What is kept of a value and of a change: without what is marked as sensitive, without what its type or name says is
//! secret, without secrets by value.

use std::collections::{HashMap, HashSet};

use super::super::json::Json;
use super::lines;
use super::names::{is_plain_of_secret_type, is_secret_name};
use super::secrets::{REDACTED, Scrubber};
use super::{Attribute, Difference, MAX_ATTRIBUTES, MAX_TEXT};

/// Both sides of a change, and what is said of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sides<'a> {
    pub before: Option<&'a Json>,
    pub after: Option<&'a Json>,
    pub unknown: Option<&'a Json>,
    pub before_mask: Option<&'a Json>,
    pub after_mask: Option<&'a Json>,
}

impl<'a> Sides<'a> {
    fn item(self, index: usize) -> Self {
        self.each(|value| value.and_then(|value| value.items().get(index)))
    }

    fn each(self, of: impl Fn(Option<&'a Json>) -> Option<&'a Json>) -> Self {
        Self {
            before: of(self.before),
            after: of(self.after),
            unknown: of(self.unknown),
            before_mask: of(self.before_mask),
            after_mask: of(self.after_mask),
        }
    }

    fn is_marked(self) -> bool {
        [self.before_mask, self.after_mask].contains(&Some(&Json::Bool(true)))
    }

    fn is_unknown(self) -> bool {
        self.unknown == Some(&Json::Bool(true))
    }

    /// Whether either side is anything.
    fn is_something(self) -> bool {
        [self.before, self.after]
            .iter()
            .flatten()
            .any(|value| !value.is_null())
            || self.is_unknown()
    }

    fn is_different(self) -> bool {
        let said = |value: Option<&'a Json>| value.filter(|value| !value.is_null());
        self.is_unknown() || said(self.before) != said(self.after)
    }
}

/// The members of objects by name: an object may have a million.
struct Members<'a> {
    names: Vec<&'a str>,
    sides: [HashMap<&'a str, &'a Json>; 5],
}

impl<'a> Members<'a> {
    fn of(sides: Sides<'a>) -> Self {
        let Sides {
            before,
            after,
            unknown,
            before_mask,
            after_mask,
        } = sides;
        let mut seen = HashSet::new();
        let named = [before, after, unknown].into_iter().flatten();
        let names = named.flat_map(|side| side.members().iter().map(|(name, _)| name.as_str()));
        let names = names.filter(|name| seen.insert(*name)).collect();
        let map = |side: Option<&'a Json>| {
            let members = side.map(Json::members).unwrap_or_default().iter();
            members
                .map(|(name, value)| (name.as_str(), value))
                .collect()
        };
        Self {
            names,
            sides: [before, after, unknown, before_mask, after_mask].map(map),
        }
    }

    fn get(&self, name: &str) -> Sides<'a> {
        let [before, after, unknown, before_mask, after_mask] =
            self.sides.each_ref().map(|side| side.get(name).copied());
        Sides {
            before,
            after,
            unknown,
            before_mask,
            after_mask,
        }
    }
}

/// What is secret whatever marks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    Plain,
    /// A resource of a secret type, at its top.
    Type,
    /// By its name, or inside something that is.
    Named,
    /// Nothing says what is secret.
    Unmarked,
}

/// What is kept of a resource's change.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub before: Option<Json>,
    pub after: Option<Json>,
    pub attributes: Vec<Attribute>,
    pub is_cut: bool,
}

/// Takes secrets out of a change, and finds what differs.
pub(super) fn change(sides: Sides<'_>, secrecy: Secrecy, scrubber: &mut Scrubber) -> Kept {
    let mut walk = Walk {
        scrubber,
        attributes: Vec::new(),
        is_cut: false,
        path: Vec::new(),
    };
    let (before, after) = walk.node(sides, secrecy);
    Kept {
        before,
        after,
        attributes: walk.attributes,
        is_cut: walk.is_cut,
    }
}

struct Walk<'a> {
    scrubber: &'a mut Scrubber,
    attributes: Vec<Attribute>,
    is_cut: bool,
    path: Vec<String>,
}

type Pair = (Option<Json>, Option<Json>);

impl Walk<'_> {
    fn node(&mut self, sides: Sides<'_>, secrecy: Secrecy) -> Pair {
        let shown = [sides.before, sides.after].into_iter().flatten();
        // Flags are called like secrets too: `password_auth`.
        let is_flag = |value: &Json| matches!(value, Json::Null | Json::Bool(_));
        let is_named = secrecy == Secrecy::Named && !shown.clone().all(is_flag);
        let is_unmarked = secrecy == Secrecy::Unmarked && !self.path.is_empty();
        // Whoever sent it may have masked it.
        let is_masked = shown.clone().any(|value| redacted(value).is_some());
        if sides.is_marked() || is_named || is_unmarked || is_masked {
            return self.secret(sides);
        }
        if sides.is_unknown() {
            let before = self.shown(sides.before, sides.before_mask, secrecy);
            self.differs(Difference::Unknown, before.clone(), None);
            return (before, None);
        }
        let is_object = |value: &&Json| matches!(value, Json::Object(_));
        let is_array = |value: &&Json| matches!(value, Json::Array(_));
        let shown: Vec<_> = [sides.before, sides.after].into_iter().flatten().collect();
        let mut shown = shown.iter().filter(|value| !value.is_null()).peekable();
        if shown.peek().is_some() && shown.clone().all(is_object) {
            return self.object(sides, secrecy);
        }
        if shown.peek().is_some() && shown.all(is_array) {
            return self.array(sides);
        }
        self.scalar(sides, secrecy)
    }

    /// Texts, numbers, and values of which each side is something else.
    fn scalar(&mut self, sides: Sides<'_>, secrecy: Secrecy) -> Pair {
        let of = |value: Option<&Json>| value.is_some_and(|value| !value.is_null());
        let is_different = sides.is_different();
        let (was, is) = (of(sides.before), of(sides.after));
        let before = self.shown(sides.before, sides.before_mask, secrecy);
        let after = self.shown(sides.after, sides.after_mask, secrecy);
        if is_different && (was || is) {
            let what = match (was, is) {
                (false, _) => Difference::Added,
                (true, false) => Difference::Removed,
                (true, true) => Difference::Changed,
            };
            self.differs(what, before.clone(), after.clone());
        }
        (before, after)
    }

    fn object(&mut self, sides: Sides<'_>, secrecy: Secrecy) -> Pair {
        let members = Members::of(sides);
        let shown = [sides.before, sides.after].into_iter().flatten();
        let holders: Vec<_> = shown.map(Holder::of).collect();
        let mut before = sides.before.and_then(emptied);
        let mut after = sides.after.and_then(emptied);
        for &name in &members.names {
            let inner = match secrecy {
                Secrecy::Type if is_plain_of_secret_type(name) => Secrecy::Plain,
                Secrecy::Type => Secrecy::Named,
                Secrecy::Unmarked => Secrecy::Unmarked,
                _ if holders.iter().any(|holder| holder.is_secret(name)) => Secrecy::Named,
                Secrecy::Plain | Secrecy::Named => Secrecy::Plain,
            };
            let shown = self.scrubber.text(name);
            self.path.push(shown.clone());
            let (was, is) = self.node(members.get(name), inner);
            self.path.pop();
            for (side, value) in [(&mut before, was), (&mut after, is)] {
                if let (Some(Json::Object(members)), Some(value)) = (side, value) {
                    members.push((shown.clone(), value));
                }
            }
        }
        (
            before.or_else(|| sides.before.cloned()),
            after.or_else(|| sides.after.cloned()),
        )
    }

    fn array(&mut self, sides: Sides<'_>) -> Pair {
        let length = |value: Option<&Json>| value.map_or(0, |value| value.items().len());
        let most = length(sides.before).max(length(sides.after));
        let mut before = sides.before.and_then(emptied);
        let mut after = sides.after.and_then(emptied);
        for index in 0..most {
            self.path.push(index.to_string());
            let (was, is) = self.node(sides.item(index), Secrecy::Plain);
            self.path.pop();
            let each = [
                (&mut before, sides.before, was),
                (&mut after, sides.after, is),
            ];
            for (side, of, value) in each {
                if let Some(Json::Array(items)) = side
                    && index < length(of)
                {
                    // What is unknown has its place.
                    items.push(value.unwrap_or_default());
                }
            }
        }
        (
            before.or_else(|| sides.before.cloned()),
            after.or_else(|| sides.after.cloned()),
        )
    }

    fn secret(&mut self, sides: Sides<'_>) -> Pair {
        if !sides.is_something() {
            return (sides.before.cloned(), sides.after.cloned());
        }
        let told = [sides.before, sides.after]
            .into_iter()
            .flatten()
            .find_map(redacted);
        let is_changed = told.unwrap_or_else(|| sides.is_different());
        let is_masked = |value: &Json| redacted(value).is_some() || *value == Json::from(REDACTED);
        let shown = [sides.before, sides.after].into_iter().flatten();
        let mut shown = shown.filter(|value| !value.is_null()).peekable();
        if shown.peek().is_some() && !shown.all(is_masked) {
            self.scrubber.count += 1;
        }
        if is_changed {
            let what = if self.scrubber.is_blind {
                Difference::Sensitive
            } else {
                Difference::SensitiveChanged
            };
            self.differs(what, None, None);
        }
        let mask = |value: Option<&Json>| {
            value.map(|value| {
                if value.is_null() {
                    Json::Null
                } else {
                    redaction(is_changed)
                }
            })
        };
        (mask(sides.before), mask(sides.after))
    }

    /// One side by itself, with the marks that it has.
    fn shown(
        &mut self,
        value: Option<&Json>,
        mask: Option<&Json>,
        secrecy: Secrecy,
    ) -> Option<Json> {
        let value = value?;
        if !matches!(value, Json::Object(_) | Json::Array(_)) {
            return Some(clean(value, self.scrubber));
        }
        let alone = Sides {
            before: Some(value),
            before_mask: mask,
            ..Sides::default()
        };
        change(alone, secrecy, self.scrubber).before
    }

    fn differs(&mut self, what: Difference, before: Option<Json>, after: Option<Json>) {
        if self.attributes.len() >= MAX_ATTRIBUTES {
            self.is_cut = true;
            return;
        }
        self.attributes.push(Attribute {
            path: self.path.clone(),
            what,
            before: before.map(cut),
            after: after.map(cut),
        });
    }
}

/// A value that stands by itself, without secrets.
pub(super) fn clean(value: &Json, scrubber: &mut Scrubber) -> Json {
    match value {
        Json::Null | Json::Bool(_) => value.clone(),
        Json::Number(number) => {
            if scrubber.finds(number) {
                scrubber.count += 1;
                return Json::from(REDACTED);
            }
            value.clone()
        }
        Json::String(text) => Json::String(clean_text(text, scrubber)),
        Json::Array(items) => Json::Array(items.iter().map(|item| clean(item, scrubber)).collect()),
        Json::Object(members) => {
            let holder = Holder::of(value);
            let clean_member = |(name, value): &(String, Json)| {
                let kept = if holder.is_secret(name) && !matches!(value, Json::Null | Json::Bool(_))
                {
                    let is_masked = redacted(value).is_some() || *value == Json::from(REDACTED);
                    scrubber.count += u64::from(!is_masked);
                    Json::from(REDACTED)
                } else {
                    clean(value, scrubber)
                };
                (scrubber.text(name), kept)
            };
            Json::Object(members.iter().map(clean_member).collect())
        }
    }
}

/// A text that may itself be a document with secrets by name.
fn clean_text(text: &str, scrubber: &mut Scrubber) -> String {
    let is_document = text.trim_start().starts_with(['{', '[']);
    let inner = is_document.then(|| Json::parse(text.as_bytes()));
    let Some(Ok(inner)) = inner else {
        let text = scrubber.text(text);
        return lines::clean(&text, &mut scrubber.count).unwrap_or(text);
    };
    let before = scrubber.count;
    let kept = clean(&inner, scrubber);
    if scrubber.count == before {
        return scrubber.text(text);
    }
    scrubber.text(&kept.to_text())
}

/// What an object says of its members.
#[derive(Clone, Copy)]
pub(super) struct Holder {
    /// `{"name": "DB_PASSWORD", "value": "…"}`.
    is_pair: bool,
    /// A Secret of Kubernetes.
    is_secret: bool,
}

impl Holder {
    pub(super) fn of(value: &Json) -> Self {
        let names = [value.get("name"), value.get("key")];
        let mut names = names.into_iter().flatten().filter_map(Json::as_str);
        Self {
            is_pair: names.any(is_secret_name),
            is_secret: value.get("kind").and_then(Json::as_str) == Some("Secret"),
        }
    }

    /// Whether a member is secret by what it is called and by what stands beside it.
    pub(super) fn is_secret(self, name: &str) -> bool {
        is_secret_name(name)
            || self.is_pair && name == "value"
            || self.is_secret && ["data", "stringData", "string_data"].contains(&name)
    }
}

fn emptied(value: &Json) -> Option<Json> {
    match value {
        Json::Object(_) => Some(Json::Object(Vec::new())),
        Json::Array(_) => Some(Json::Array(Vec::new())),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

fn redaction(is_changed: bool) -> Json {
    Json::Object(vec![
        ("redacted".to_owned(), Json::Bool(true)),
        ("changed".to_owned(), Json::Bool(is_changed)),
    ])
}

/// Whether it was masked before, and if so whether it changed.
fn redacted(value: &Json) -> Option<bool> {
    let is_one = value.members().len() == 2 && value.get("redacted") == Some(&Json::Bool(true));
    is_one.then(|| value.get("changed")?.as_bool()).flatten()
}

fn cut(value: Json) -> Json {
    let Json::String(text) = &value else {
        return value;
    };
    let Some((at, _)) = text.char_indices().nth(MAX_TEXT) else {
        return value;
    };
    let rest = text.get(at..).unwrap_or_default().chars().count();
    Json::String(format!(
        "{}… ({rest} characters more)",
        text.get(..at).unwrap_or_default()
    ))
}

/// Marks and other shapes: the names of members are kept, whatever they are; texts are freed of secrets.
pub(super) fn clean_names(value: &Json, scrubber: &mut Scrubber) -> Json {
    match value {
        Json::Object(members) => {
            let members = members.iter();
            let member = |(name, value): &(String, Json)| {
                (scrubber.text(name), clean_names(value, scrubber))
            };
            Json::Object(members.map(member).collect())
        }
        Json::Array(items) => Json::Array(
            items
                .iter()
                .map(|item| clean_names(item, scrubber))
                .collect(),
        ),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => clean(value, scrubber),
    }
}
