//! What happened, in words: a title, a line of detail and a tone for a row of each source. A source that has no arm
//! here is shown as it is.

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::{Item, attribution, backups, changes, diff, of_event, packages};
use crate::store::timeline::Row;
use crate::store::timeline::Source;

/// Characters of a title, and of a detail, at most.
const TITLE: usize = 120;
const DETAIL: usize = 300;

/// Kind, title, detail, tone.
struct Told {
    kind: &'static str,
    title: String,
    detail: Option<String>,
    by: Option<String>,
    tone: &'static str,
}

fn told(kind: &'static str, tone: &'static str, title: impl Into<String>) -> Told {
    Told {
        kind,
        title: title.into(),
        detail: None,
        by: None,
        tone,
    }
}

impl Told {
    fn with(mut self, detail: Option<String>) -> Self {
        self.detail = detail.filter(|detail| !detail.is_empty());
        self
    }
}

/// A row as an item of the timeline.
pub fn item(source: &Source, row: Row, now: OffsetDateTime) -> Item {
    let told = match source.name {
        "event" => event(&row),
        "gap" => gap(&row),
        "refused" => refused(&row),
        "downtime" => downtime(&row),
        "fact" => fact(&row),
        "command" => command(&row, now),
        "task" => task(&row),
        "package" => package(&row),
        "backup" => worded("backup", backups::words(&row.what, row.body.as_ref())),
        "drill" => worded(
            "drill",
            backups::drill(&row.what, row.by.as_deref(), row.body.as_ref()),
        ),
        "change" => worded("change", changes::words(&row.what, row.body.as_ref())),
        "issued" => told("certificate", "neutral", "Certificate issued").with(until(&row)),
        "revoked" => told("certificate", "bad", "Certificate revoked").with(text(&row, "reason")),
        "dropped" => told("conflict", "neutral", "The other machine is refused")
            .with(text(&row, "address").map(|address| format!("it last came from {address}"))),
        "audit" => audit(&row),
        _ => told(
            source.kinds.first().copied().unwrap_or("event"),
            "neutral",
            plain(&row.what),
        ),
    };
    let of_change = |field: &str| text(&row, field).filter(|_| told.kind == "change");
    let id = |field: &str| of_change(field)?.parse().ok();
    Item {
        change_id: id("change_id"),
        run_id: id("run_id"),
        change_title: of_change("title"),
        outcome: of_change("outcome"),
        unattributed: false,
        id: row.id,
        kind: told.kind,
        at: row.at,
        until: row.until,
        received_at: row.received_at,
        title: short(&told.title, TITLE),
        detail: told.detail.map(|detail| short(&detail, DETAIL)),
        by: row.by.or(told.by).map(|by| short(&by, TITLE)),
        tone: told.tone,
        what: row.what,
        body: row.body,
        is_cut: row.is_cut,
    }
}

fn event(row: &Row) -> Told {
    let kind = of_event(&row.what);
    match row.what.as_str() {
        "host_online" => told(kind, "good", "Online").with(silence(row)),
        "host_late" => told(kind, "warn", "Late").with(silence(row)),
        "host_offline" => told(kind, "bad", "Offline").with(silence(row)),
        "agent_start" => told(kind, "neutral", "Agent started")
            .with(text(row, "version").map(|version| format!("version {version}"))),
        "agent_stop" => match text(row, "reason").as_deref() {
            Some("shutdown") => told(kind, "neutral", "Host shuts down or reboots"),
            reason => told(kind, "neutral", "Agent stopped").with(reason.map(plain)),
        },
        "spool_damaged" => {
            told(kind, "bad", "The agent's queue was damaged").with(text(row, "detail"))
        }
        "certificate_renewed" => {
            let not_after = number(row, "not_after").map(|millis| millis / 1000);
            told(kind, "good", "Certificate in use")
                .with(not_after.and_then(instant).map(|at| format!("until {at}")))
        }
        "command_result" => {
            let outcome = text(row, "outcome").unwrap_or_else(|| "unknown".to_owned());
            let detail = text(row, "detail");
            told(
                kind,
                outcome_tone(&outcome),
                format!("Command: {}", plain(&outcome)),
            )
            .with(detail)
        }
        "package_transaction" => package(row),
        "boot" => boot(kind, row),
        "identity_conflict" => {
            let other = text(row, "other_address");
            told(kind, "bad", "Two machines report as this host").with(
                other.map(|address| format!("the other one from {address}; it was set apart")),
            )
        }
        "identity_split" => told(
            kind,
            "neutral",
            "The other machine became a host of its own",
        ),
        what => told(kind, "neutral", plain(what)).with(row.body.as_ref().map(Value::to_string)),
    }
}

