//! The settings, the audit log and the search as people with a browser use them.

mod audit;
mod credentials;
mod password;
mod places;
mod users;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use infratrack_collector::api::csrf;
use serde_json::json;

use crate::harness::Collector;
use crate::operators::logins::{self, PASSWORD};
use crate::ui;

/// An answer.
struct Page {
    status: StatusCode,
    /// Where it sends to; empty where nowhere.
    to: String,
    text: String,
}

impl Page {
    fn has(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "{text:?} is not in {}", self.text);
        self
    }

    fn lacks(&self, text: &str) -> &Self {
        assert!(!self.text.contains(text), "{text:?} is in {}", self.text);
        self
    }

    fn is(&self, status: StatusCode) -> &Self {
        assert_eq!(self.status, status, "{} {}", self.to, self.text);
        self
    }

    fn sends_to(&self, to: &str) {
        assert_eq!(
            (self.status, self.to.as_str()),
            (StatusCode::SEE_OTHER, to),
            "{}",
            self.text
        );
    }

    /// What stands between two texts.
    fn between(&self, before: &str, after: &str) -> &str {
        let (_, rest) = self.text.split_once(before).unwrap();
        rest.split_once(after).unwrap().0
    }
}

/// Somebody's browser.
struct Browser<'a> {
    collector: &'a Collector,
    cookie: String,
    csrf: String,
}

impl<'a> Browser<'a> {
    /// A user of that role, logged in.
    async fn of(collector: &'a Collector, name: &str, role: &str) -> Self {
        logins::user(collector, name, role).await;
        Self::log_in(collector, name, PASSWORD).await.unwrap()
    }

    async fn log_in(collector: &'a Collector, name: &str, password: &str) -> Option<Self> {
        let body = serde_html_form::to_string([("name", name), ("password", password)]).unwrap();
        let request = Request::builder()
            .method(Method::POST)
            .uri("/login")
            .header("host", "test")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)));
        let response = collector.request(request.unwrap()).await;
        let cookie = response.headers().get(SET_COOKIE)?.to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let csrf = csrf::token(cookie.split_once('=').unwrap().1);
        Some(Self {
            collector,
            cookie,
            csrf,
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Page {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test")
            .header(ACCEPT, "text/html")
            .header(COOKIE, &self.cookie);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Bytes::from(body.unwrap_or_default());
        let request = request.header("content-length", body.len());
        let response = self
            .collector
            .request(request.body(Full::new(body)).unwrap())
            .await;
        let to = response.headers().get(LOCATION);
        Page {
            status: response.status(),
            to: to.map_or("", |to| to.to_str().unwrap()).to_owned(),
            text: String::from_utf8_lossy(response.body()).into_owned(),
        }
    }

    async fn get(&self, path: &str) -> Page {
        self.send(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let mut fields = fields.to_vec();
        fields.push(("csrf", &self.csrf));
        let body = serde_html_form::to_string(fields).unwrap();
        self.send(Method::POST, path, Some(body)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_the_audit_log_the_search_and_the_keys_work_in_a_browser() {
    ui::play(&ui::collector().await, "settings", json!({})).await;
}
