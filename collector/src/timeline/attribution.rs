//! Whose doing it was: what changed on a host while a change went on there is held to be that change's, and what a tool of
//! the host's own did by itself is that tool's. What nobody can be named for is unattributed.
//!
//! Of one page of items, by one statement. It is a guess by time: what else happened to change meanwhile counts as the
//! change's, too.

use infratrack_shared::ids::HostId;
use serde_json::Value;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::Item;
use crate::store::timeline::around::{self, Around, Margins};

/// How far around a change is, the times of one that somebody wrote down included.
pub const MARGINS: Margins = Margins {
    // The clocks of the host and of where the run was may differ by so much.
    before: Duration::minutes(5),
    // Package managers write their logs at the end, and inventories and facts are told some minutes later.
    after: Duration::minutes(15),
    // No run takes a week, and what is said to take longer explains nothing.
    longest: Duration::WEEK,
};

/// What installs by itself on a host, as transactions of packages name it.
const AUTOMATIC: [&str; 4] = [
    "unattended-upgrades",
    "unattended-upgrade",
    "dnf-automatic",
    "yum-cron",
];

/// Facts that say what is around a host, or what follows from another change of it: nobody changes them.
const FOLLOWING: [&str; 5] = [
    "facts.package_logs",
    "facts.reboot",
    "facts.sensors",
    "facts.time",
    "facts.updates",
];

/// Names for each change of packages and facts the change that it happened during, or says that there is none.
pub async fn attribute(
    connection: &mut PgConnection,
    host: HostId,
    items: &mut [Item],
) -> sqlx::Result<()> {
    let mut moments: Vec<_> = items
        .iter()
        .filter(|item| wants_one(item))
        .map(|item| item.at)
        .collect();
    moments.sort_unstable();
    moments.dedup();
    if moments.is_empty() {
        return Ok(());
    }
    let found = around::list(connection, host, &moments, MARGINS).await?;
    for item in items.iter_mut().filter(|item| wants_one(item)) {
        name(item, find(&found, &moments, item.at));
    }
    Ok(())
}

fn find<'a>(
    found: &'a [Around],
    moments: &[OffsetDateTime],
    at: OffsetDateTime,
) -> Option<&'a Around> {
    let nth = moments.binary_search(&at).ok()?;
    found
        .iter()
        .find(|around| usize::try_from(around.nth) == Ok(nth + 1))
}

fn name(item: &mut Item, around: Option<&Around>) {
    item.unattributed = around.is_none();
    if let Some(around) = around {
        item.change_id = Some(around.change_id);
        item.run_id = around.run_id;
        item.change_title = Some(around.title.clone());
    }
}

/// Whether it is a change that somebody should have made.
fn wants_one(item: &Item) -> bool {
    match item.kind {
        "package" => automatic(item.body.as_ref()).is_none(),
        "fact" => !is_first(item) && !FOLLOWING.contains(&item.what.as_str()),
        _ => false,
    }
}

/// A fact that the host told first, as it tells all of them when it is enrolled: nothing changed.
pub fn is_first(item: &Item) -> bool {
    let was_there = item.body.as_ref().and_then(|body| body.get("was_there"));
    item.kind == "fact" && was_there.and_then(Value::as_bool) == Some(false)
}

/// The tool that did a transaction by itself, where the transaction says so: by what ran it, by who asked for it, or by the
/// program of its command line.
pub fn automatic(body: Option<&Value>) -> Option<&'static str> {
    let text = |field: &str| body?.get(field)?.as_str();
    let mut words = text("command").unwrap_or_default().split_ascii_whitespace();
    let mut program = || {
        words
            .next()
            .map(|word| word.rsplit('/').next().unwrap_or(word))
    };
    let first = program();
    let run = match first {
        Some(name) if name.starts_with("python") => program(),
        name => name,
    };
    let said = [text("via"), text("requested_by"), run];
    let mut known = AUTOMATIC.into_iter();
    known.find(|tool| said.contains(&Some(*tool)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_is_automatic_where_it_says_so() {
        let cases = [
            (json!({"via": "unattended-upgrades"}), true),
            (json!({"requested_by": "dnf-automatic"}), true),
            (
                json!({"command": "/usr/bin/python3 /usr/bin/unattended-upgrade --debug"}),
                true,
            ),
            (json!({"command": "/usr/sbin/yum-cron"}), true),
            (
                json!({"command": "apt-get install unattended-upgrades"}),
                false,
            ),
            (json!({"command": "python3"}), false),
            (json!({"via": "ansible", "requested_by": "ada"}), false),
            (json!({"via": 7}), false),
            (json!(null), false),
        ];
        for (body, expected) in cases {
            assert_eq!(automatic(Some(&body)).is_some(), expected, "{body}");
        }
        assert_eq!(automatic(None), None);
    }
}
