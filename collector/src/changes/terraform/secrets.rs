//! Secrets of a document by value: every place that is marked as sensitive is read first, so that the same value is found
//! wherever it stands without a mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::super::json::Json;
use super::{Refusal, names};

/// Shorter texts are too common to be looked for.
const SHORTEST: usize = 6;
/// A line of a text of several lines is looked for by itself from this length on.
const SHORTEST_LINE: usize = 20;
/// Of a longer value its beginning is looked for, and everything after it is taken out with it.
const LONG: usize = 512;
const BEGINNING: usize = 128;
/// Values that are looked for.
pub(super) const MAX_SECRETS: usize = 20_000;
/// Bytes of all their forms: what finds them takes some ten times as much memory.
const MAX_FORM_BYTES: usize = 4 * 1024 * 1024;
/// What stands in place of a secret inside a text.
pub(super) const REDACTED: &str = "[redacted]";

/// The values that were found.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    values: BTreeSet<String>,
}

impl Secrets {
    /// Every text and number in a value.
    pub(super) fn add(&mut self, value: &Json) -> Result<(), Refusal> {
        match value {
            Json::Null | Json::Bool(_) => Ok(()),
            Json::Number(number) => {
                let digits = number.bytes().filter(u8::is_ascii_digit).count();
                if digits < SHORTEST {
                    return Ok(());
                }
                self.insert(number)
            }
            Json::String(text) => self.add_text(text),
            Json::Array(items) => items.iter().try_for_each(|item| self.add(item)),
            Json::Object(members) => members.iter().try_for_each(|(_, value)| self.add(value)),
        }
    }

    /// What no mark but a name or a type makes a secret: not the names and words that stand among it.
    pub(super) fn add_named(&mut self, value: &Json) -> Result<(), Refusal> {
        match value {
            Json::String(text) if names::is_common(text) => Ok(()),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => self.add(value),
            Json::Array(items) => items.iter().try_for_each(|item| self.add_named(item)),
            Json::Object(members) => members
                .iter()
                .filter(|(name, _)| !names::is_plain_inside(name))
                .try_for_each(|(_, value)| self.add_named(value)),
        }
    }

    fn add_text(&mut self, text: &str) -> Result<(), Refusal> {
        self.insert(text)?;
        self.insert(text.trim())?;
        let mut lines = text.lines().map(str::trim);
        if text.contains('\n') {
            lines.try_for_each(|line| {
                if line.len() < SHORTEST_LINE || line.starts_with("-----") {
                    return Ok(());
                }
                self.insert(line)
            })?;
        }
        // What `jsonencode` made of several.
        if text.trim_start().starts_with(['{', '['])
            && let Ok(inner) = Json::parse(text.as_bytes())
        {
            self.add(&inner)?;
        }
        Ok(())
    }

    fn insert(&mut self, text: &str) -> Result<(), Refusal> {
        // What was masked before is none.
        let is_short = text.chars().count() < SHORTEST;
        if is_short || text == REDACTED || self.values.contains(text) {
            return Ok(());
        }
        if self.values.len() >= MAX_SECRETS {
            return Err(Refusal::TooMany {
                what: "sensitive values",
                limit: MAX_SECRETS,
            });
        }
        self.values.insert(text.to_owned());
        Ok(())
    }

    /// Something that finds them.
    pub(super) fn scrubber(&self) -> Result<Scrubber, Refusal> {
        let mut forms = BTreeMap::new();
        let mut bytes = 0;
        for value in &self.values {
            let begin = if value.len() > LONG {
                value.floor_char_boundary(BEGINNING)
            } else {
                value.len()
            };
            for form in forms_of(value.get(..begin).unwrap_or_default()) {
                bytes += form.len();
                *forms.entry(form).or_insert(false) |= begin < value.len();
            }
            if bytes > MAX_FORM_BYTES {
                return Err(Refusal::TooMany {
                    what: "bytes of sensitive values, in all the forms that are looked for",
                    limit: MAX_FORM_BYTES,
                });
            }
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(forms.keys());
        Ok(Scrubber {
            finder: finder.ok().filter(|_| !forms.is_empty()),
            is_beginning: forms.into_values().collect(),
            count: 0,
            is_blind: false,
        })
    }
}

/// As it may stand in a text: as it is, escaped in JSON, in an address, in base64 at any place of what is encoded.
fn forms_of(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([value.to_owned()]);
    let quoted = Json::from(value).to_text();
    let escaped = quoted.trim_start_matches('"').trim_end_matches('"');
    forms.insert(escaped.to_owned());
    // Go escapes these for HTML.
    let go = escaped
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    for once in [escaped, &go] {
        let twice = Json::from(once).to_text();
        let inner = twice.get(1..twice.len().saturating_sub(1));
        forms.extend(inner.map(str::to_owned));
    }
    forms.insert(go);
    for (keep, space) in [
        ("-_.~", "%20"),
        ("-_.~", "+"),
        ("-_.!~*'()", "%20"),
        ("-_.~/", "%20"),
    ] {
        for is_upper in [true, false] {
            forms.insert(percent(value, keep, space, is_upper));
        }
    }
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let mut bytes = vec![0; before];
            bytes.extend_from_slice(value.as_bytes());
            let encoded = engine.encode(&bytes);
            // Characters that share bits with what is before and after it.
            let begin = (before * 8).div_ceil(6);
            let end = bytes.len() * 8 / 6;
            if let Some(own) = encoded.get(begin..end)
                && own.len() >= SHORTEST
            {
                forms.insert(own.to_owned());
            }
        }
    }
    forms
}

