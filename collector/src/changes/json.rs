//! JSON as it stands in a document: numbers as they are written, members in their order, errors with their place. Values
//! are read one at a time from bytes that may be many times as large, with a limit to depth and to how many there are.

use std::fmt::Write as _;

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};

/// Levels of objects and lists inside each other.
pub const MAX_DEPTH: usize = 128;
/// Values inside one value that is kept.
pub const MAX_VALUES: usize = 1_000_000;

/// A JSON value (RFC 8259).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Json {
    #[default]
    Null,
    Bool(bool),
    /// As it is written: numbers of Terraform are of any precision.
    Number(Box<str>),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Why bytes are not what they should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct BadJson {
    pub what: String,
    pub offset: usize,
    /// The document ends too early.
    pub is_cut: bool,
}

impl Json {
    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let found = members.iter().find(|(member, _)| member == name);
        found.map(|(_, value)| value)
    }

    pub fn as_str(&self) -> Option<&str> {
        let Self::String(text) = self else {
            return None;
        };
        Some(text)
    }

    pub fn as_bool(&self) -> Option<bool> {
        let Self::Bool(value) = self else {
            return None;
        };
        Some(*value)
    }

    /// The values of a list; none where it is something else.
    pub fn items(&self) -> &[Self] {
        let Self::Array(items) = self else {
            return &[];
        };
        items
    }

    /// The members of an object; none where it is something else.
    pub fn members(&self) -> &[(String, Self)] {
        let Self::Object(members) = self else {
            return &[];
        };
        members
    }

    /// A text member.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.as_str().map(str::to_owned)
    }

    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// A text or a number, as text.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Number(number) => Some(number),
            Self::Null | Self::Bool(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// Reads a text that is one value.
    pub fn parse(text: &[u8]) -> Result<Self, BadJson> {
        check_depth(text)?;
        let mut reader = Reader::new(text);
        let value = reader.value()?;
        reader.finish()?;
        Ok(value)
    }

    /// Appends it, without space between.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(number),
            Self::String(text) => write_text(text, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Refuses what is nested deeper than [`MAX_DEPTH`], before anything reads it.
pub fn check_depth(text: &[u8]) -> Result<(), BadJson> {
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    for (offset, byte) in text.iter().enumerate() {
        if in_text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(BadJson {
                        what: format!("nested deeper than {MAX_DEPTH} levels"),
                        offset,
                        is_cut: false,
                    });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a document from its beginning to its end. Its depth was checked.
#[derive(Debug)]
pub struct Reader<'a> {
    jiter: Jiter<'a>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            jiter: Jiter::new(text),
        }
    }

    /// Where it stands.
    pub fn offset(&self) -> usize {
        self.jiter.current_index()
    }

    /// Calls `member` with each member's name; it reads the value, or [`Self::skip`]s it. Anything but an object is
    /// skipped.
    pub fn object<E: From<BadJson>>(
        &mut self,
        mut member: impl FnMut(&str, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.peek()? != Peek::Object {
            return Ok(self.skip()?);
        }
        let mut name = self
            .jiter
            .known_object()
            .map(|name| name.map(str::to_owned));
        loop {
            let Some(found) = name.map_err(|error| bad(&error))? else {
                return Ok(());
            };
            member(&found, self)?;
            name = self.jiter.next_key().map(|name| name.map(str::to_owned));
        }
    }

    /// Calls `item` before each value of a list; it reads it, or skips it. Anything but a list is skipped.
    pub fn array<E: From<BadJson>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.peek()? != Peek::Array {
            return Ok(self.skip()?);
        }
        let mut next = self.jiter.known_array().map_err(|error| bad(&error))?;
        while next.is_some() {
            item(self)?;
            next = self.jiter.array_step().map_err(|error| bad(&error))?;
        }
        Ok(())
    }

    /// Reads a value.
    pub fn value(&mut self) -> Result<Json, BadJson> {
        let mut left = MAX_VALUES;
        self.bounded(&mut left)
    }

    fn bounded(&mut self, left: &mut usize) -> Result<Json, BadJson> {
        *left = left.checked_sub(1).ok_or_else(|| BadJson {
            what: format!("more than {MAX_VALUES} values inside one"),
            offset: self.offset(),
            is_cut: false,
        })?;
        let peek = self.peek()?;
        let value = match peek {
            Peek::Null => self.jiter.known_null().map(|()| Json::Null),
            Peek::True | Peek::False => self.jiter.known_bool(peek).map(Json::Bool),
            Peek::String => self.jiter.known_str().map(Json::from),
            Peek::Array => {
                let mut items = Vec::new();
                self.array(|reader| {
                    items.push(reader.bounded(left)?);
                    Ok::<_, BadJson>(())
                })?;
                return Ok(Json::Array(items));
            }
            Peek::Object => {
                let mut members = Vec::new();
                self.object(|name, reader| {
                    members.push((name.to_owned(), reader.bounded(left)?));
                    Ok::<_, BadJson>(())
                })?;
                return Ok(Json::Object(members));
            }
            _ => {
                let number = self.jiter.known_number_bytes(peek);
                number.map(|number| Json::Number(String::from_utf8_lossy(number).into()))
            }
        };
        value.map_err(|error| bad(&error))
    }

    /// Passes over a value.
    pub fn skip(&mut self) -> Result<(), BadJson> {
        self.jiter.next_skip().map_err(|error| bad(&error))
    }

    /// Refuses anything after the document.
    pub fn finish(&mut self) -> Result<(), BadJson> {
        self.jiter.finish().map_err(|error| bad(&error))
    }

    fn peek(&mut self) -> Result<Peek, BadJson> {
        self.jiter.peek().map_err(|error| bad(&error))
    }
}

/// Never with a part of the document, which may be a secret.
fn bad(error: &JiterError) -> BadJson {
    let JiterErrorType::JsonError(kind) = &error.error_type else {
        return BadJson {
            what: "a value of another type than expected".to_owned(),
            offset: error.index,
            is_cut: false,
        };
    };
    let is_cut = matches!(
        kind,
        JsonErrorType::EofWhileParsingList
            | JsonErrorType::EofWhileParsingObject
            | JsonErrorType::EofWhileParsingString
            | JsonErrorType::EofWhileParsingValue
    );
    BadJson {
        what: kind.to_string(),
        offset: error.index,
        is_cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_it_was() {
        let text = r#"{"b":[1,-0.10,9007199254740993,1e400,null,true,{}],"a":"\"\\\n\u0001é"}"#;
        assert_eq!(Json::parse(text.as_bytes()).unwrap().to_text(), text);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_without_the_document() {
        for (text, what, offset, is_cut) in [
            (r#"{"a": hunter2}"#, "expected value", 6, false),
            (r#"{"a": 1} hunter2"#, "trailing characters", 9, false),
            (r#"{"a": [1, "#, "EOF while parsing a value", 10, true),
            (r#"{"a": "hunter2"#, "EOF while parsing a string", 14, true),
        ] {
            let error = Json::parse(text.as_bytes()).unwrap_err();
            assert_eq!(
                (error.what.as_str(), error.offset, error.is_cut),
                (what, offset, is_cut)
            );
        }
    }

    #[test]
    fn depth_and_number_of_values_have_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        Json::parse(nested(MAX_DEPTH).as_bytes()).unwrap();
        let error = Json::parse(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "nested deeper than 128 levels at byte 128"
        );
        // Brackets in texts are none.
        Json::parse(format!("\"{}\\\"[\"", "[".repeat(1000)).as_bytes()).unwrap();
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(
            Json::parse(many.as_bytes())
                .unwrap_err()
                .what
                .contains("values inside one")
        );
    }
}
