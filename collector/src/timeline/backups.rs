//! A run of a backup, in words: of which volume, how it ended, and why not well.

use serde_json::Value;

use super::packages::Words;

/// The words for a run in this state.
pub(super) fn words(state: &str, body: Option<&Value>) -> Words {
    let text = |field: &str| body?.get(field)?.as_str().filter(|text| !text.is_empty());
    let count = |field: &str| body?.get(field)?.as_u64().filter(|count| *count > 0);
    let volume = text("volume").unwrap_or("a volume");
    let (ended, tone) = match state {
        "ok" => ("made", "good"),
        "incomplete" => ("incomplete", "warn"),
        "failed" => ("failed", "bad"),
        "running" => ("under way", "neutral"),
        other => (other, "neutral"),
    };
    let mut detail: Vec<String> = Vec::new();
    detail.extend(text("reason").map(|reason| reason.replace('_', " ")));
    detail.extend(text("detail").map(ToOwned::to_owned));
    detail.extend(count("errors_total").map(|errors| format!("{errors} could not be read")));
    detail.extend(count("files").map(|files| format!("{files} files")));
    Words {
        title: format!("Backup of {volume}: {ended}"),
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        by: None,
        tone,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::words;

    #[test]
    fn a_run_says_how_it_ended_and_why() {
        let body = json!({"volume": "etc", "reason": null, "detail": null, "files": 120, "errors_total": 0});
        let ok = words("ok", Some(&body));
        assert_eq!(ok.title, "Backup of etc: made");
        assert_eq!(ok.detail.as_deref(), Some("120 files"));
        let body = json!({"volume": "db", "reason": "exit_code", "detail": "it ended with 1"});
        let failed = words("failed", Some(&body));
        assert_eq!(failed.title, "Backup of db: failed");
        assert_eq!(failed.detail.as_deref(), Some("exit code; it ended with 1"));
        assert_eq!(failed.tone, "bad");
        let unknown = words("paused", None);
        assert_eq!(unknown.title, "Backup of a volume: paused");
    }
}
