//! What the Hosts page's URL asks for, and the URLs that ask for a little more or less: every filter, the sort and the
//! columns stand there, so that a link shows the same list to anybody.

use crate::api::hosts::query::HostsQuery;
use crate::api::problem::Problem;
use crate::api::views::COLUMNS;
use crate::web::hosts::columns::{Column, Shown};

/// A query string at most; as the API's.
const QUERY_BYTES: usize = 8 * 1024;
/// Values with commas: any of them.
const ANY_OF: [&str; 3] = ["status", "liveness", "reason"];
/// More than one may stand there.
const LISTS: [&str; 3] = ["tag", "not_tag", "id"];
/// What is no filter.
const NO_FILTERS: [&str; 6] = ["sort", COLUMNS, "cursor", "limit", "view", "fields"];

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// In the order in which they stand, without empty ones.
    pairs: Vec<(String, String)>,
    pub query: HostsQuery,
    pub shown: Shown,
    /// It stands in the URL as it would be written.
    pub is_canonical: bool,
}

/// A filter that holds, and the list without it.
#[derive(Clone, Debug)]
pub struct Chip {
    pub what: &'static str,
    pub value: String,
    pub without: String,
}

impl Asked {
    /// Reads a query string; forms send their empty fields too, and each ticked box on its own.
    pub fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let text = text.unwrap_or_default();
        if text.len() > QUERY_BYTES {
            return Err(Problem::invalid("the address is too long"));
        }
        let sent: Vec<(String, String)> =
            serde_html_form::from_str(text).map_err(|error| Problem::invalid(error.to_string()))?;
        Self::of(sent)
    }

    /// The same of pairs that a form sent.
    pub fn of(sent: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let is_canonical = sent.iter().all(|(_, value)| !value.is_empty());
        let mut is_joined = false;
        for (name, value) in sent {
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            let before = pairs.iter_mut().find(|(known, _)| *known == name);
            match before {
                Some((_, all)) if ANY_OF.contains(&name.as_str()) || name == COLUMNS => {
                    is_joined = true;
                    all.push(',');
                    all.push_str(value);
                }
                Some(_) if !LISTS.contains(&name.as_str()) => {
                    return Err(Problem::parameter(name, "stands there twice"));
                }
                _ if name == "tag" || name == "not_tag" => {
                    let tags = value.split(',').map(str::trim);
                    let tags = tags.filter(|tag| !tag.is_empty());
                    pairs.extend(tags.map(|tag| (name.clone(), tag.to_owned())));
                }
                _ => pairs.push((name, value.to_owned())),
            }
        }
        let columns = pairs.iter().find(|(name, _)| name == COLUMNS);
        let shown = Shown::parse(columns.map(|(_, names)| names.as_str()))?;
        let of_list = pairs
            .iter()
            .filter(|(name, _)| name != COLUMNS && name != "view");
        let of_list: Vec<_> = of_list.collect();
        let text = serde_html_form::to_string(&of_list).unwrap_or_default();
        let query: HostsQuery = serde_html_form::from_str(&text)
            .map_err(|error| Problem::invalid(error.to_string()))?;
        query.filter()?;
        query.sort()?;
        Ok(Self {
            pairs,
            query,
            shown,
            is_canonical: is_canonical && !is_joined,
        })
    }

    /// The values of a parameter.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let pairs = self.pairs.iter().filter(|(known, _)| known == name);
        pairs.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a parameter, or nothing.
    pub fn value(&self, name: &str) -> &str {
        self.values(name).first().copied().unwrap_or_default()
    }

    /// The tags that are to be there, or not, with commas.
    pub fn tags(&self, name: &str) -> String {
        self.values(name).join(", ")
    }

    /// Whether one of the values that may hold is this.
    pub fn is_any(&self, name: &str, value: &str) -> bool {
        self.value(name)
            .split(',')
            .any(|known| known.trim() == value)
    }

    /// Whether anything narrows the list down.
    pub fn is_filtered(&self) -> bool {
        self.pairs.iter().any(|(name, _)| is_filter(name))
    }

    /// Whether nothing but `name` narrows it down.
    pub fn is_filtered_beside(&self, name: &str) -> bool {
        let mut pairs = self.pairs.iter();
        pairs.any(|(known, _)| is_filter(known) && known != name)
    }

    /// Whether nothing at all was asked for.
    pub fn is_bare(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether it is a page after the first.
    pub fn is_later(&self) -> bool {
        !self.value("cursor").is_empty()
    }

    /// What is kept of it as a view, and what a bulk action's filter begins with: without the page.
    pub fn list(&self) -> String {
        self.written(|name| name != "cursor" && name != "limit" && name != "view")
    }

    /// Only what narrows the list down.
    pub fn filters(&self) -> String {
        self.written(is_filter)
    }

    /// The same as it would be written.
    pub fn canonical(&self) -> String {
        link(&self.written(|_| true))
    }

    /// The list itself: `/hosts?…`.
    pub fn here(&self) -> String {
        link(&self.list())
    }

    /// The same with one value in place of those that a parameter has; an empty one takes it away.
    pub fn with(&self, name: &str, value: &str) -> String {
        let mut pairs = self.but(|known, _| known != name);
        if !value.is_empty() {
            pairs.push((name.to_owned(), value.to_owned()));
        }
        link(&text(&pairs))
    }

    /// The next page.
    pub fn next(&self, cursor: &str) -> String {
        self.with("cursor", cursor)
    }

    /// All that match as CSV; by name where it is sorted by what changes meanwhile.
    pub fn csv(&self) -> String {
        let pairs = self.but(|name, value| {
            let sorts_by_name = value.trim_start_matches('-') == "name";
            name != COLUMNS && name != "view" && (name != "sort" || sorts_by_name)
        });
        let mut pairs = pairs;
        pairs.push(("format".to_owned(), "csv".to_owned()));
        format!("/api/v1/hosts?{}", text(&pairs))
    }

    /// The list sorted by a column, or where it is that, the other way round.
    pub fn sorted(&self, column: &Column) -> String {
        let back = format!("-{}", column.sort);
        let now = self.sort();
        let next = if now == column.sort {
            back.as_str()
        } else if now == back || !column.is_number {
            column.sort
        } else {
            back.as_str()
        };
        self.with("sort", next)
    }

    /// For `aria-sort`.
    pub fn order(&self, sort: &str) -> &'static str {
        let now = self.sort();
        match now.strip_prefix('-') {
            Some(column) if column == sort => "descending",
            None if now == sort => "ascending",
            _ => "none",
        }
    }

    fn sort(&self) -> &str {
        match self.value("sort") {
            "" => "name",
            sort => sort,
        }
    }

    /// The filters that hold.
    pub fn chips(&self) -> Vec<Chip> {
        let ids = self.values("id").len();
        let mut chips = Vec::new();
        if ids > 0 {
            chips.push(Chip {
                what: "chosen",
                value: format!("{ids} hosts"),
                without: self.with("id", ""),
            });
        }
        for (name, value) in self.pairs.iter().filter(|(name, _)| is_filter(name)) {
            if name == "id" {
                continue;
            }
            for one in values(name, value) {
                let rest: Vec<_> = values(name, value).filter(|other| *other != one).collect();
                let mut pairs = self.but(|known, old| known != name || old != value);
                if !rest.is_empty() {
                    pairs.push((name.clone(), rest.join(",")));
                }
                chips.push(Chip {
                    what: called(name),
                    value: one.trim().to_owned(),
                    without: link(&text(&pairs)),
                });
            }
        }
        chips
    }

    /// What a form that sends other fields has to send too.
    pub fn hidden(&self, but: &[&str]) -> Vec<(String, String)> {
        self.but(|name, _| name != "view" && !but.contains(&name))
    }

    /// Without the page, for it is of another list.
    fn but(&self, keep: impl Fn(&str, &str) -> bool) -> Vec<(String, String)> {
        let pairs = self.pairs.iter();
        pairs
            .filter(|(name, value)| name != "cursor" && keep(name, value))
            .cloned()
            .collect()
    }

    fn written(&self, keep: impl Fn(&str) -> bool) -> String {
        let pairs = self.pairs.iter().filter(|(name, _)| keep(name));
        text(&pairs.cloned().collect::<Vec<_>>())
    }
}

