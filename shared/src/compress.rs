//! zstd (RFC 8878) for bodies above [`COMPRESS_ABOVE_BYTES`], with the output capped as it comes.

use std::io::{self, Read};

use thiserror::Error;

use crate::limits::{COMPRESS_ABOVE_BYTES, ZSTD_WINDOW_LOG};

/// `Content-Encoding` of a compressed body.
pub const ENCODING: &str = "zstd";

/// Why a compressed body was refused.
#[derive(Debug, Error)]
pub enum DecompressError {
    #[error("body is over the limit of {limit} bytes when decompressed")]
    TooLarge { limit: usize },
    #[error("body is no valid zstd frame with a window of at most {} bytes", 1_u64 << ZSTD_WINDOW_LOG)]
    Invalid(#[source] io::Error),
}

/// Compresses a body where that pays; `None` where it is to be sent as it is.
pub fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() <= COMPRESS_ABOVE_BYTES {
        return None;
    }
    zstd::bulk::compress(body, 1)
        .ok()
        .filter(|compressed| compressed.len() < body.len())
}

/// Decompresses `body`, and stops as soon as more than `limit` bytes have come out.
pub fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = zstd::Decoder::with_buffer(body).map_err(DecompressError::Invalid)?;
    decoder
        .window_log_max(ZSTD_WINDOW_LOG)
        .map_err(DecompressError::Invalid)?;
    // At once: a vector that grows is there twice while it is moved.
    let said = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
    let said = said.and_then(|size| usize::try_from(size).ok());
    let mut out = Vec::with_capacity(said.map_or(limit, |size| size.min(limit)) + 1);
    let mut capped = decoder.take(limit as u64 + 1);
    capped
        .read_to_end(&mut out)
        .map_err(DecompressError::Invalid)?;
    if out.len() > limit {
        return Err(DecompressError::TooLarge { limit });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_survives_and_a_small_one_is_left_alone() {
        let body = b"infratrack ".repeat(1000);
        let compressed = compress(&body).expect("pays");
        assert!(compressed.len() < body.len() / 10);
        assert_eq!(decompress(&compressed, body.len()).expect("valid"), body);
        assert!(compress(b"small").is_none());
    }

    #[test]
    fn a_gibibyte_of_zeros_is_refused_at_the_limit() {
        let mut bomb = zstd::Encoder::new(Vec::new(), 19).expect("encoder");
        bomb.window_log(ZSTD_WINDOW_LOG).expect("valid window");
        for _ in 0..1024 {
            io::Write::write_all(&mut bomb, &vec![0; 1024 * 1024]).expect("in memory");
        }
        let bomb = bomb.finish().expect("in memory");
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        let error = decompress(&bomb, 4096).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "body is over the limit of 4096 bytes when decompressed"
        );
    }

    #[test]
    fn a_window_over_the_limit_is_refused() {
        let mut wide = zstd::Encoder::new(Vec::new(), 3).expect("encoder");
        wide.window_log(ZSTD_WINDOW_LOG + 5).expect("valid window");
        io::Write::write_all(&mut wide, &vec![0; 64 * 1024]).expect("in memory");
        io::Write::flush(&mut wide).expect("in memory");
        let wide = wide.finish().expect("in memory");
        assert!(matches!(
            decompress(&wide, 1 << 20),
            Err(DecompressError::Invalid(_))
        ));
    }

    #[test]
    fn garbage_and_half_a_frame_are_errors() {
        assert!(matches!(
            decompress(b"garbage", 100),
            Err(DecompressError::Invalid(_))
        ));
        let whole = compress(&[7; 4096]).expect("pays");
        let half = &whole[..whole.len() / 2];
        assert!(matches!(
            decompress(half, 4096),
            Err(DecompressError::Invalid(_))
        ));
    }
}