/// Percent encoding (RFC 3986), of all but letters, digits and some.
fn percent(text: &str, keep: &str, space: &str, is_upper: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => encoded.push_str(space),
            _ if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) => {
                encoded.push(char::from(byte));
            }
            _ if is_upper => drop(write!(encoded, "%{byte:02X}")),
            _ => drop(write!(encoded, "%{byte:02x}")),
        }
    }
    encoded
}

/// Takes secrets out of texts.
#[derive(Debug)]
pub(super) struct Scrubber {
    finder: Option<AhoCorasick>,
    /// Of each pattern: it is the beginning of a longer value.
    is_beginning: Vec<bool>,
    /// Places that were masked so far.
    pub count: u64,
    /// Nothing says what is sensitive.
    pub is_blind: bool,
}

impl Scrubber {
    /// The text without them.
    pub(super) fn text(&mut self, text: &str) -> String {
        let Some(finder) = &self.finder else {
            return text.to_owned();
        };
        let mut clean = String::with_capacity(text.len());
        let mut end = 0;
        for found in finder.find_iter(text) {
            clean.push_str(text.get(end..found.start()).unwrap_or_default());
            clean.push_str(REDACTED);
            end = found.end();
            self.count += 1;
            if self.is_beginning.get(found.pattern().as_usize()) == Some(&true) {
                return clean;
            }
        }
        clean.push_str(text.get(end..).unwrap_or_default());
        clean
    }

    /// Whether a text has one.
    pub(super) fn finds(&self, text: &str) -> bool {
        self.finder
            .as_ref()
            .is_some_and(|finder| finder.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "p<a>&\"ss w\\örd/1+";
        let mut secrets = Secrets::default();
        secrets.add(&Json::from(secret)).unwrap();
        let mut scrubber = secrets.scrubber().unwrap();
        let nested = Json::Object(vec![("a".to_owned(), Json::from(secret))]).to_text();
        let mut texts = vec![
            secret.to_owned(),
            nested.clone(),
            Json::from(nested.as_str()).to_text(),
            format!("postgres://u:{}@h/d", percent(secret, "-_.~", "%20", true)),
            percent(secret, "-_.~", "+", false),
            serde_json::to_string(secret).unwrap(),
        ];
        for before in ["", "u", "us", "user:"] {
            let plain = format!("{before}{secret}:after");
            texts.push(STANDARD_NO_PAD.encode(&plain));
            texts.push(URL_SAFE_NO_PAD.encode(&plain));
        }
        for text in texts {
            let clean = scrubber.text(&format!("x{text}y"));
            assert!(clean.contains(REDACTED), "{text}");
        }
    }

    #[test]
    fn short_values_are_not_looked_for_and_parts_of_documents_are() {
        let mut secrets = Secrets::default();
        let inner = "{\"a\":\"inner-secret\",\"n\":123456,\"b\":true}";
        for value in [
            Json::from("short"),
            Json::Number("12345".into()),
            Json::from(inner),
        ] {
            secrets.add(&value).unwrap();
        }
        let mut scrubber = secrets.scrubber().unwrap();
        let text = "short 12345 inner-secret 123456 true";
        assert_eq!(
            scrubber.text(text),
            "short 12345 [redacted] [redacted] true"
        );
        assert_eq!(scrubber.count, 2);
    }

    #[test]
    fn of_a_long_value_nothing_after_its_beginning_is_kept() {
        let parts: Vec<_> = (0..500).map(|number| format!("{number:x}")).collect();
        let long = parts.join("-");
        let mut secrets = Secrets::default();
        secrets.add(&Json::from(long.as_str())).unwrap();
        let mut scrubber = secrets.scrubber().unwrap();
        let text = format!("before {long} after");
        assert_eq!(scrubber.text(&text), "before [redacted]");
        let encoded = STANDARD_NO_PAD.encode(&text);
        let clean = scrubber.text(&encoded);
        assert!(clean.len() < 30 && clean.ends_with(REDACTED), "{clean}");
    }

    #[test]
    fn there_is_a_limit_to_what_is_looked_for() {
        let mut secrets = Secrets::default();
        let all = (0..=MAX_SECRETS).map(|number| Json::from(format!("secret-{number}").as_str()));
        let error = secrets.add(&Json::Array(all.collect())).unwrap_err();
        assert_eq!(error.to_string(), "more than 20000 sensitive values");
    }
}
