//! What users are called.

use thiserror::Error;

const MAX_CHARS: usize = 64;

/// Why a name is none.
#[derive(Debug, Error)]
#[error(
    "{0:?} is no name of a user: up to {MAX_CHARS} letters a to z, digits and . _ @ + -, a letter or digit first"
)]
pub struct NameError(String);

/// A name as it is stored: in lower case.
pub fn name(text: &str) -> Result<String, NameError> {
    let name = text.trim().to_lowercase();
    let is_plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    let begins = name.chars().next().is_some_and(is_plain);
    let fits = name.len() <= MAX_CHARS
        && name
            .chars()
            .all(|char| is_plain(char) || "._@+-".contains(char));
    if begins && fits {
        Ok(name)
    } else {
        Err(NameError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_lower_case() {
        assert_eq!(name(" Ada@example.org ").unwrap(), "ada@example.org");
        assert_eq!(name(&"x".repeat(64)).unwrap().len(), 64);
        for bad in ["", " ", ".ada", "a b", "ädä", "a/b", "a\0", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
