//! The columns of the Hosts page: which there are, which are shown, by which the list can be sorted.
//!
//! What is shown is a few bits, so that rows that look the same are made once for all who watch them.

use crate::api::problem::Problem;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub title: &'static str,
    /// The sort it is a header of.
    pub sort: &'static str,
    /// Sorted the other way round first.
    pub is_number: bool,
}

const fn column(name: &'static str, title: &'static str, sort: &'static str) -> Column {
    Column {
        name,
        title,
        sort,
        is_number: false,
    }
}

const fn number(name: &'static str, title: &'static str, sort: &'static str) -> Column {
    Column {
        name,
        title,
        sort,
        is_number: true,
    }
}

/// The host's name.
pub const NAME: Column = column("host", "Host", "name");

/// Every column but the host's name, in the order in which they stand.
pub const COLUMNS: [Column; 17] = [
    column("status", "Status", "status"),
    column("why", "Why", ""),
    column("last_seen", "Last seen", "last_seen_at"),
    number("cpu", "CPU", "cpu_ratio"),
    number("memory", "Memory", "memory_used_ratio"),
    number("disk", "Disk", "disk_used_ratio"),
    column("tags", "Tags", ""),
    column("agent", "Agent", "agent_version"),
    column("environment", "Environment", ""),
    column("owner", "Owner", ""),
    column("os", "System", ""),
    column("addresses", "Addresses", ""),
    number("units", "Failed units", ""),
    number("skew", "Clock", ""),
    column("certificate", "Certificate until", ""),
    column("created", "Since", "created_at"),
    column("origin", "From", ""),
];

/// Those that are shown where nobody chose.
const USUAL: [&str; 8] = [
    "status",
    "why",
    "last_seen",
    "cpu",
    "memory",
    "disk",
    "tags",
    "agent",
];
/// Rows can be selected.
const SELECTS: u32 = 1 << 31;

/// Which columns are shown, and whether rows can be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown(u32);

impl Default for Shown {
    fn default() -> Self {
        Self::of(|name| USUAL.contains(&name))
    }
}

impl Shown {
    fn of(is_shown: impl Fn(&str) -> bool) -> Self {
        let bits = COLUMNS
            .iter()
            .enumerate()
            .map(|(place, column)| u32::from(is_shown(column.name)) << place);
        Self(bits.sum())
    }

    /// Reads names with commas; none: the usual ones.
    pub fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let names: Vec<_> = text.split(',').map(str::trim).collect();
        let known = |name: &&str| COLUMNS.iter().any(|column| column.name == *name);
        // Nothing but the name.
        let names: Vec<_> = names.into_iter().filter(|name| *name != "host").collect();
        if !names.iter().all(known) {
            let all: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
            let detail = format!("must be some of host, {}", all.join(", "));
            return Err(Problem::parameter("columns", detail));
        }
        Ok(Self::of(|name| names.contains(&name)))
    }

    /// With boxes to select rows by, or without.
    pub fn selecting(self, selects: bool) -> Self {
        Self(self.0 & !SELECTS | if selects { SELECTS } else { 0 })
    }

    /// Whether rows can be selected.
    pub fn selects(self) -> bool {
        self.0 & SELECTS != 0
    }

    /// Whether a column is shown.
    pub fn has(self, name: &str) -> bool {
        self.columns().any(|column| column.name == name)
    }

    /// Those that are shown.
    pub fn columns(self) -> impl Iterator<Item = &'static Column> {
        COLUMNS
            .iter()
            .enumerate()
            .filter(move |(place, _)| self.0 >> place & 1 == 1)
            .map(|(_, column)| column)
    }

    /// How the URL says it.
    pub fn text(self) -> String {
        let names: Vec<_> = self.columns().map(|column| column.name).collect();
        if names.is_empty() {
            "host".to_owned()
        } else {
            names.join(",")
        }
    }

    /// All of it in a number.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// What [`Shown::bits`] was of.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_comes_back_from_its_text_and_its_bits() {
        let shown = Shown::parse(Some("os,status , disk")).unwrap();
        assert_eq!(shown.text(), "status,disk,os");
        assert!(shown.has("os") && !shown.has("cpu") && !shown.selects());
        let selecting = Shown::from_bits(shown.selecting(true).bits());
        assert!(selecting.selects());
        assert_eq!(selecting.text(), shown.text());
        assert_eq!(selecting.selecting(false), shown);
        assert_eq!(Shown::parse(None).unwrap(), Shown::default());
        assert_eq!(Shown::parse(Some("host")).unwrap().text(), "host");
        assert!(Shown::parse(Some("hostname")).is_err());
    }
}
