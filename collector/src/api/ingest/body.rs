//! A body that may be packed: unpacked while it comes, never beyond its limit.

use std::io::Write;

use axum::body::Body;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::api::problem::Problem;

/// Bytes of one body, unpacked.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Takes what is unpacked, up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Write for Limited {
    fn write(&mut self, some: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + some.len() > self.limit {
            self.is_over = true;
            return Err(std::io::Error::other("the limit is reached"));
        }
        self.bytes.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Unpacker {
    Plain(Limited),
    Gzip(Box<flate2::write::MultiGzDecoder<Limited>>),
    Zstd(zstd::stream::write::Decoder<'static, Limited>),
}

impl Unpacker {
    /// `announced`: how long the body says to be.
    fn new(name: &str, announced: usize, limit: usize) -> std::io::Result<Option<Self>> {
        let limited = Limited {
            bytes: Vec::with_capacity(announced.min(limit)),
            limit,
            is_over: false,
        };
        Ok(match name {
            "" | "identity" => Some(Self::Plain(limited)),
            "gzip" | "x-gzip" => {
                let decoder = flate2::write::MultiGzDecoder::new(limited);
                Some(Self::Gzip(Box::new(decoder)))
            }
            "zstd" => Some(Self::Zstd(zstd::stream::write::Decoder::new(limited)?)),
            _ => None,
        })
    }

    fn limited(&self) -> &Limited {
        match self {
            Self::Plain(limited) => limited,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
        }
    }

    fn write(&mut self, some: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(limited) => limited.write_all(some),
            Self::Gzip(decoder) => decoder.write_all(some),
            Self::Zstd(decoder) => decoder.write_all(some),
        }
    }

    fn end(self) -> std::io::Result<Vec<u8>> {
        Ok(match self {
            Self::Plain(limited) => limited.bytes,
            Self::Gzip(mut decoder) => {
                decoder.try_finish()?;
                std::mem::take(&mut decoder.get_mut().bytes)
            }
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                decoder.into_inner().bytes
            }
        })
    }
}

/// Reads a body to its end. `Content-Encoding` says how it is packed, or its first bytes do.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let said = headers.get(CONTENT_ENCODING);
    let said = said.map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    // A vector that grows has two copies of what it holds. What is never written takes no memory.
    let announced = body.size_hint().exact().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut unpacker: Option<Unpacker> = None;
    let mut body = body;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::invalid("the body ended before its end"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if unpacker.is_none() {
            let name = said.as_deref().unwrap_or(by_magic(&data));
            unpacker = Some(open(name, announced, limit)?);
        }
        if let Some(unpacker) = &mut unpacker
            && unpacker.write(&data).is_err()
        {
            return Err(broken(unpacker.limited(), limit));
        }
    }
    match unpacker {
        None => Ok(Vec::new()),
        Some(unpacker) => unpacker.end().map_err(|_| {
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "the packed body is cut off, or not what Content-Encoding says",
            )
        }),
    }
}

fn open(name: &str, announced: usize, limit: usize) -> Result<Unpacker, Problem> {
    let made = Unpacker::new(name, announced, limit).map_err(Problem::unavailable)?;
    made.ok_or_else(|| {
        let detail = "Content-Encoding may be gzip, zstd or identity";
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        )
    })
}

fn by_magic(data: &[u8]) -> &'static str {
    if data.starts_with(&GZIP_MAGIC) {
        "gzip"
    } else if data.starts_with(&ZSTD_MAGIC) {
        "zstd"
    } else {
        ""
    }
}

fn broken(limited: &Limited, limit: usize) -> Problem {
    if limited.is_over {
        let detail = format!("a document may have {limit} bytes, unpacked");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail);
    }
    let detail = "the body is not packed as Content-Encoding or its first bytes say";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    async fn sent(encoding: Option<&'static str>, body: Vec<u8>) -> Result<Vec<u8>, u16> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let read = read(&headers, Body::from(body), 1000).await;
        read.map_err(|problem| problem.status)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn a_body_is_unpacked_by_its_header_or_its_first_bytes() {
        let text = b"{\"a\":1}".to_vec();
        let zstd = zstd::stream::encode_all(&text[..], 3).unwrap();
        for (encoding, body) in [
            (None, text.clone()),
            (Some("identity"), text.clone()),
            (Some("gzip"), gzip(&text)),
            (None, gzip(&text)),
            (Some("zstd"), zstd.clone()),
            (None, zstd),
        ] {
            assert_eq!(sent(encoding, body).await.unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_body_is_refused_beyond_its_limit_and_where_it_is_not_packed_so() {
        let bomb = gzip(&vec![b' '; 1_000_000]);
        assert_eq!(sent(None, bomb).await, Err(413));
        assert_eq!(sent(None, vec![b' '; 1001]).await, Err(413));
        assert_eq!(sent(Some("br"), b"x".to_vec()).await, Err(415));
        assert_eq!(sent(Some("gzip"), b"plain".to_vec()).await, Err(422));
        let mut cut = gzip(b"some text that is packed");
        cut.truncate(15);
        assert_eq!(sent(None, cut).await, Err(422));
    }
}
