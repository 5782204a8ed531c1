//! `POST /agent/v1/plays`: records of plays that a callback left on the host. Who ran them is who the certificate says brought
//! them; what they become is `crate::plays`.

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::HostId;
use infratrack_shared::limits;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::plays::{Plays, PlaysTaken, RejectedPlay};
use infratrack_shared::wire::problem::code;
use serde_json::Value;
use sqlx::error::DatabaseError;

use crate::agents::ingest::{invalid, too_many, unpacked};
use crate::agents::problem::Refusal;
use crate::app::App;
use crate::changes::play::Batch;
use crate::plays::{self, NotStored, Stored, readable};
use crate::runs::{Bringer, NotJoined};
use crate::store::hosts;

/// For an agent that comes while it is under way already.
const TURN: std::time::Duration = std::time::Duration::from_secs(1);

/// Stores records of one run. `body` is within [`limits::PLAYS_BYTES`].
pub async fn take(
    app: &App,
    host: HostId,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<PlaysTaken, Refusal> {
    let most = app.config.ingest.host_batches_per_second;
    app.play_rates.take(host).map_err(|wait| {
        let detail = format!("more than {most} requests with plays a second");
        too_many(detail, wait)
    })?;
    let turn = app.play_turns.begin(host);
    let _turn = turn.ok_or_else(|| too_many("one request with plays at a time", TURN))?;
    may_bring(app, host).await?;
    let (request, bytes) = decode(headers, &body)?;
    drop(body);
    let first_seq = request.first_seq;
    let acked = |acked_seq: i64| PlaysTaken {
        acked_seq: u64::try_from(acked_seq).unwrap_or(0),
        rejected: None,
    };
    let answer = match plays::store(app, Bringer::Host(host), request).await {
        Ok(Stored::Taken(taken)) => Ok(("stored", acked(taken.acked_seq))),
        Ok(Stored::Missing { acked_seq }) => Ok(("refused", acked(acked_seq))),
        Err(not) => refused(not, first_seq).map(|taken| ("refused", taken)),
    };
    let outcome = match &answer {
        Ok((outcome, _)) => outcome,
        Err(refusal) if refusal.status.is_client_error() => "refused",
        Err(_) => "failed",
    };
    app.metrics.change_document("ansible", outcome, bytes, 0);
    answer.map(|(_, taken)| taken)
}

/// By its tags as they are now, for a run that has begun too.
async fn may_bring(app: &App, host: HostId) -> Result<(), Refusal> {
    let allowed = &app.config.changes;
    if allowed.takes_plays_from_every_host() {
        return Ok(());
    }
    let asked = async {
        let mut connection = app.pool.acquire().await?;
        hosts::has_tag(&mut connection, host, &allowed.plays_from).await
    };
    if asked.await.map_err(|error| unstored(&error))? {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        code::PLAYS_NOT_ALLOWED,
        "this host may not bring plays: it has none of the tags of changes.plays_from",
    ))
}

/// What is wrong with one record is said of that record, all else of the request.
fn refused(not: NotStored, first_seq: u64) -> Result<PlaysTaken, Refusal> {
    let rejected = |index: usize, status: StatusCode, detail: String| PlaysTaken {
        acked_seq: first_seq - 1,
        rejected: Some(RejectedPlay {
            seq: first_seq + index as u64,
            status: status.as_u16(),
            detail,
        }),
    };
    match not {
        NotStored::Record(bad) if bad.is_large => {
            Ok(rejected(bad.index, StatusCode::PAYLOAD_TOO_LARGE, bad.what))
        }
        NotStored::Record(bad) => Ok(rejected(
            bad.index,
            StatusCode::UNPROCESSABLE_ENTITY,
            bad.what,
        )),
        NotStored::Claim(bad) => Ok(rejected(
            0,
            StatusCode::UNPROCESSABLE_ENTITY,
            bad.to_string(),
        )),
        NotStored::AnotherToken => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            code::ANOTHER_TOKEN,
            "this run was begun by another host, or with a token",
        )),
        NotStored::NoRecords => Err(invalid(not)),
        // Hosts are bound to no repository.
        NotStored::NotJoined(NotJoined::OtherRepository(detail)) => Err(invalid(detail)),
        NotStored::NotJoined(NotJoined::Database(error)) | NotStored::Database(error) => {
            Err(unstored(&error))
        }
    }
}

fn unstored(error: &sqlx::Error) -> Refusal {
    // Class 22: a value that the database can't hold.
    let code = error.as_database_error().and_then(DatabaseError::code);
    if code.is_some_and(|code| code.starts_with("22")) {
        return invalid("a value of these records cannot be stored");
    }
    tracing::warn!(%error, "cannot store plays");
    Refusal::unavailable("the database did not take these records", 10)
}

/// A request within every limit, and its decoded size in bytes.
fn decode(headers: &HeaderMap, body: &[u8]) -> Result<(Batch, usize), Refusal> {
    let whole = unpacked(headers, body, limits::PLAYS_BYTES)?;
    let request: Plays = codec::decode(&whole, &Limits::bytes(limits::PLAYS_BYTES))
        .map_err(|error| invalid(format!("{:#}", anyhow::Error::from(error))))?;
    if request.protocol.abs_diff(PROTOCOL) > 1 || request.protocol == 0 {
        let detail = format!(
            "protocol {}: this collector speaks {PROTOCOL}",
            request.protocol
        );
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, code::PROTOCOL_UNSUPPORTED, detail));
    }
    if request.records.len() > limits::PLAYS_RECORDS {
        let most = limits::PLAYS_RECORDS;
        return Err(invalid(format!("has more than {most} records")));
    }
    if request.first_seq == 0 || i64::try_from(request.first_seq).is_err() {
        return Err(invalid("first_seq must be 1 or more"));
    }
    // What is no JSON is no record either, unless it was taken already.
    let read = |text: &String| serde_json::from_str(&readable(text)).unwrap_or(Value::Null);
    let batch = Batch {
        run: request.run.0,
        first_seq: request.first_seq,
        records: request.records.iter().map(read).collect(),
    };
    Ok((batch, whole.len()))
}
