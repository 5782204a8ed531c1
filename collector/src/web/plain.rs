//! Texts from hosts as pages show them: what does not print is shown by its name, so that it neither hides nor reorders
//! what stands around it, and what is long is cut. Markup is the templates' to escape.

use std::fmt::Write;

/// A text of one line, of at most so many characters.
pub fn line(text: &str, most: usize) -> String {
    shown(text, most, false)
}

/// Likewise with its lines.
pub fn block(text: &str, most: usize) -> String {
    shown(text, most, true)
}

fn shown(text: &str, most: usize, with_lines: bool) -> String {
    let mut shown = String::with_capacity(text.len().min(4 * most));
    for (nth, char) in text.chars().enumerate() {
        if nth == most {
            shown.push('…');
            break;
        }
        match char {
            '\n' | '\t' if with_lines => shown.push(char),
            '\n' | '\t' | '\r' => shown.push(' '),
            // The pictures of control characters.
            '\0'..='\u{1f}' => shown.extend(char::from_u32(0x2400 + u32::from(char))),
            '\u{7f}' => shown.push('\u{2421}'),
            char if is_invisible(char) => {
                // Writing to a string does not fail.
                let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(char));
            }
            char => shown.push(char),
        }
    }
    shown
}

/// Controls, what orders text from right to left, what has no width, and tags.
fn is_invisible(char: char) -> bool {
    matches!(char,
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The text's length on a page, where markup is escaped.
pub fn weight(text: &str) -> usize {
    let escaped = |byte: u8| if b"<>&\"'".contains(&byte) { 5 } else { 1 };
    text.bytes().map(escaped).sum()
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
    fn what_does_not_print_is_shown_and_what_is_long_is_cut() {
        assert_eq!(line("web-1 größe", 80), "web-1 größe");
        assert_eq!(line("a\nb\0\u{1b}[31m\u{7f}", 80), "a b␀␛[31m␡");
        assert_eq!(line("x\u{202e}y\u{feff}", 80), "x⟨U+202E⟩y⟨U+FEFF⟩");
        assert_eq!(line("éééé", 3), "ééé…");
        assert_eq!(block("a\n\tb\r", 80), "a\n\tb ");
        assert_eq!(line(&"\u{202e}".repeat(70_000), 10).chars().count(), 81);
        assert_eq!(weight("a<\""), 11);
        assert_eq!(encoded("a b/ä"), "a%20b%2F%C3%A4");
    }
}
