//! Lines of files that may hold anything.

use std::io::BufRead;

/// Of a line; the rest of a longer one is read over.
const LINE_BYTES: usize = 64 * 1024;

/// Reads a line without its end; of one that is too long, its beginning. Answers whether there was one.
pub(super) fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut is_any = false;
    loop {
        let part = file.fill_buf()?;
        if part.is_empty() {
            return Ok(is_any);
        }
        is_any = true;
        let end = part.iter().position(|byte| *byte == b'\n');
        let text = &part[..end.unwrap_or(part.len())];
        let room = LINE_BYTES.saturating_sub(line.len()).min(text.len());
        line.extend_from_slice(&text[..room]);
        let used = end.map_or(part.len(), |end| end + 1);
        file.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_and_the_last_needs_no_end() {
        let text = format!("a\n\n{}\nend", "x".repeat(3 * LINE_BYTES));
        let mut file = std::io::BufReader::with_capacity(100, text.as_bytes());
        let mut line = Vec::new();
        let mut lengths = Vec::new();
        while next_line(&mut file, &mut line).unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [1, 0, LINE_BYTES, 3]);
    }
}
