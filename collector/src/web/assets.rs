//! Style sheets, scripts and the browser's libraries, embedded in the binary. An address has the content's hash in it, so
//! that a browser asks for each once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::api::problem::Problem;

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Digits of the hash in an address.
const HASH_DIGITS: usize = 16;

macro_rules! own {
    ($name:literal) => {
        include_bytes!(concat!("../../static/", $name))
    };
}

macro_rules! library {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

/// All of them.
const ASSETS: &[(&str, &str, &[u8])] = &[
    ("style.css", CSS, own!("style.css")),
    ("kit.css", CSS, own!("kit.css")),
    ("tools.css", CSS, own!("tools.css")),
    ("hosts.css", CSS, own!("hosts.css")),
    ("app.js", SCRIPT, own!("app.js")),
    ("keys.js", SCRIPT, own!("keys.js")),
    ("palette.js", SCRIPT, own!("palette.js")),
    ("hosts.js", SCRIPT, own!("hosts.js")),
    ("live.js", SCRIPT, own!("live.js")),
    ("refresh.js", SCRIPT, own!("refresh.js")),
    ("host.css", CSS, own!("host.css")),
    ("host.js", SCRIPT, own!("host.js")),
    ("charts.js", SCRIPT, own!("charts.js")),
    ("icon.svg", SVG, own!("icon.svg")),
    ("uplot.js", SCRIPT, library!("uplot.js")),
    ("uplot.css", CSS, library!("uplot.css")),
];

static ADDRESSES: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let address = |(name, _, content): &(&'static str, &str, &[u8])| {
        let hash = blake3::hash(content).to_hex();
        (*name, format!("/static/{name}?v={}", &hash[..HASH_DIGITS]))
    };
    ASSETS.iter().map(address).collect()
});

/// Where a page finds one of them.
pub fn address(name: &str) -> &'static str {
    ADDRESSES
        .get(name)
        .map_or("/static/missing", String::as_str)
}

/// `GET /static/{file}`.
pub async fn file(Path(file): Path<String>) -> Response {
    let Some((_, content_type, content)) = ASSETS.iter().find(|(name, _, _)| *name == file) else {
        return Problem::missing("file", file).into_response();
    };
    let headers = [
        (CONTENT_TYPE, *content_type),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_changes_with_the_content() {
        let style = address("style.css");
        assert!(style.starts_with("/static/style.css?v="), "{style}");
        assert_eq!(style.len(), "/static/style.css?v=".len() + HASH_DIGITS);
        assert_eq!(address("none.js"), "/static/missing");
    }
}
