//! The audit log: who changed what, with what was before and after; filters are in the address, as the API's.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::audit::{self, AuditQuery, Verified};
use crate::api::input::Query;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::system::{self, AuditChain};
use crate::app::App;
use crate::caller::Caller;
use crate::store::audit_log::{COUNTED, Entry};
use crate::web::frame::Frame;
use crate::web::{self, settings, words};

/// Lines of a change that are shown; the export has all.
const LINES: usize = 12;
/// Characters of a value, likewise.
const VALUE_CHARS: usize = 160;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    asked: Asked,
    page: Page<Entry>,
    chain: AuditChain,
    /// Of the button that was pressed.
    verified: Option<Verified>,
}

/// What is asked for. A form sends its empty fields too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    actor: String,
    action: String,
    subject_kind: String,
    subject_id: String,
    request_id: String,
    from: String,
    to: String,
    cursor: String,
}

impl Asked {
    /// The filters that are set: name, what it is called, value.
    fn set(&self) -> Vec<(&'static str, &'static str, &str)> {
        let all = [
            ("actor", "who", self.actor.as_str()),
            ("action", "what", &self.action),
            ("subject_kind", "kind", &self.subject_kind),
            ("subject_id", "target", &self.subject_id),
            ("request_id", "request", &self.request_id),
            ("from", "from", &self.from),
            ("to", "to", &self.to),
        ];
        let set = all
            .into_iter()
            .filter(|(_, _, value)| !value.trim().is_empty());
        set.collect()
    }

    fn query(&self) -> Result<AuditQuery, Problem> {
        Ok(AuditQuery {
            actor: settings::said(&self.actor),
            action: settings::said(&self.action),
            subject_kind: settings::said(&self.subject_kind),
            subject_id: settings::said(&self.subject_id),
            request_id: settings::said(&self.request_id),
            from: instant("from", &self.from)?,
            to: instant("to", &self.to)?,
            cursor: settings::said(&self.cursor),
            ..AuditQuery::default()
        })
    }

    fn link(&self, page: &str, but: &str, more: &[(&str, &str)]) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        for (name, _, value) in self.set() {
            if name != but {
                // The API's addresses have whole times.
                let at = matches!(name, "from" | "to").then(|| instant(name, value).ok().flatten());
                let whole = at.flatten().map(|at| words::utc(&at));
                pairs.push((name, whole.unwrap_or_else(|| value.trim().to_owned())));
            }
        }
        pairs.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let query = serde_html_form::to_string(pairs).unwrap_or_default();
        format!("{page}?{query}")
    }
}

/// A time as RFC 3339 has it, or the beginning of one, in UTC: what browsers' fields send.
fn instant(name: &str, text: &str) -> Result<Option<OffsetDateTime>, Problem> {
    let Some(text) = settings::said(text) else {
        return Ok(None);
    };
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text,
    };
    let parsed = OffsetDateTime::parse(&whole, &Rfc3339);
    parsed
        .map(Some)
        .map_err(|_| Problem::parameter(name, "must be a time, as 2026-01-31T12:00"))
}

/// A line of a change.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// Where in the documents: `host.tags`.
    place: String,
    before: Option<String>,
    after: Option<String>,
}

impl AuditPage {
    /// The list without a filter.
    fn without(&self, name: &str) -> String {
        self.asked.link("/audit", name, &[])
    }

    fn export(&self, format: &str) -> String {
        self.asked.link("/api/v1/audit", "", &[("format", format)])
    }

    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_deref()?;
        Some(self.asked.link("/audit", "", &[("cursor", cursor)]))
    }

    fn of(&self, name: &str, value: &str) -> String {
        self.asked.link("/audit", name, &[(name, value)])
    }

    /// As browsers' fields take it: UTC, to the minute.
    fn field(text: &str) -> String {
        let at = instant("", text).ok().flatten();
        let utc = at.map(|at| words::utc(&at.to_offset(time::UtcOffset::UTC)));
        let minute = utc.as_deref().and_then(|utc| utc.get(..16));
        minute.unwrap_or_default().to_owned()
    }

    /// Of a host's or a change's page.
    fn subject(entry: &Entry) -> Option<String> {
        match entry.subject_kind.as_str() {
            "host" => Some(format!("/hosts/{}", entry.subject_id)),
            "change" if entry.action != "change.delete" => {
                Some(format!("/changes/{}", entry.subject_id))
            }
            _ => None,
        }
    }

    /// As many as are shown.
    fn shown(lines: &[Line]) -> &[Line] {
        lines.get(..LINES).unwrap_or(lines)
    }

    /// And how many are not.
    fn more(lines: &[Line]) -> usize {
        lines.len().saturating_sub(LINES)
    }

    fn lines(entry: &Entry) -> Vec<Line> {
        let parsed = |document: &Option<sqlx::types::Json<Box<serde_json::value::RawValue>>>| {
            let text = document.as_ref().map(|document| document.0.get());
            text.and_then(|text| serde_json::from_str(text).ok())
        };
        lines(
            parsed(&entry.before).as_ref(),
            parsed(&entry.after).as_ref(),
        )
    }
}