/// Whether a parameter narrows the list down.
pub fn is_filter(name: &str) -> bool {
    !NO_FILTERS.contains(&name)
}

/// Each value that may hold.
fn values<'a>(name: &str, value: &'a str) -> impl Iterator<Item = &'a str> {
    let apart = if ANY_OF.contains(&name) { ',' } else { '\0' };
    value.split(apart)
}

fn text(pairs: &[(String, String)]) -> String {
    serde_html_form::to_string(pairs).unwrap_or_default()
}

/// The page with a query.
pub fn link(query: &str) -> String {
    if query.is_empty() {
        // Not what somebody keeps as their usual view.
        return "/hosts?view=all".to_owned();
    }
    format!("/hosts?{query}")
}

/// Whether two queries ask for the same.
pub fn is_same(one: &str, other: &str) -> bool {
    let sorted = |text: &str| {
        let pairs = serde_html_form::from_str::<Vec<(String, String)>>(text);
        pairs.map(|mut pairs| {
            pairs.sort();
            pairs
        })
    };
    matches!((sorted(one), sorted(other)), (Ok(one), Ok(other)) if one == other)
}

/// What a filter is called.
fn called(name: &str) -> &'static str {
    match name {
        "q" => "search",
        "status" => "status",
        "liveness" => "liveness",
        "tag" => "tag",
        "not_tag" => "not tag",
        "owner" => "owner",
        "environment" => "environment",
        "origin" => "from",
        "os" => "system",
        "agent_version" => "agent",
        "address" => "address",
        "reason" => "reason",
        "certificate_days" => "certificate, days left",
        "state" => "state",
        "last_seen_before" => "last seen before",
        "last_seen_after" => "last seen after",
        "created_before" => "made before",
        "created_after" => "made after",
        _ => "filter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        Asked::parse(Some(text)).unwrap()
    }

    #[test]
    fn a_form_becomes_one_url_and_its_filters_can_be_taken_away_one_by_one() {
        assert!(Asked::parse(Some("status=fine")).is_err());
        assert!(Asked::parse(Some("owner=a&owner=b")).is_err());
        let list = asked(
            "q=web&status=unhealthy&status=degraded&tag=a,+b&owner=&columns=os&columns=cpu&cursor=c&sort=-name",
        );
        assert!(!list.is_canonical);
        assert_eq!(
            list.list(),
            "q=web&status=unhealthy%2Cdegraded&tag=a&tag=b&columns=os%2Ccpu&sort=-name"
        );
        let chips = list.chips();
        let words: Vec<_> = chips
            .iter()
            .map(|chip| (chip.what, chip.value.as_str()))
            .collect();
        assert_eq!(
            words,
            [
                ("search", "web"),
                ("status", "unhealthy"),
                ("status", "degraded"),
                ("tag", "a"),
                ("tag", "b")
            ]
        );
        assert_eq!(
            chips[1].without,
            "/hosts?q=web&tag=a&tag=b&columns=os%2Ccpu&sort=-name&status=degraded"
        );
        assert_eq!(
            chips[3].without,
            "/hosts?q=web&status=unhealthy%2Cdegraded&tag=b&columns=os%2Ccpu&sort=-name"
        );
        assert!(is_same("a=1&b=2", "b=2&a=1") && !is_same("a=1", "a=2"));
    }

    #[test]
    fn what_is_sorted_by_what_changes_is_exported_by_name() {
        let list = asked("tag=a&sort=-cpu_ratio&columns=os");
        assert_eq!(list.csv(), "/api/v1/hosts?tag=a&format=csv");
        assert_eq!(
            asked("sort=-name").csv(),
            "/api/v1/hosts?sort=-name&format=csv"
        );
        assert_eq!(asked("").here(), "/hosts?view=all");
        assert_eq!(asked("").order("name"), "ascending");
    }
}
