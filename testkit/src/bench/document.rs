//! `docs/benchmarks.md`: each benchmark owns the text between its two markers and replaces it whole; what is
//! written by hand around them stays.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// Replaces the text of a section, between `<!-- begin NAME -->` and `<!-- end NAME -->`, which are there already.
pub fn write_section(document: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let old = fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let new = with_section(&old, name, text)
        .with_context(|| format!("{} has no section {name}", document.display()))?;
    fs::write(document, new).with_context(|| format!("cannot write {}", document.display()))
}

fn with_section(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    );
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    let text = text.trim();
    Some(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::with_section;

    #[test]
    fn a_section_is_replaced_and_all_else_stays() {
        let old = "# A\n<!-- begin x -->\nold\n<!-- end x -->\nlog\n";
        let new = with_section(old, "x", "new\n\n").unwrap();
        assert_eq!(new, "# A\n<!-- begin x -->\nnew\n<!-- end x -->\nlog\n");
        assert_eq!(with_section(&new, "x", "new").unwrap(), new);
        assert_eq!(with_section(old, "y", "new"), None);
    }
}
