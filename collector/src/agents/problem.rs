//! Refusals to agents: problem documents in MessagePack.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use infratrack_shared::codec;
use infratrack_shared::wire::CONTENT_TYPE;
use infratrack_shared::wire::problem::{Problem, code};

use crate::agents::answer::AnswerBody;

/// A refusal: status, stable word, detail, and when to come back.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal of this request as it is.
    pub fn new(status: StatusCode, code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            status,
            code,
            detail: detail.to_string(),
            retry_after_s: None,
        }
    }

    /// 503: come back after about this long.
    pub fn unavailable(detail: impl std::fmt::Display, retry_after_s: u64) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, detail);
        Self {
            retry_after_s: Some(retry_after_s),
            ..refusal
        }
    }

    /// The answer that says so. It ends the connection where the rest of the body was not read.
    pub fn into_response(self) -> Response<AnswerBody> {
        let problem = Problem {
            code: self.code.to_owned(),
            title: self
                .status
                .canonical_reason()
                .unwrap_or("Refused")
                .to_owned(),
            status: self.status.as_u16(),
            detail: Some(self.detail),
            request_id: None,
        };
        let body = codec::encode(&problem).unwrap_or_default();
        let mut response = Response::new(AnswerBody::whole(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(CONTENT_TYPE),
        );
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
