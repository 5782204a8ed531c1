//! Certificates: what hosts prove who they are with, until when; an admin revokes one, with the reason.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use crate::api::certificates::{self, CertificatesQuery};
use crate::api::input::{Path, Query};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::store::agent_certs::CertificateRow;
use crate::web::frame::Frame;
use crate::web::{self, settings, words};

/// The lists, with what they are called.
const STATES: [(&str, &str); 5] = [
    ("", "all"),
    ("valid", "valid"),
    ("expiring", "end within 14 days"),
    ("expired", "expired"),
    ("revoked", "revoked"),
];
const SOON: Duration = Duration::days(14);

#[derive(Template)]
#[template(path = "settings/certificates.html")]
struct CertificatesPage {
    frame: Frame,
    page: Page<CertificateRow>,
    state: String,
    q: String,
    host_id: String,
    is_first: bool,
}

impl CertificatesPage {
    fn link(&self, state: &str, cursor: &str) -> String {
        let pairs = [
            ("state", state),
            ("q", self.q.as_str()),
            ("host_id", self.host_id.as_str()),
            ("cursor", cursor),
        ];
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let query = serde_html_form::to_string(pairs.collect::<Vec<_>>()).unwrap_or_default();
        format!("/settings/certificates?{query}")
    }

    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_ref()?;
        Some(self.link(&self.state, cursor))
    }

    fn is_filtered(&self) -> bool {
        !(self.state.is_empty() && self.q.is_empty() && self.host_id.is_empty())
    }

    /// A badge and its word.
    fn badge(row: &CertificateRow, now: &OffsetDateTime) -> (&'static str, &'static str) {
        if row.revoked_at.is_some() {
            ("bad", "revoked")
        } else if row.not_after <= *now {
            ("neutral", "expired")
        } else if row.not_after <= *now + SOON {
            ("warn", "ends soon")
        } else {
            ("good", "valid")
        }
    }

    /// How long it goes on.
    fn left(row: &CertificateRow, now: &OffsetDateTime) -> String {
        let left = (row.not_after - *now).whole_seconds();
        if left <= 0 {
            words::ago(&row.not_after, now)
        } else {
            format!("in {}", words::duration(left))
        }
    }

    fn is_usable(row: &CertificateRow, now: &OffsetDateTime) -> bool {
        row.revoked_at.is_none() && row.not_after > *now
    }
}

/// `GET /settings/certificates`, with the same parameters as the API's list.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let host_id = settings::said(&asked.host_id).map(|id| id.parse());
    let query = CertificatesQuery {
        host_id: host_id
            .transpose()
            .map_err(|_| Problem::parameter("host_id", "is the id of no host"))?,
        state: settings::said(&asked.state),
        q: settings::said(&asked.q),
        limit: None,
        cursor: settings::said(&asked.cursor),
    };
    let page = CertificatesPage {
        frame,
        page: certificates::rows(&app, query).await?,
        state: asked.state,
        q: asked.q,
        host_id: asked.host_id,
        is_first: asked.cursor.is_empty(),
    };
    Ok(web::page(&page.frame, &page))
}

/// A form sends its empty fields too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    state: String,
    q: String,
    host_id: String,
    cursor: String,
}

/// Why.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RevokeForm {
    reason: String,
}

/// `POST /settings/certificates/{serial}/revoke`.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(serial): Path<String>,
    form: Result<Form<RevokeForm>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let row = certificates::revoke_one(&app, &caller, &serial, Some(&form.reason)).await?;
    let to = format!("/settings/certificates?host_id={}", row.host_id);
    Ok(Redirect::to(&to).into_response())
}
