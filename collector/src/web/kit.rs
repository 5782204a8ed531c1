//! `/_kit`: every part that pages are made of, in each of its states; what tests and people look at when one is changed.

use askama::Template;
use axum::response::Response;

use crate::web;
use crate::web::frame::Frame;

#[derive(Template)]
#[template(path = "kit.html")]
struct KitPage {
    frame: Frame,
}

impl KitPage {
    /// A long word, as hosts may be called.
    fn long() -> String {
        "a-very-long-name-without-a-place-to-break-".repeat(6)
    }
}

/// `GET /_kit`.
pub async fn page(frame: Frame) -> Response {
    web::page(&frame.clone(), &KitPage { frame })
}
