//! What tools and pipelines post: `/ingest`. Documents are read outside of the tasks that answer, some at a time.

pub mod ansible;
pub mod body;
pub mod terraform;

use http::{HeaderMap, StatusCode};

use crate::api::problem::Problem;
use crate::changes::claims::Claims;
use crate::runs::NotJoined;

/// Documents that are read at once; more wait for their turn.
pub const AT_ONCE: usize = 2;

/// What the headers claim of a run.
fn claims(headers: &HeaderMap) -> Result<Claims, Problem> {
    let find = |name: &str| {
        let value = match name {
            "traceparent" => headers.get(name),
            _ => headers.get(format!("infratrack-{name}")),
        };
        value.map(|value| value.to_str().unwrap_or("\u{1}"))
    };
    Claims::read(find).map_err(|bad| header(bad.name, bad.what))
}

/// 400 of a header.
fn header(name: &str, detail: impl std::fmt::Display) -> Problem {
    match name {
        "traceparent" => Problem::parameter(name, detail),
        _ => Problem::parameter(format!("Infratrack-{name}"), detail),
    }
}

impl From<NotJoined> for Problem {
    fn from(not: NotJoined) -> Self {
        match not {
            NotJoined::OtherRepository(detail) => {
                Self::new(StatusCode::FORBIDDEN, "other_repository", detail)
            }
            NotJoined::Database(error) => error.into(),
        }
    }
}
