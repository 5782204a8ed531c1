//! What every page has around its own part: title bar, navigation, theme, and what the page may load (its CSP).
//!
//! A handler takes a [`Frame`] and hands it to its template. What the navigation and `may` show comes from the table of
//! routes, so that a page offers what its reader is allowed and nothing else.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use time::OffsetDateTime;

use crate::api::requests;
use crate::app::App;
use crate::caller::Caller;
use crate::login::session;
use crate::web::{assets, words};

/// Keeps the reader's theme.
pub const THEME_COOKIE: &str = "theme";

/// The places of the navigation: where, and what it is called.
const PLACES: [(&str, &str); 8] = [
    ("/", "Overview"),
    ("/hosts", "Hosts"),
    ("/patches", "Patches"),
    ("/changes", "Changes"),
    ("/backups", "Backups"),
    ("/inventory", "Inventory"),
    ("/audit", "Audit"),
    ("/settings", "Settings"),
];

/// Light, dark, or as the system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    /// What it is called, in the cookie and in the style sheet.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The theme of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.name() == name)
    }
}

/// A place of the navigation.
#[derive(Debug)]
pub struct Place {
    pub address: &'static str,
    pub name: &'static str,
    pub is_current: bool,
}

/// What stands around a page.
#[derive(Clone, Debug)]
pub struct Frame {
    /// For a form's hidden field.
    pub csrf: String,
    /// Of this answer's scripts and style sheets.
    pub nonce: String,
    pub theme: Theme,
    pub now: OffsetDateTime,
    pub request_id: String,
    path: String,
    query: Option<String>,
    caller: Option<Caller>,
}

impl Frame {
    /// Of an answer to `caller`, or to nobody who is known.
    pub fn new(app: &App, headers: &HeaderMap, uri: &http::Uri, caller: Option<Caller>) -> Self {
        let theme = session::cookie_value(headers, THEME_COOKIE).and_then(Theme::parse);
        Self {
            csrf: caller.as_ref().map_or("", Caller::csrf).to_owned(),
            nonce: hex::encode(rand::random::<[u8; 16]>()),
            theme: theme.unwrap_or_default(),
            now: app.clock.now(),
            request_id: requests::current_id(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            caller,
        }
    }

    /// Whether the reader's role allows this route of the table.
    pub fn may(&self, method: &str, path: &str) -> bool {
        let caller = self.caller.as_ref();
        caller.is_some_and(|caller| caller.may_call(method, path))
    }

    /// Whether the page is for somebody who is logged in.
    pub fn has_reader(&self) -> bool {
        self.caller.is_some()
    }

    /// What the reader is called.
    pub fn reader(&self) -> &str {
        self.caller.as_ref().map_or("", |caller| &caller.name)
    }

    /// What the reader's role is called.
    pub fn role(&self) -> &'static str {
        self.caller.as_ref().map_or("none", Caller::role_name)
    }

    /// The navigation: the places that the reader may go to.
    pub fn places(&self) -> Vec<Place> {
        let is_current = |address: &str| {
            let below = self.path.strip_prefix(address);
            below.is_some_and(|rest| rest.is_empty() || (address != "/" && rest.starts_with('/')))
        };
        let place = |(address, name): (&'static str, &'static str)| Place {
            address,
            name,
            is_current: is_current(address),
        };
        let places = PLACES.into_iter();
        let allowed = places.filter(|(address, _)| self.may("GET", address));
        allowed.map(place).collect()
    }

    /// Where this page is, with its query.
    pub fn here(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// When the page was made, for scripts that count on from there.
    pub fn now_utc(&self) -> String {
        words::utc(&self.now)
    }

    /// Where a style sheet or script is.
    pub fn asset(&self, name: &str) -> &'static str {
        assets::address(name)
    }

    /// The themes, each with whether it is the reader's.
    pub fn themes(&self) -> [(&'static str, bool); 3] {
        Theme::ALL.map(|theme| (theme.name(), theme == self.theme))
    }

    /// What the page may load and run: what carries the nonce, and from here; nothing inline, nothing of others.
    pub fn policy(&self) -> String {
        let nonce = &self.nonce;
        format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
    }
}

impl FromRequestParts<Arc<App>> for Frame {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>().cloned();
        Ok(Self::new(app, &parts.headers, &parts.uri, caller))
    }
}
