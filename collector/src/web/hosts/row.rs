//! A host's row on the Hosts page, the same whether the page brings it or the live stream.

use askama::Template;
use time::OffsetDateTime;

use crate::api::hosts::Host;
use crate::web::hosts::columns::Shown;
use crate::web::hosts::row;
use crate::web::words;

/// Tags, addresses and reasons that a row names; the host's page has all.
const MOST: usize = 4;
/// Characters of each of them.
const CHARS: usize = 80;

/// The row.
#[derive(Template)]
#[template(path = "hosts/row.html")]
pub struct Row<'a> {
    pub host: &'a Host,
    pub shown: Shown,
    pub now: OffsetDateTime,
}

impl Row<'_> {
    /// The row's HTML.
    pub fn html(&self) -> String {
        self.render().unwrap_or_default()
    }

    fn first(texts: &[String]) -> impl Iterator<Item = String> {
        texts.iter().take(MOST).map(|text| cut(text))
    }

    fn more(texts: &[String]) -> usize {
        texts.len().saturating_sub(MOST)
    }

    fn skew(skew_ms: i64) -> String {
        match skew_ms {
            short @ -999..=999 => format!("{short} ms"),
            long => format!("{:.1} s", long as f64 / 1000.0),
        }
    }
}

/// As much of a text as a row has room for.
pub fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut cut: String = chars.by_ref().take(CHARS).collect();
    if chars.next().is_some() {
        cut.push('…');
    }
    cut
}
