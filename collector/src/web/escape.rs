//! How text gets into a page: markup stands as text, and characters that nobody sees but that change what others look like
//! are seen. A host's name can't turn around what stands beside it, or look like another's.

use std::fmt::{self, Write};

use askama::filters::{Escaper, Html};

/// The escaper of all templates (`askama.toml`).
#[derive(Clone, Copy, Debug)]
pub struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut dest: W, string: &str) -> fmt::Result {
        let mut rest = string;
        while let Some((at, char, shown)) = next_hidden(rest) {
            Html.write_escaped_str(&mut dest, &rest[..at])?;
            dest.write_char(shown)?;
            rest = &rest[at + char.len_utf8()..];
        }
        Html.write_escaped_str(dest, rest)
    }
}

fn next_hidden(text: &str) -> Option<(usize, char, char)> {
    let mut chars = text.char_indices();
    chars.find_map(|(at, char)| Some((at, char, shown(char)?)))
}

/// What stands for a character that is not to be there: the picture of a control (Unicode, block Control Pictures), and a
/// replacement character for those that turn text around (UAX #9, explicit formatting characters).
fn shown(char: char) -> Option<char> {
    match char {
        '\t' | '\n' | '\r' => None,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(char)),
        '\u{7f}' => Some('\u{2421}'),
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(char::REPLACEMENT_CHARACTER)
        }
        _ => None,
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
            "a\u{fffd}gpj.exe\u{fffd}"
        );
        assert_eq!(escaped("\u{1b}[31m\0<\u{7f}\u{9b}"), "␛[31m␀&#60;␡\u{fffd}");
    }

    #[test]
    fn what_people_write_stays() {
        for text in ["", "a\tb\r\nc", "Zoë, 東京, עברית\u{200f}, naïve 🙂"] {
            assert_eq!(escaped(text), text);
        }
    }
}
