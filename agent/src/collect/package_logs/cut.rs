//! Lines out of bytes that come in pieces: only whole ones, and of one that is too long its beginning.

/// Kept of a line; apt writes all that an upgrade of a release changes into one.
pub(super) const LINE_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Cutter {
    line: Vec<u8>,
    /// Where the line begins.
    begin: u64,
    /// Where the next byte is.
    offset: u64,
    /// The line was longer than is kept, and has been handed on: its rest is read over.
    is_over: bool,
}

impl Cutter {
    /// Goes on at `offset`, which `is_over` says to be inside of a line that was handed on.
    pub(super) fn new(offset: u64, is_over: bool) -> Self {
        Self {
            line: Vec::new(),
            begin: offset,
            offset,
            is_over,
        }
    }

    /// Hands each line that ends on, with where it begins.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut hand_on: impl FnMut(u64, &[u8])) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if !self.is_over {
                let room = LINE_BYTES.saturating_sub(self.line.len());
                self.line.extend(text.iter().take(room));
                self.is_over = text.len() > room;
                if self.is_over || end.is_some() {
                    hand_on(self.begin, &self.line);
                    self.line = Vec::new();
                }
            }
            self.offset += text.len() as u64;
            bytes = rest;
            if end.is_some() {
                bytes = rest.get(1..).unwrap_or_default();
                self.offset += 1;
                self.begin = self.offset;
                self.is_over = false;
            }
        }
    }

    /// Nothing follows: hands the rest on, which has no end.
    pub(super) fn finish(&mut self, mut hand_on: impl FnMut(u64, &[u8])) {
        if !self.line.is_empty() {
            hand_on(self.begin, &self.line);
            self.line = Vec::new();
        }
        self.begin = self.offset;
    }

    /// A line has begun that is not handed on yet.
    pub(super) fn is_within(&self) -> bool {
        !self.line.is_empty()
    }

    /// Where to go on, and whether that is inside of a line that was handed on.
    pub(super) fn place(&self) -> (u64, bool) {
        if self.is_over {
            (self.offset, true)
        } else {
            (self.begin, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_their_bytes_come() {
        let text = b"one\n\ntwo three\nfour";
        for size in 1..text.len() {
            let mut cutter = Cutter::new(100, false);
            let mut lines = Vec::new();
            for piece in text.chunks(size) {
                cutter.push(piece, |begin, line| {
                    lines.push((begin, line.to_vec()));
                });
            }
            let expected = [(100, &b"one"[..]), (104, b""), (105, b"two three")];
            assert_eq!(lines, expected.map(|(begin, line)| (begin, line.to_vec())));
            assert_eq!((cutter.place(), cutter.is_within()), ((115, false), true));
            cutter.finish(|begin, line| lines.push((begin, line.to_vec())));
            assert_eq!(lines[3], (115, b"four".to_vec()));
            assert_eq!(cutter.place(), (119, false));
        }
    }

    #[test]
    fn of_a_line_that_is_too_long_the_beginning_is_handed_on_once() {
        let mut cutter = Cutter::new(0, false);
        let mut lines = Vec::new();
        let piece = vec![b'x'; 300_000];
        for _ in 0..100 {
            cutter.push(&piece, |begin, line| lines.push((begin, line.len())));
            assert!(cutter.line.len() <= LINE_BYTES);
        }
        assert_eq!(lines, [(0, LINE_BYTES)]);
        assert_eq!(cutter.place(), (30_000_000, true));

        let mut again = Cutter::new(30_000_000, true);
        again.push(b"xx\nshort\n", |begin, line| {
            lines.push((begin, line.len()));
        });
        assert_eq!(lines, [(0, LINE_BYTES), (30_000_003, 5)]);
    }
}
