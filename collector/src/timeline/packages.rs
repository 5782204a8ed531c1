//! What a run of a package manager changed, in words; and what an inventory showed to have changed without a log.

use serde_json::Value;

/// Packages that are named in a line; of more, how many.
const NAMED: usize = 4;

/// What stands in the timeline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub title: String,
    pub detail: Option<String>,
    pub by: Option<String>,
    pub tone: &'static str,
}

/// The words for a transaction's body, or a short form of one that is too large.
pub(super) fn words(body: Option<&Value>) -> Words {
    let text = |field: &str| body?.get(field)?.as_str().map(ToOwned::to_owned);
    let changes = body.and_then(|body| body.get("changes")?.as_array());
    let changes = changes.map_or(&[][..], Vec::as_slice);
    let count = body.and_then(|body| body.get("change_count")?.as_u64());
    let count = count.and_then(|count| usize::try_from(count).ok());
    let (error, command) = (text("error"), text("command"));
    let mut title = match changes {
        [] => match count {
            Some(count) if count > 0 => format!("{count} packages changed"),
            _ => "A package manager ran".to_owned(),
        },
        [only] => told(only),
        many => summed(many),
    };
    if let (Some(part), Some(parts)) = (place(body, "part"), place(body, "parts")) {
        title = format!("{title} (part {} of {parts})", part + 1);
    }
    let broken: Vec<_> = changes.iter().filter_map(left).collect();
    let mut detail: Vec<String> = error
        .iter()
        .map(|error| format!("failed: {error}"))
        .collect();
    let has_failed = error.is_some() || !broken.is_empty();
    detail.extend(broken.into_iter().take(NAMED));
    detail.extend(command);
    if changes.len() > 1 {
        detail.push(named(changes));
    }
    Words {
        title,
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        by: by(text("requested_by"), text("via")),
        tone: if has_failed { "bad" } else { "neutral" },
    }
}

fn by(requested_by: Option<String>, via: Option<String>) -> Option<String> {
    match (requested_by, via) {
        (Some(user), Some(via)) => Some(format!("{user} by {via}")),
        (user, via) => user.or(via),
    }
}

fn place(body: Option<&Value>, field: &str) -> Option<u64> {
    body?.get(field)?.as_u64()
}

fn field<'a>(change: &'a Value, name: &str) -> Option<&'a str> {
    change.get(name)?.as_str()
}

/// One change: "Upgraded openssl 3.0.14 → 3.0.15".
fn told(change: &Value) -> String {
    let name = field(change, "name").unwrap_or("a package");
    let versions = match (field(change, "from"), field(change, "to")) {
        (Some(from), Some(to)) if from != to => format!(" {from} → {to}"),
        (_, Some(version)) | (Some(version), None) => format!(" {version}"),
        (None, None) => String::new(),
    };
    let action = field(change, "action").unwrap_or("other");
    format!("{} {name}{versions}", begun(verb(action)))
}

/// Many: "3 upgraded, 1 removed".
fn summed(changes: &[Value]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for change in changes {
        let verb = verb(field(change, "action").unwrap_or("other"));
        match counts.iter_mut().find(|(known, _)| *known == verb) {
            Some((_, count)) => *count += 1,
            None => counts.push((verb, 1)),
        }
    }
    let counts = counts.iter().map(|(verb, count)| format!("{count} {verb}"));
    format!("Packages: {}", counts.collect::<Vec<_>>().join(", "))
}

fn named(changes: &[Value]) -> String {
    let first = changes.iter().take(NAMED);
    let mut names: Vec<_> = first
        .map(|change| {
            let name = field(change, "name").unwrap_or("?");
            match (field(change, "from"), field(change, "to")) {
                (Some(from), Some(to)) => format!("{name} {from} → {to}"),
                (_, Some(version)) | (Some(version), None) => format!("{name} {version}"),
                (None, None) => name.to_owned(),
            }
        })
        .collect();
    if changes.len() > NAMED {
        names.push(format!("{} more", changes.len() - NAMED));
    }
    names.join(", ")
}

/// What a package was left as, where that is not whole.
fn left(change: &Value) -> Option<String> {
    let (name, left) = (field(change, "name")?, field(change, "left")?);
    Some(format!("{name} is left {left}"))
}

fn verb(action: &str) -> &str {
    match action {
        "released" => "released from hold",
        "broken" => "left half-installed",
        "mended" => "wholly installed",
        "other" => "changed",
        action => action,
    }
}

pub(super) fn begun(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_transaction_reads_as_what_was_done_by_whom() {
        let one = json!({"command": "apt-get install tool=2", "requested_by": "anna", "changes": [
            {"action": "upgraded", "name": "tool", "from": "1", "to": "2"}]});
        let words = super::words(Some(&one));
        assert_eq!(words.title, "Upgraded tool 1 → 2");
        assert_eq!(words.detail.as_deref(), Some("apt-get install tool=2"));
        assert_eq!((words.by.as_deref(), words.tone), (Some("anna"), "neutral"));

        let many = json!({"via": "unattended-upgrades", "error": "dpkg returned 1", "changes": [
            {"action": "upgraded", "name": "a", "from": "1", "to": "2"},
            {"action": "upgraded", "name": "b", "from": "1", "to": "2", "left": "unpacked"},
            {"action": "removed", "name": "c", "from": "1"}]});
        let words = super::words(Some(&many));
        assert_eq!(words.title, "Packages: 2 upgraded, 1 removed");
        assert_eq!(
            words.detail.as_deref(),
            Some("failed: dpkg returned 1; b is left unpacked; a 1 → 2, b 1 → 2, c 1")
        );
        assert_eq!(
            (words.by.as_deref(), words.tone),
            (Some("unattended-upgrades"), "bad")
        );
    }

    #[test]
    fn what_is_too_large_is_counted_and_what_is_odd_is_no_panic() {
        let large = json!({"change_count": 700, "part": 1, "parts": 3});
        assert_eq!(
            super::words(Some(&large)).title,
            "700 packages changed (part 2 of 3)"
        );
        let held = json!({"changes": [{"action": "held", "name": "tool", "to": "2"}]});
        assert_eq!(super::words(Some(&held)).title, "Held tool 2");
        for odd in [
            json!(null),
            json!({"changes": [7, {}]}),
            json!({"changes": 3}),
        ] {
            super::words(Some(&odd));
        }
    }
}