/// What differs; where one of the two is not there, all of the other.
fn lines(before: Option<&Value>, after: Option<&Value>) -> Vec<Line> {
    let mut places: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    let mut leaves = Vec::new();
    if let Some(before) = before {
        flatten("", before, &mut leaves);
    }
    for (place, value) in leaves.drain(..) {
        places.entry(place).or_default().0 = Some(value);
    }
    if let Some(after) = after {
        flatten("", after, &mut leaves);
    }
    for (place, value) in leaves {
        places.entry(place).or_default().1 = Some(value);
    }
    let differs = places
        .into_iter()
        .filter(|(_, (before, after))| before != after);
    let line = |(place, (before, after))| Line {
        place,
        before,
        after,
    };
    differs.map(line).collect()
}

/// The values of a document with their places. Lists are values: their order says something.
fn flatten(place: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let below = if place.is_empty() {
                    name.clone()
                } else {
                    format!("{place}.{name}")
                };
                flatten(&below, value, leaves);
            }
        }
        Value::String(text) => leaves.push((place.to_owned(), cut(text))),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            leaves.push((place.to_owned(), cut(&value.to_string())));
        }
    }
}

/// Two long values that begin alike still differ.
fn cut(text: &str) -> String {
    let short: String = text.chars().take(VALUE_CHARS).collect();
    if short.len() == text.len() {
        return short;
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let hash = hash.as_str().get(..8).unwrap_or_default();
    format!("{short}… ({} bytes, {hash})", text.len())
}

/// `GET /audit`, with the same parameters as the API's list.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    show(&app, frame, asked, None).await
}

/// `POST /audit/verify`: as the API's; the page shows what came of it.
pub async fn verify(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let verified = audit::verified(&app, &caller).await?;
    show(&app, frame, Asked::default(), Some(verified)).await
}

async fn show(
    app: &App,
    frame: Frame,
    asked: Asked,
    verified: Option<Verified>,
) -> Result<Response, Problem> {
    let page = AuditPage {
        page: audit::rows(app, &asked.query()?).await?,
        chain: system::chain(app).await?,
        frame,
        asked,
        verified,
    };
    Ok(web::page(&page.frame, &page))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_what_differs_at_its_place() {
        let before = json!({"name": "a", "host": {"tags": ["x"], "owner": null}, "same": 1});
        let after = json!({"name": "b", "host": {"tags": ["x", "y"], "owner": "o"}, "same": 1});
        let shown: Vec<_> = lines(Some(&before), Some(&after))
            .into_iter()
            .map(|line| (line.place, line.before, line.after))
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            shown,
            [
                ("host.owner".to_owned(), None, some("o")),
                (
                    "host.tags".to_owned(),
                    some("[\"x\"]"),
                    some("[\"x\",\"y\"]")
                ),
                ("name".to_owned(), some("a"), some("b")),
            ]
        );
        let long = |end: &str| json!(format!("{}{end}", "x".repeat(1000)));
        assert_eq!(lines(Some(&long("a")), Some(&long("b"))).len(), 1);
        assert!(lines(None, None).is_empty());
    }

    #[test]
    fn times_are_taken_as_browsers_send_them() {
        let of = |text: &str| instant("from", text).map(|at| at.map(|at| words::utc(&at)));
        for text in [
            "2026-01-31",
            "2026-01-31T00:00",
            "2026-01-31T00:00:00",
            "2026-01-31T01:00:00+01:00",
        ] {
            let at = of(text).expect("a time").expect("is there");
            assert_eq!(
                at.get(..16),
                Some(if text.contains('+') {
                    "2026-01-31T01:00"
                } else {
                    "2026-01-31T00:00"
                })
            );
        }
        assert!(of("yesterday").is_err());
        assert!(of("é2026-01-3").is_err());
        assert_eq!(of(" ").expect("nothing"), None);
    }
}