fn boot(kind: &'static str, row: &Row) -> Told {
    let (is, was) = (text(row, "kernel"), text(row, "previous_kernel"));
    let mut title = match (text(row, "container"), is, was) {
        (Some(_), ..) => "The container's machine booted".to_owned(),
        (None, Some(is), Some(was)) if is != was => format!("Booted, kernel {is} (was {was})"),
        (None, Some(is), Some(_)) => format!("Booted, kernel {is} as before"),
        (None, Some(is), None) => format!("Booted, kernel {is}"),
        (None, None, _) => "Booted".to_owned(),
    };
    let (tone, word) = match text(row, "expected").as_deref() {
        Some("yes") => ("good", "after a shutdown in order"),
        Some("no") => {
            title.push_str(", unexpected");
            ("bad", "not shut down in order")
        }
        _ => ("neutral", "whether it was shut down in order is not known"),
    };
    let evidence = part(row, "evidence").and_then(Value::as_array);
    let evidence = evidence.into_iter().flatten().filter_map(Value::as_str);
    let said: Vec<_> = std::iter::once(word).chain(evidence).collect();
    told(kind, tone, title).with(Some(said.join("; ")))
}

fn package(row: &Row) -> Told {
    let mut words = packages::words(row.body.as_ref());
    let tool = || attribution::automatic(row.body.as_ref()).map(ToOwned::to_owned);
    words.by = words.by.or_else(tool);
    worded("package", words)
}

fn worded(kind: &'static str, words: packages::Words) -> Told {
    Told {
        kind,
        title: words.title,
        detail: words.detail,
        by: words.by,
        tone: words.tone,
    }
}

fn silence(row: &Row) -> Option<String> {
    let reason = text(row, "reason")?;
    Some(match reason.as_str() {
        "unknown" => "why is not known".to_owned(),
        "shutdown" => "the host was shut down".to_owned(),
        "network" => "only the network was silent: agent and host ran on".to_owned(),
        _ => reason,
    })
}

fn gap(row: &Row) -> Told {
    let (from, to) = (number(row, "from_seq"), number(row, "to_seq"));
    let count = from
        .zip(to)
        .map_or(0, |(from, to)| to.saturating_sub(from).saturating_add(1));
    let what = match text(row, "class").as_deref() {
        Some("critical") => plural(count, "event record", "event records"),
        _ => plural(count, "heartbeat", "heartbeats"),
    };
    told("gap", "warn", format!("{what} lost for good")).with(Some(plain(&row.what)))
}

fn refused(row: &Row) -> Told {
    let title = format!(
        "A record of kind {} was refused",
        plain(&short(&row.what, 60))
    );
    told("gap", "warn", title).with(text(row, "error"))
}

fn downtime(row: &Row) -> Told {
    let lasted = row.until.map(|until| length(until - row.at));
    let title = match lasted {
        Some(lasted) => format!("No collector ran for {lasted}"),
        None => "No collector ran".to_owned(),
    };
    let detail = "silence in this time says nothing of the host; its agent kept what it could";
    told("downtime", "warn", title).with(Some(detail.to_owned()))
}

fn fact(row: &Row) -> Told {
    let is = |field: &str| {
        part(row, field)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    };
    let key = short(&row.what, 80);
    match (is("was_there"), is("is_there")) {
        (false, _) => told("fact", "neutral", format!("{key} was told first")),
        (true, false) => told("fact", "neutral", format!("{key} is gone")),
        (true, true) => told("fact", "neutral", format!("{key} changed")).with(differences(row)),
    }
}

