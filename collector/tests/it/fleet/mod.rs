//! What operators see of the whole fleet: the Overview, the list of hosts, its views and its live stream.

mod bulk;
mod first;
mod live;
mod overview;
mod page;
mod views;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;

use crate::harness::Collector;
use crate::hosts::call;

/// A token of that role, as a header.
async fn role(collector: &Collector, role: Role) -> String {
    let mut connection = collector.pool.acquire().await.unwrap();
    let new = NewToken::of_role(role.name(), role, "test");
    let made = token::create(&mut connection, &new, collector.clock.now()).await;
    format!("Bearer {}", made.unwrap().1)
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

/// A page as the administrator sees it.
async fn page(collector: &Collector, path: &str) -> String {
    let response = call(collector, Method::GET, path, &[], "").await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "{path}: {}",
        text(&response)
    );
    text(&response)
}

/// Sends a form as whoever has this header, or as the administrator.
async fn form(
    collector: &Collector,
    path: &str,
    who: Option<&str>,
    fields: &[(&str, &str)],
) -> Response<Bytes> {
    let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
    headers.extend(who.map(|who| ("authorization", who)));
    let body = serde_html_form::to_string(fields).unwrap();
    call(collector, Method::POST, path, &headers, &body).await
}

/// What stands between two marks in a page, each time.
fn between<'a>(html: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    let parts = html.split(begin).skip(1);
    parts.filter_map(|part| part.split(end).next()).collect()
}

/// An attribute's value as a browser reads it.
fn plain(attribute: &str) -> String {
    attribute
        .replace("&#38;", "&")
        .replace("&#34;", "\"")
        .replace("&#60;", "<")
        .replace("&#62;", ">")
}

/// The value of a hidden field.
fn hidden(html: &str, name: &str) -> String {
    let begin = format!("name=\"{name}\" value=\"");
    let values = between(html, &begin, "\"");
    plain(
        values
            .first()
            .unwrap_or_else(|| panic!("no field {name}: {html}")),
    )
}
