//! A change that touched the host, in words: what ran, what it was to the host, and how it ended.

use serde_json::Value;

use super::packages::{Words, begun};

/// Characters of a commit.
const COMMIT: usize = 12;

/// The words for a run's or a change's body.
pub(super) fn words(what: &str, body: Option<&Value>) -> Words {
    let text = |field: &str| body?.get(field)?.as_str().filter(|text| !text.is_empty());
    let title = text("title").unwrap_or("A change");
    let is_run = text("run_id").is_some();
    let mut detail = Vec::new();
    let title = if is_run {
        detail.push(title.to_owned());
        let is_check = body.and_then(|body| body.get("is_check")?.as_bool());
        let check = if is_check == Some(true) {
            " (check only)"
        } else {
            ""
        };
        let did = recap(body).or_else(|| links(body));
        let did = did.map_or(String::new(), |did| format!(": {did}"));
        format!("{}{check}{did}", begun(what))
    } else {
        title.to_owned()
    };
    detail.extend(text("repository").map(str::to_owned));
    detail.extend(text("pull_request").map(|number| format!("pull request {number}")));
    let commit = text("commit").map(|commit| commit.chars().take(COMMIT).collect::<String>());
    detail.extend(commit.map(|commit| format!("commit {commit}")));
    let sure = ["certain", "high"];
    let confidence = text("confidence").filter(|confidence| !sure.contains(confidence));
    detail.extend(confidence.map(|confidence| {
        let method = text("method").unwrap_or("its name").replace('_', " ");
        format!("linked to this host by {method}, {confidence} confidence")
    }));
    Words {
        title,
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        by: None,
        tone: tone(text("outcome").unwrap_or_default()),
    }
}

/// How an outcome is drawn.
fn tone(outcome: &str) -> &'static str {
    match outcome {
        "succeeded" => "good",
        "failed" => "bad",
        "interrupted" => "warn",
        _ => "neutral",
    }
}

/// What Ansible counted of the host: "3 changed, 12 ok".
fn recap(body: Option<&Value>) -> Option<String> {
    let recap = body?.get("recap")?;
    let count = |field: &str| recap.get(field).and_then(Value::as_u64).unwrap_or_default();
    let parts = [
        ("failures", "failed"),
        ("unreachable", "unreachable"),
        ("changed", "changed"),
        ("ok", "ok"),
    ];
    let parts = parts.map(|(field, word)| (count(field), word));
    let told = parts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<_> = told
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// What a run did to the resources that are the host, the first of them.
fn links(body: Option<&Value>) -> Option<String> {
    let first = body?.get("links")?.as_array()?.first()?;
    let text = |field: &str| first.get(field)?.as_str();
    let address = text("address").unwrap_or("a resource");
    let action = text("action").map(|action| match action {
        "delete_create" | "create_delete" => "replace".to_owned(),
        "no_op" => "no change of".to_owned(),
        action => action.replace('_', " "),
    });
    let told = match text("role") {
        Some("play") => return None,
        Some("drift") => format!("drift of {address}"),
        Some("affects") => format!(
            "{} {address}, which refers to it",
            action.unwrap_or_default()
        ),
        _ => format!("{} {address}", action.unwrap_or_default()),
    };
    let count = body?.get("link_count").and_then(Value::as_u64).unwrap_or(1);
    let more = match count {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Some(format!("{}{more}", told.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::words;

    fn told(what: &str, body: &serde_json::Value) -> (String, String, &'static str) {
        let words = words(what, Some(body));
        (words.title, words.detail.unwrap_or_default(), words.tone)
    }

    #[test]
    fn a_run_reads_as_what_it_was_to_the_host() {
        let apply = json!({"run_id": "r", "title": "Terraform apply of prod", "outcome": "failed", "confidence": "low",
            "method": "machine_id", "commit": "0123456789abcdef", "repository": "git.example/infra", "link_count": 3,
            "links": [{"role": "is", "address": "aws_instance.web", "action": "delete_create"}]});
        let (title, detail, tone) = told("terraform apply", &apply);
        assert_eq!(
            title,
            "Terraform apply: replace aws_instance.web and 2 more"
        );
        assert_eq!(
            detail,
            "Terraform apply of prod; git.example/infra; commit 0123456789ab; \
             linked to this host by machine id, low confidence"
        );
        assert_eq!(tone, "bad");
        let play = json!({"run_id": "r", "title": "Ansible play", "outcome": "succeeded", "is_check": true,
            "links": [{"role": "play", "address": "web1", "action": null}],
            "recap": {"ok": 12, "changed": 3, "failures": 0, "unreachable": 0}});
        let (title, _, tone) = told("ansible play", &play);
        assert_eq!(title, "Ansible play (check only): 3 changed, 12 ok");
        assert_eq!(tone, "good");
        let manual = json!({"run_id": null, "title": "New disk", "outcome": "unknown", "confidence": "certain"});
        let expected = ("New disk".to_owned(), String::new(), "neutral");
        assert_eq!(told("manual", &manual), expected);
    }

    #[test]
    fn what_is_odd_is_no_panic() {
        for odd in [
            json!(null),
            json!({"links": 7, "recap": [], "run_id": "r"}),
            json!({"links": [7], "run_id": "r", "recap": {"ok": "x"}}),
        ] {
            told("terraform plan", &odd);
        }
    }
}
