//! What a Host page's URL says: which part of the timeline, which time of the charts, which facts. Every link of the
//! page is this with something changed.

use infratrack_shared::ids::HostId;
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time};

use crate::api::hosts::metrics::MetricsQuery;
use crate::api::hosts::timeline::TimelineQuery;
use crate::api::problem::Problem;
use crate::web::plain::encoded;

/// The ranges that have a link.
pub const RANGES: [(&str, Duration); 6] = [
    ("1h", Duration::HOUR),
    ("6h", Duration::hours(6)),
    ("24h", Duration::DAY),
    ("7d", Duration::days(7)),
    ("30d", Duration::days(30)),
    ("1y", Duration::days(365)),
];
const DEFAULT_RANGE: &str = "24h";

/// The parameters of the page; a form sends its empty fields too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostPageQuery {
    /// Kinds of the timeline, more than once or with commas.
    pub kinds: Vec<String>,
    pub before: String,
    pub after: String,
    pub around: String,
    pub cursor: String,
    pub range: String,
    pub from: String,
    pub to: String,
    /// What facts are searched for.
    pub q: String,
}

/// A parameter of the page's URL that is a time.
pub fn instant(name: &str, text: &str) -> Result<Option<OffsetDateTime>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Some(at));
    }
    // As browsers send their fields for times.
    let minute = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let second = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let day = format_description!("[year]-[month]-[day]");
    let spaced = text.replacen(' ', "T", 1);
    let parsed = PrimitiveDateTime::parse(&spaced, minute)
        .or_else(|_| PrimitiveDateTime::parse(&spaced, second))
        .or_else(|_| Date::parse(text, day).map(|day| day.with_time(Time::MIDNIGHT)));
    parsed
        .map(|at| Some(at.assume_utc()))
        .map_err(|_| Problem::parameter(name, "must be a time like 2026-01-31T12:00, in UTC"))
}

/// The instant in a URL, to the second.
pub fn text(at: OffsetDateTime) -> String {
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

impl HostPageQuery {
    /// The kinds that were asked for, each once.
    pub fn kinds(&self) -> Vec<&str> {
        let names = self.kinds.iter().flat_map(|kinds| kinds.split(','));
        let mut kinds: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Whether the timeline is not as it is without a word.
    pub fn has_place(&self) -> bool {
        let words = [&self.before, &self.after, &self.around, &self.cursor];
        words.iter().any(|word| !word.is_empty())
    }

    /// What the API's timeline is asked.
    pub fn timeline(&self) -> Result<TimelineQuery, Problem> {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(TimelineQuery {
            kinds: some(&self.kinds().join(",")),
            before: instant("before", &self.before)?,
            after: instant("after", &self.after)?,
            around: instant("around", &self.around)?,
            limit: None,
            cursor: some(&self.cursor),
        })
    }

    /// What the API's metrics are asked, and the name of the range where it is one of [`RANGES`].
    pub fn metrics(&self, now: OffsetDateTime) -> Result<(MetricsQuery, &'static str), Problem> {
        let (from, to) = (instant("from", &self.from)?, instant("to", &self.to)?);
        if from.is_some() || to.is_some() {
            let query = MetricsQuery {
                from,
                to,
                points: None,
            };
            return Ok((query, ""));
        }
        let asked = if self.range.is_empty() {
            DEFAULT_RANGE
        } else {
            &self.range
        };
        let found = RANGES.iter().find(|(name, _)| *name == asked);
        let (name, range) = found.ok_or_else(|| {
            let names = RANGES.map(|(name, _)| name).join(", ");
            Problem::parameter("range", format!("must be one of {names}"))
        })?;
        let query = MetricsQuery {
            from: Some(now - *range),
            to: None,
            points: None,
        };
        Ok((query, name))
    }

    /// The page's URL with something changed, at one of its sections.
    pub fn link(&self, host: HostId, section: &str, change: impl FnOnce(&mut Self)) -> String {
        let mut query = self.clone();
        change(&mut query);
        let kinds = query.kinds().join(",");
        let pairs = [
            ("kinds", &kinds),
            ("before", &query.before),
            ("after", &query.after),
            ("around", &query.around),
            ("cursor", &query.cursor),
            ("range", &query.range),
            ("from", &query.from),
            ("to", &query.to),
            ("q", &query.q),
        ];
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<_> = pairs
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let query = if pairs.is_empty() {
            String::new()
        } else {
            format!("?{}", pairs.join("&"))
        };
        format!("/hosts/{host}{query}#{section}")
    }

    /// Forgets where in the timeline it is.
    pub fn forget_place(&mut self) {
        for word in [
            &mut self.before,
            &mut self.after,
            &mut self.around,
            &mut self.cursor,
        ] {
            word.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_read_as_browsers_and_people_write_them() {
        let noon = datetime!(2026-01-31 12:00 UTC);
        for text in [
            "2026-01-31T12:00",
            "2026-01-31 12:00",
            "2026-01-31T12:00:00",
            "2026-01-31T13:00:00+01:00",
            " 2026-01-31T12:00:00Z ",
        ] {
            assert_eq!(instant("around", text).unwrap(), Some(noon), "{text}");
        }
        let midnight = datetime!(2026-01-31 0:00 UTC);
        assert_eq!(instant("around", "2026-01-31").unwrap(), Some(midnight));
        assert_eq!(instant("around", "").unwrap(), None);
        assert_eq!(instant("around", "noon").unwrap_err().status, 400);
    }

    #[test]
    fn a_link_keeps_what_it_does_not_change() {
        let query = HostPageQuery {
            kinds: vec!["task,gap".to_owned(), "gap".to_owned()],
            range: "7d".to_owned(),
            cursor: "x".to_owned(),
            q: "a&b".to_owned(),
            ..HostPageQuery::default()
        };
        let host = HostId(uuid::Uuid::nil());
        let link = query.link(host, "timeline", |query| {
            query.forget_place();
            query.before = "2026-01-31T12:00:00Z".to_owned();
        });
        let expected =
            "?kinds=gap%2Ctask&before=2026-01-31T12%3A00%3A00Z&range=7d&q=a%26b#timeline";
        assert_eq!(link, format!("/hosts/{host}{expected}"));
        let read: HostPageQuery =
            serde_html_form::from_str(expected.trim_start_matches('?').split('#').next().unwrap())
                .unwrap();
        assert_eq!(
            (read.kinds(), read.q.as_str()),
            (vec!["gap", "task"], "a&b")
        );
        assert!(read.has_place() && read.metrics(OffsetDateTime::UNIX_EPOCH).is_ok());
        let bare = HostPageQuery::default().link(host, "facts", |_| {});
        assert_eq!(bare, format!("/hosts/{host}#facts"));
    }
}
