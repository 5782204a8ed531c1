//! Light, dark, or as the system has it: kept in a cookie, so that a page is drawn right at once and without script.

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::SET_COOKIE;
use serde::Deserialize;

use crate::api::problem::Problem;
use crate::web;
use crate::web::frame::{THEME_COOKIE, Theme};

/// A year.
const LIFETIME_S: u32 = 31_536_000;

/// The buttons' form.
#[derive(Debug, Deserialize)]
pub struct Wish {
    theme: String,
    #[serde(default)]
    next: String,
}

/// `POST /theme`: back to the page that it was chosen on.
pub async fn choose(form: Result<Form<Wish>, FormRejection>) -> Result<Response, Problem> {
    let Form(wish) = form?;
    let Some(theme) = Theme::parse(&wish.theme) else {
        return Err(Problem::field("/theme", "is system, light or dark"));
    };
    let cookie = format!(
        "{THEME_COOKIE}={}; Path=/; Max-Age={LIFETIME_S}; SameSite=Strict; HttpOnly",
        theme.name()
    );
    let back = Redirect::to(web::local(&wish.next));
    Ok(([(SET_COOKIE, cookie)], back).into_response())
}