/// What differs, where both sides are short enough to be there.
fn differences(row: &Row) -> Option<String> {
    let side = |field: &str| part(row, field).filter(|value| !value.is_null());
    let (was, is) = (side("was")?, side("is")?);
    let (found, more) = diff::diff(Some(was), Some(is));
    let tell = |value: &Option<Value>| match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => short(text, 40),
        Some(value) => short(&value.to_string(), 40),
    };
    let first = found.iter().take(3);
    let mut told: Vec<_> = first
        .map(|d| {
            let place = d.path.trim_start_matches('/').replace('/', ".");
            let sides = format!("{} → {}", tell(&d.was), tell(&d.is));
            if place.is_empty() {
                sides
            } else {
                format!("{}: {sides}", short(&place, 60))
            }
        })
        .collect();
    let rest = found.len().saturating_sub(told.len()) + more;
    if rest > 0 {
        told.push(format!("{rest} more"));
    }
    Some(told.join("; "))
}

fn command(row: &Row, now: OffsetDateTime) -> Told {
    let title = match row.what.as_str() {
        "refresh_facts" => "Asked for all facts".to_owned(),
        "renew" => "Asked to renew the certificate".to_owned(),
        what => format!("Asked to {}", plain(what)),
    };
    let is = |field: &str| {
        part(row, field)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    };
    let expires_at = number(row, "expires_at").unwrap_or(i64::MAX);
    let (tone, state) = if let Some(outcome) = text(row, "outcome") {
        let detail = text(row, "detail").map_or(String::new(), |detail| format!(": {detail}"));
        (
            outcome_tone(&outcome),
            format!("{}{detail}", plain(&outcome)),
        )
    } else if is("is_confirmed") {
        ("neutral", "the agent has it".to_owned())
    } else if expires_at <= now.unix_timestamp() {
        ("warn", "expired before the agent took it".to_owned())
    } else {
        ("neutral", "waits for the agent".to_owned())
    };
    told("command", tone, title).with(Some(state))
}

fn outcome_tone(outcome: &str) -> &'static str {
    match outcome {
        "done" => "good",
        "failed" | "interrupted" => "bad",
        _ => "warn",
    }
}

fn task(row: &Row) -> Told {
    let status = text(row, "status").unwrap_or_default();
    let tone = match status.as_str() {
        "done" => "good",
        "failed" => "bad",
        _ => "neutral",
    };
    let kind = text(row, "kind").map_or(String::new(), |kind| format!("{}, ", plain(&kind)));
    told("task", tone, row.what.clone()).with(Some(format!("{kind}{}", plain(&status))))
}

fn audit(row: &Row) -> Told {
    let title = match row.what.as_str() {
        "host.update" => "Edited".to_owned(),
        "host.retire" => "Retired".to_owned(),
        "host.unretire" => "Brought back".to_owned(),
        "host.merge" => "Merged into another host".to_owned(),
        "host.revoke" => "All certificates revoked".to_owned(),
        "host.create" => "Made without an agent".to_owned(),
        "host.missing" => "Its inventory no longer lists it".to_owned(),
        what => {
            let words = what.trim_start_matches("host.").replace(['.', '_'], " ");
            let mut letters = words.chars();
            let first = letters
                .next()
                .map(|letter| letter.to_uppercase().to_string());
            first.unwrap_or_default() + letters.as_str()
        }
    };
    // Of what is new, all fields are.
    let is_change = part(row, "before").is_some_and(Value::is_object);
    let fields = part(row, "after").and_then(Value::as_object);
    let fields = fields.filter(|_| is_change);
    let fields = fields.map(|fields| {
        fields
            .keys()
            // Which fields are an operator's follows from the others.
            .filter(|key| *key != "edited")
            .map(|key| plain(key))
            .collect::<Vec<_>>()
            .join(", ")
    });
    told("audit", "neutral", title).with(fields)
}

fn until(row: &Row) -> Option<String> {
    let at = number(row, "not_after").and_then(instant)?;
    Some(format!("valid until {at}"))
}

fn part<'a>(row: &'a Row, field: &str) -> Option<&'a Value> {
    row.body.as_ref()?.get(field)
}

fn text(row: &Row, field: &str) -> Option<String> {
    part(row, field)?.as_str().map(ToOwned::to_owned)
}

fn number(row: &Row, field: &str) -> Option<i64> {
    part(row, field)?.as_i64()
}

fn instant(unix_s: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(unix_s).ok()?;
    at.format(&Rfc3339).ok()
}

