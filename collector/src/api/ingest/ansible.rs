//! `POST /ingest/ansible`: records of plays, from the callback of the collection. Each is stored once, in its order.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::body;
use crate::api::input::{self, Json};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::changes::play::{BadRecord, Batch, MAX_RECORDS};
use crate::plays::{self, NotStored, Stored, Taken, readable};
use crate::runs::Bringer;

/// Bytes of a request, unpacked.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Takes records of a run, numbered without a hole. Those that are there already are passed over; where some before them
/// are missing it is 409, with `acked_seq`. The format is docs/formats/ansible-ingest.md.
#[utoipa::path(
    post,
    path = "/ingest/ansible",
    tag = "changes",
    request_body(content = Object, content_type = "application/json", description = "`{run, first_seq, records}`, plain, gzip or zstd; at most 4 MiB unpacked"),
    responses((status = 200, body = Taken)),
)]
pub async fn take(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, sent) = request.into_parts();
    let text = body::read(&parts.headers, sent, MAX_BYTES).await?;
    let bytes = text.len();
    let text = String::from_utf8(text).map_err(|_| Problem::field("", "is not UTF-8"))?;
    let batch: Batch = input::parse(readable(&text).as_bytes())?;
    if batch.records.len() > MAX_RECORDS {
        let detail = format!("has more than {MAX_RECORDS} records");
        return Err(Problem::field("/records", detail));
    }
    if batch.first_seq == 0 {
        return Err(Problem::field("/first_seq", "must be 1 or more"));
    }
    let stored = plays::store(&app, Bringer::Caller(&caller), batch).await;
    let stored = stored.map_err(Problem::from);
    let outcome = match &stored {
        Ok(Stored::Taken(_)) => "stored",
        Ok(Stored::Missing { .. }) => "refused",
        Err(problem) if problem.status < 500 => "refused",
        Err(_) => "failed",
    };
    app.metrics.change_document("ansible", outcome, bytes, 0);
    stored.map(|stored| match stored {
        Stored::Taken(taken) => Json(taken).into_response(),
        Stored::Missing { acked_seq } => hole(acked_seq),
    })
}

fn hole(acked_seq: i64) -> Response {
    let detail = format!(
        "records before these are missing: send again from {}",
        acked_seq + 1
    );
    let problem = Problem::conflict("missing_records", detail);
    let mut document = json!(problem);
    if let Value::Object(members) = &mut document {
        members.insert("acked_seq".to_owned(), json!(acked_seq));
    }
    let kind = [(http::header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::CONFLICT, kind, document.to_string()).into_response()
}

fn refused(bad: &BadRecord) -> Problem {
    let mut problem = Problem::field(bad.pointer.clone(), &bad.what);
    if bad.is_large {
        problem.status = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
        problem.code = "too_large";
    }
    problem
}

impl From<NotStored> for Problem {
    fn from(not: NotStored) -> Self {
        match not {
            NotStored::AnotherToken => Self::new(StatusCode::FORBIDDEN, "another_token", not),
            NotStored::NoRecords => Self::field("/records", "is empty"),
            NotStored::Record(bad) => refused(&bad),
            NotStored::Claim(bad) => Self::field("/records/0", bad),
            NotStored::NotJoined(not) => not.into(),
            NotStored::Database(error) => error.into(),
        }
    }
}
