//! The settings: pages beside a navigation of their own, which has what the reader's role allows.

pub mod access;
pub mod account;
pub mod certificates;
pub mod enrollment;
pub mod health;
pub mod sessions;
pub mod tokens;
pub mod users;
pub mod views;

use axum::response::Redirect;

use crate::api::problem::Problem;
use crate::web::frame::{Frame, Place};

/// The pages: where, and what it is called. One that has no route yet is not shown.
pub const PLACES: [(&str, &str); 10] = [
    ("/settings/account", "Your account"),
    ("/settings/sessions", "Sessions"),
    ("/settings/users", "Users"),
    ("/settings/roles", "Roles"),
    ("/settings/tokens", "API tokens"),
    ("/settings/enrollment", "Enrollment"),
    ("/settings/certificates", "Certificates"),
    ("/settings/views", "Saved views"),
    ("/inventory", "Inventory sources"),
    ("/settings/health", "System health"),
];

/// `GET /settings`.
pub async fn home() -> Redirect {
    Redirect::to("/settings/account")
}

/// The navigation, as the reader may use it.
pub fn side(frame: &Frame) -> Vec<Place> {
    let here = frame.here();
    let path = here.split('?').next().unwrap_or_default();
    let is_current = |address: &str| {
        let below = path.strip_prefix(address);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let allowed = PLACES
        .into_iter()
        .filter(|(address, _)| frame.may("GET", address));
    let place = |(address, name)| Place {
        address,
        name,
        is_current: is_current(address),
    };
    allowed.map(place).collect()
}

/// What is wrong, for a person who reads it beside a form.
pub fn complaint(problem: &Problem) -> String {
    let whole = problem.detail.as_ref().unwrap_or(&problem.title);
    match problem.errors.first() {
        Some(place) => {
            // Some details are sentences by themselves.
            let goes_on = ["must ", "is ", "goes "];
            if !goes_on.iter().any(|begin| place.detail.starts_with(begin)) {
                return capitalised(&place.detail);
            }
            let field = place.pointer.as_ref().or(place.parameter.as_ref());
            let field = field.map_or("", |field| field.trim_start_matches('/'));
            let sentence = format!("{} {}", field.replace('_', " "), place.detail);
            capitalised(sentence.trim())
        }
        None => capitalised(whole),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// A field that was left empty says nothing.
pub fn said(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_a_sentence() {
        let of = |problem: Problem| complaint(&problem);
        assert_eq!(
            of(Problem::field("/max_uses", "must be from 1 to 500")),
            "Max uses must be from 1 to 500"
        );
        let whole = Problem::field("/password", "a password has at least 12 characters");
        assert_eq!(of(whole), "A password has at least 12 characters");
        assert_eq!(of(Problem::invalid("it is empty")), "It is empty");
        assert_eq!(said(" "), None);
    }
}
