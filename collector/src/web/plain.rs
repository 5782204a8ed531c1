//! Texts from hosts as pages show them: of one line where there is room for one, cut where they are long, and with their
//! marks and joiners by name. Markup and what else does not print are `web/escape.rs`'s.

use std::fmt::Write;

use crate::web::escape;

/// The longest name of a character, `⟨U+E0001⟩`.
const NAME_BYTES: usize = 13;

/// A text of one line, of at most so many characters.
pub fn line(text: &str, most: usize) -> String {
    let is_end = |char: char| matches!(char, '\n' | '\t' | '\r');
    block(text, most).replace(is_end, " ")
}

/// A text of at most so many characters.
pub fn block(text: &str, most: usize) -> String {
    let cut = match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let mut shown = String::with_capacity(cut.len());
    for char in cut.chars() {
        if is_mark(char) {
            // Writing to a string does not fail.
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    shown
}

/// Marks of direction and joiners: people write with them, so they stay elsewhere; a host that says one hides it.
fn is_mark(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200c}'..='\u{200f}')
}

/// The text's length on a page, where markup is escaped and what does not print is named.
pub fn weight(text: &str) -> usize {
    let escaped = |char: char| match char {
        '<' | '>' | '&' | '"' | '\'' => 5,
        char if is_mark(char) || escape::is_hidden(char) => NAME_BYTES,
        char => char.len_utf8(),
    };
    text.chars().map(escaped).sum()
}

/// Percent-encodes a query value (RFC 3986, section 2.1).
pub fn encoded(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = |byte: u8| {
        if unreserved(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encoded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(line("web-1 größe", 80), "web-1 größe");
        assert_eq!(line("a\nb\tc\r", 80), "a b c ");
        assert_eq!(line("éééé", 3), "ééé…");
        assert_eq!(line("ééé", 3), "ééé");
        assert_eq!(line("web\u{200d}-1\u{200f}", 80), "web⟨U+200D⟩-1⟨U+200F⟩");
        assert_eq!(block("a\n\tb\r", 80), "a\n\tb\r");
        assert_eq!(weight("a<\"é\u{202e}"), 26);
        assert_eq!(encoded("a b/ä"), "a%20b%2F%C3%A4");
    }
}