fn plain(word: &str) -> String {
    word.replace('_', " ")
}

fn plural(count: i64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn length(duration: Duration) -> String {
    match duration.whole_seconds() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The text, or its beginning.
fn short(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::store::timeline::sources::ALL;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn shown(source: &str, what: &str, body: Value) -> (String, String, &'static str) {
        let source = ALL.iter().find(|known| known.name == source).unwrap();
        let row = Row {
            id: String::new(),
            at: NOW,
            until: Some(NOW + Duration::minutes(7)),
            received_at: None,
            what: what.to_owned(),
            by: None,
            body: Some(body),
            is_cut: false,
        };
        let item = item(source, row, NOW);
        assert!(source.kinds.contains(&item.kind), "{}", item.kind);
        (item.title, item.detail.unwrap_or_default(), item.tone)
    }

    #[test]
    fn what_happened_reads_as_a_sentence() {
        let lost = json!({"class": "critical", "from_seq": 4, "to_seq": 6});
        let (title, detail, _) = shown("gap", "disk_full", lost);
        assert_eq!(
            (title.as_str(), detail.as_str()),
            ("3 event records lost for good", "disk full")
        );
        let (title, _, tone) = shown("downtime", "collector", json!(null));
        assert_eq!(
            (title.as_str(), tone),
            ("No collector ran for 7 min", "warn")
        );
        let late = json!({"from": "online", "reason": "unknown"});
        assert_eq!(shown("event", "host_late", late).1, "why is not known");
        let changed = json!({"was_there": true, "is_there": true,
            "was": {"a": {"b": 1}, "c": [], "d": 1, "e": 1}, "is": {"a": {"b": "x"}, "c": [2], "d": 2, "e": 2}});
        let (title, detail, _) = shown("fact", "facts.os", changed);
        assert_eq!(title, "facts.os changed");
        assert_eq!(detail, "a.b: 1 → x; c.0: nothing → 2; d: 1 → 2; 1 more");
        assert_eq!(
            shown("audit", "host.key_replaced", json!({})).0,
            "Key replaced"
        );
    }

    #[test]
    fn a_boot_names_its_kernel_and_whether_it_was_expected() {
        let (title, detail, tone) = shown(
            "event",
            "boot",
            json!({"kernel": "6.1.0-28", "previous_kernel": "6.1.0-27", "expected": "yes",
                "evidence": ["wtmp has a shutdown before this boot"]}),
        );
        assert_eq!(
            (title.as_str(), tone),
            ("Booted, kernel 6.1.0-28 (was 6.1.0-27)", "good")
        );
        assert_eq!(
            detail,
            "after a shutdown in order; wtmp has a shutdown before this boot"
        );
        let same = json!({"kernel": "6.1.0-28", "previous_kernel": "6.1.0-28", "expected": "no"});
        let (title, _, tone) = shown("event", "boot", same);
        assert_eq!(
            (title.as_str(), tone),
            ("Booted, kernel 6.1.0-28 as before, unexpected", "bad")
        );
        let container = json!({"container": "lxc", "kernel": "1", "previous_kernel": "2"});
        let (title, _, tone) = shown("event", "boot", container);
        assert_eq!(
            (title.as_str(), tone),
            ("The container's machine booted", "neutral")
        );
    }

    #[test]
    fn a_command_is_told_by_how_far_it_came() {
        let state = |body: Value| shown("command", "renew", body).1;
        let later = NOW.unix_timestamp() + 1;
        assert_eq!(state(json!({"expires_at": later})), "waits for the agent");
        assert_eq!(
            state(json!({"expires_at": later - 1})),
            "expired before the agent took it"
        );
        assert_eq!(
            state(json!({"expires_at": 0, "is_confirmed": true})),
            "the agent has it"
        );
        assert_eq!(
            state(json!({"outcome": "failed", "detail": "no key"})),
            "failed: no key"
        );
    }

    #[test]
    fn texts_from_agents_are_cut() {
        let long = "é".repeat(70_000);
        let (title, detail, _) = shown("event", &long, json!({"x": long}));
        assert_eq!(
            (title.chars().count(), detail.chars().count()),
            (TITLE + 1, DETAIL + 1)
        );
    }
}
