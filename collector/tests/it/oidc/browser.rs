//! As much of a browser as a login takes: cookies, redirects, forms.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use openidconnect::url::Url;

use super::URL;
use crate::harness::Collector;

pub(crate) struct Browser {
    collector: SocketAddr,
    /// By host and port.
    cookies: HashMap<String, BTreeMap<String, String>>,
}

/// What the browser shows.
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) set_cookies: Vec<String>,
}

impl Browser {
    pub(crate) fn new(collector: &Collector) -> Self {
        Self {
            collector: collector.server.addresses.operators,
            cookies: HashMap::new(),
        }
    }

    /// A cookie of the collector's.
    pub(crate) fn cookie(&mut self, name: &str) -> Option<&mut String> {
        let ours = self.cookies.get_mut("infratrack.example")?;
        ours.get_mut(name)
    }

    pub(crate) fn forget(&mut self, name: &str) {
        if let Some(cookies) = self.cookies.get_mut("infratrack.example") {
            cookies.remove(name);
        }
    }

    async fn send(&mut self, method: Method, url: &Url, form: Option<&str>) -> Response<Bytes> {
        let host = url
            [openidconnect::url::Position::BeforeHost..openidconnect::url::Position::AfterPort]
            .to_owned();
        let address = if url.as_str().starts_with(URL) {
            self.collector
        } else {
            host.parse().unwrap()
        };
        let cookies = self.cookies.entry(host.clone()).or_default();
        let pairs: Vec<_> = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let path = &url
            [openidconnect::url::Position::BeforePath..openidconnect::url::Position::AfterQuery];
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &host);
        if !pairs.is_empty() {
            request = request.header(COOKIE, pairs.join("; "));
        }
        if form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(Bytes::from(form.unwrap_or_default().to_owned()));
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let response = sender
            .send_request(request.body(body).unwrap())
            .await
            .unwrap();
        for set in response.headers().get_all(SET_COOKIE) {
            let text = set.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// One request; where it leads is the second of what it answers.
    pub(crate) async fn step(&mut self, url: &Url, form: Option<&str>) -> (Page, Option<Url>) {
        let method = if form.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let response = self.send(method, url, form).await;
        let location = response.headers().get(LOCATION);
        let location = location.map(|to| url.join(to.to_str().unwrap()).unwrap());
        let set_cookies = response.headers().get_all(SET_COOKIE).iter();
        let page = Page {
            url: url.clone(),
            status: response.status().as_u16(),
            text: String::from_utf8_lossy(response.body()).into_owned(),
            set_cookies: set_cookies
                .map(|set| set.to_str().unwrap().to_owned())
                .collect(),
        };
        (page, location)
    }

    /// Follows redirects, up to one that leads to a path with `stop` in it.
    async fn follow(&mut self, url: Url, form: Option<&str>, stop: Option<&str>) -> Page {
        let (mut page, mut next) = self.step(&url, form).await;
        for _ in 0..20 {
            let Some(to) = next else {
                return page;
            };
            if stop.is_some_and(|stop| to.path().contains(stop)) {
                page.url = to;
                return page;
            }
            (page, next) = self.step(&to, None).await;
        }
        panic!("too many redirects, at last to {}", page.url);
    }

    /// Goes to a path of the collector, without following.
    pub(crate) async fn get(&mut self, path: &str) -> (Page, Option<Url>) {
        self.step(&Url::parse(URL).unwrap().join(path).unwrap(), None)
            .await
    }

    /// Logs in at the real provider, from a path of the collector to the callback's answer, or up to the callback where
    /// `stop` says so. Answers what is shown and which forms were filled in.
    pub(crate) async fn log_in(
        &mut self,
        path: &str,
        name: &str,
        stop: bool,
    ) -> (Page, Vec<String>) {
        let stop = stop.then_some("/login/oidc/callback");
        let url = Url::parse(URL).unwrap().join(path).unwrap();
        let mut page = self.follow(url, None, stop).await;
        let mut forms = Vec::new();
        while let Some(form) = between(&page.text, "<form", "</form>") {
            if page.url.as_str().starts_with(URL) {
                break;
            }
            let action = between(form, "action=\"", "\"").unwrap();
            let mut fields = hidden(form);
            let prompt = fields.iter().find(|(name, _)| name == "prompt");
            forms.push(prompt.map_or("other".to_owned(), |(_, prompt)| prompt.clone()));
            fields.push(("login".to_owned(), name.to_owned()));
            fields.push(("password".to_owned(), "any".to_owned()));
            let filled = Url::parse_with_params("http://form", fields).unwrap();
            let body = filled.query().unwrap().to_owned();
            let action = page.url.join(action).unwrap();
            page = self.follow(action, Some(&body), stop).await;
            assert!(forms.len() < 5, "{forms:?}");
        }
        (page, forms)
    }
}

/// What a form sends that nobody fills in.
fn hidden(form: &str) -> Vec<(String, String)> {
    let value = |input: &str, of: &str| Some(between(input, &format!("{of}=\""), "\"")?.to_owned());
    form.split("<input")
        .filter(|input| input.contains("type=\"hidden\""))
        .filter_map(|input| Some((value(input, "name")?, value(input, "value")?)))
        .collect()
}

/// The text between two others.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}
