//! API tokens: what programs log in with. The secret of a new one is on the page that makes it, and nowhere after.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use ipnet::IpNet;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use crate::api::input::{Path, Query};
use crate::api::page::{Page, PageQuery};
use crate::api::problem::Problem;
use crate::api::tokens::{self, Created, NewToken};
use crate::app::App;
use crate::caller::Caller;
use crate::login::token::{LIFETIME, MAX_LIFETIME};
use crate::roles::Role;
use crate::store::api_tokens::ApiTokenRow;
use crate::web::frame::Frame;
use crate::web::{self, settings, words};

/// A token that ends within this is about to.
const SOON: Duration = Duration::days(14);

#[derive(Template)]
#[template(path = "settings/tokens.html")]
struct TokensPage {
    frame: Frame,
    page: Page<ApiTokenRow>,
    is_first: bool,
}

impl TokensPage {
    /// A badge and its word.
    fn state(row: &ApiTokenRow, now: &OffsetDateTime) -> (&'static str, &'static str) {
        match row.expires_at {
            _ if row.revoked_at.is_some() => ("neutral", "revoked"),
            Some(at) if at <= *now => ("neutral", "expired"),
            Some(at) if at <= *now + SOON => ("warn", "ends soon"),
            _ => ("good", "valid"),
        }
    }

    fn is_over(row: &ApiTokenRow, now: &OffsetDateTime) -> bool {
        Self::state(row, now).0 == "neutral"
    }
}

#[derive(Template)]
#[template(path = "settings/token_new.html")]
struct NewTokenPage {
    frame: Frame,
    complaint: Option<String>,
    form: NewForm,
}

impl NewTokenPage {
    fn days(&self) -> String {
        let default = LIFETIME.whole_days().to_string();
        settings::said(&self.form.days).unwrap_or(default)
    }

    fn max_days() -> i64 {
        MAX_LIFETIME.whole_days()
    }

    fn is_role(&self, role: Role) -> bool {
        self.form.role == role.name()
    }
}

#[derive(Template)]
#[template(path = "settings/token_made.html")]
struct MadePage {
    frame: Frame,
    made: Created,
}

/// What the form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct NewForm {
    name: String,
    /// Empty: what the scopes allow.
    role: String,
    scope_backup: bool,
    scope_ingest: bool,
    days: String,
    cidr: String,
    repository: String,
}

/// `GET /settings/tokens`.
pub async fn list(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let page = TokensPage {
        frame,
        is_first: query.cursor.is_none(),
        page: tokens::rows(&app, &query).await?,
    };
    Ok(web::page(&page.frame, &page))
}

/// `GET /settings/tokens/new`.
pub async fn new(frame: Frame) -> Response {
    let page = NewTokenPage {
        frame,
        complaint: None,
        form: NewForm::default(),
    };
    web::page(&page.frame, &page)
}

/// `POST /settings/tokens`: the answer is the one place that has the token.
pub async fn create(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    form: Result<Form<NewForm>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let made = match body(&form) {
        Ok(body) => tokens::make(&app, &caller, &body).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(made) => {
            let page = MadePage { frame, made };
            Ok(web::page(&page.frame, &page))
        }
        Err(problem) if problem.status < 500 => {
            let page = NewTokenPage {
                frame,
                complaint: Some(settings::complaint(&problem)),
                form,
            };
            let status = problem.status_code();
            Ok((status, web::page(&page.frame, &page)).into_response())
        }
        Err(problem) => Err(problem),
    }
}

fn body(form: &NewForm) -> Result<NewToken, Problem> {
    let days = settings::said(&form.days).map(|days| days.parse::<i64>());
    let days = days
        .transpose()
        .map_err(|_| Problem::field("/days", "must be a whole number"))?;
    let max = MAX_LIFETIME.whole_days();
    if days.is_some_and(|days| !(1..=max).contains(&days)) {
        return Err(Problem::field("/days", format!("must be from 1 to {max}")));
    }
    let mut scopes = Vec::new();
    for (is_wanted, name) in [(form.scope_backup, "backup"), (form.scope_ingest, "ingest")] {
        if is_wanted {
            scopes.push(name.to_owned());
        }
    }
    Ok(NewToken {
        name: form.name.clone(),
        role: settings::said(&form.role),
        scopes,
        cidr: network(&form.cidr)?,
        repository: settings::said(&form.repository),
        lifetime_s: days.map(|days| days * 86_400),
    })
}

/// A network, or an address alone.
pub(super) fn network(text: &str) -> Result<Option<IpNet>, Problem> {
    let Some(text) = settings::said(text) else {
        return Ok(None);
    };
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    let network = alone.or_else(|_| text.parse::<IpNet>());
    network.map(Some).map_err(|_| {
        Problem::field(
            "/network",
            "must be an address or a network, as 192.0.2.0/24",
        )
    })
}

/// `POST /settings/tokens/{id}/revoke`.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    tokens::revoke(&app, &caller, &id).await?;
    Ok(Redirect::to("/settings/tokens").into_response())
}
