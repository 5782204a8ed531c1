//! Frames of a held answer: `u32` big-endian length, then that many bytes of MessagePack.

use thiserror::Error;

use crate::codec::{self, DecodeError, EncodeError, Limits};
use crate::limits::FRAME_BYTES;
use crate::wire::answer::Frame;

/// Bytes of the length before each frame.
const HEADER_BYTES: usize = 4;

/// Why an answer can't be read on.
#[derive(Debug, Error)]
pub enum FrameError {
    #[error("a frame of {got} bytes is over the limit of {limit} bytes")]
    TooLarge { got: usize, limit: usize },
    #[error("a frame does not decode")]
    Decode(#[from] DecodeError),
}

/// Encodes one frame with its length.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, EncodeError> {
    let body = codec::encode(frame)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// Puts frames together from an answer's bytes as they arrive.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Takes what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let got = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if got > FRAME_BYTES {
            return Err(FrameError::TooLarge {
                got,
                limit: FRAME_BYTES,
            });
        }
        let Some(body) = rest.get(..got) else {
            return Ok(None);
        };
        let frame = codec::decode(body, &Limits::bytes(FRAME_BYTES))?;
        self.buffer.drain(..HEADER_BYTES + got);
        Ok(Some(frame))
    }

    /// Whether the answer ended between frames.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::answer::{Ack, Goaway};

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let sent = [
            Frame::from(Ack::default()),
            Frame::from(Goaway { within_ms: 5000 }),
        ];
        let bytes: Vec<u8> = sent
            .iter()
            .flat_map(|frame| encode(frame).expect("encodes"))
            .collect();
        let mut reader = FrameReader::default();
        let mut read = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            read.extend(reader.next_frame().expect("valid"));
        }
        assert_eq!(read, sent);
        assert!(reader.is_empty());
    }

    #[test]
    fn an_unknown_frame_is_empty_and_an_oversized_one_an_error() {
        let mut reader = FrameReader::default();
        reader.push(&[0, 0, 0, 4, 0x81, 0xa1, b'x', 0xc0]);
        assert_eq!(reader.next_frame().expect("valid"), Some(Frame::default()));
        reader.push(&[0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(
            reader.next_frame(),
            Err(FrameError::TooLarge { .. })
        ));
    }
}
