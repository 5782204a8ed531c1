//! What can be downloaded of a document, compressed while it is written: beside a large plan and what was read of it there is no
//! room for it a second time.

use std::fmt;
use std::io::Write as _;

/// Of zstd: the quickest.
const LEVEL: i32 = 1;

/// A text that was written once.
#[derive(Clone, Default)]
pub struct Artifact {
    packed: Vec<u8>,
    bytes: usize,
}

impl Artifact {
    /// The text.
    pub fn text(&self) -> String {
        if self.packed.is_empty() {
            return String::new();
        }
        let text = zstd::bulk::decompress(&self.packed, self.bytes);
        String::from_utf8(text.expect("it was packed here")).expect("it was a text")
    }
}

impl From<&str> for Artifact {
    fn from(text: &str) -> Self {
        let mut writer = Writer::default();
        writer.push_str(text);
        writer.finish()
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}

/// An artifact that is being written.
#[derive(Default)]
pub(super) struct Writer {
    /// None until there is something to write.
    packing: Option<zstd::Encoder<'static, Vec<u8>>>,
    bytes: usize,
}

impl Writer {
    pub(super) fn push_str(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let packing = self.packing.get_or_insert_with(|| {
            zstd::Encoder::new(Vec::new(), LEVEL).expect("there is such a level")
        });
        packing
            .write_all(text.as_bytes())
            .expect("memory takes what is written");
        self.bytes += text.len();
    }

    pub(super) fn finish(self) -> Artifact {
        let packed = self
            .packing
            .map(|packing| packing.finish().expect("memory takes what is written"));
        Artifact {
            packed: packed.unwrap_or_default(),
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_was_written_and_takes_less_room() {
        let mut writer = Writer::default();
        for number in 0..10_000 {
            writer.push_str(&format!("resource {number} of many, "));
        }
        let artifact = writer.finish();
        assert!(artifact.text().ends_with("resource 9999 of many, "));
        assert_eq!(artifact.text().len(), artifact.bytes);
        assert!(artifact.packed.len() * 4 < artifact.bytes);
        assert_eq!(Writer::default().finish().text(), "");
        assert_eq!(Artifact::from("a\u{e9}").text(), "a\u{e9}");
    }
}
