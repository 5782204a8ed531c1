//! How text gets into a page: markup stands as text, and characters that nobody sees but that change what others look like
//! are shown by their name: a text can't turn around what stands beside it. Marks of direction and joiners, which people
//! write with, stay; `web/plain.rs` shows those of hosts.

use std::fmt::{self, Write};

use askama::filters::{Escaper, Html};

/// The escaper of all templates (`askama.toml`).
#[derive(Clone, Copy, Debug)]
pub struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut dest: W, string: &str) -> fmt::Result {
        let mut rest = string;
        while let Some(at) = rest.find(is_hidden) {
            Html.write_escaped_str(&mut dest, &rest[..at])?;
            let mut chars = rest[at..].chars();
            if let Some(char) = chars.next() {
                name(&mut dest, char)?;
            }
            rest = chars.as_str();
        }
        Html.write_escaped_str(dest, rest)
    }
}

/// Controls; what orders text (UAX #9, explicit formatting); what has no width and joins nothing; tags.
pub fn is_hidden(char: char) -> bool {
    matches!(char,
        '\0'..='\u{8}'
        | '\u{b}'
        | '\u{c}'
        | '\u{e}'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The picture of a control of ASCII (Unicode, block Control Pictures), the code of any other.
fn name<W: Write>(mut dest: W, char: char) -> fmt::Result {
    match char {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(char))
            .map_or(Ok(()), |picture| dest.write_char(picture)),
        '\u{7f}' => dest.write_char('\u{2421}'),
        char => write!(dest, "⟨U+{:04X}⟩", u32::from(char)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut page = String::new();
        Visible.write_escaped_str(&mut page, text).unwrap();
        page
    }

    #[test]
    fn markup_is_text_and_what_is_hidden_is_seen() {
        assert_eq!(
            escaped("<b title='\"'>&"),
            "&#60;b title=&#39;&#34;&#39;&#62;&#38;"
        );
        assert_eq!(
            escaped("a\u{202e}gpj.exe\u{2069}"),
            "a⟨U+202E⟩gpj.exe⟨U+2069⟩"
        );
        assert_eq!(
            escaped("\u{1b}[31m\0<\u{7f}\u{9b}\u{feff}"),
            "␛[31m␀&#60;␡⟨U+009B⟩⟨U+FEFF⟩"
        );
    }

    #[test]
    fn what_people_write_stays() {
        for text in [
            "",
            "a\tb\r\nc",
            "Zoë, 東京, עברית\u{200f}, naïve 👩\u{200d}💻 می\u{200c}خواهم",
        ] {
            assert_eq!(escaped(text), text);
        }
    }
}
