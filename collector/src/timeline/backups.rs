//! A run of a backup and a restore drill, in words: of which volume, how it ended, and why not well.

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

/// The words for a drill in this state.
pub(super) fn drill(state: &str, by: Option<&str>, body: Option<&Value>) -> Words {
    let text = |field: &str| body?.get(field)?.as_str().filter(|text| !text.is_empty());
    let count = |field: &str| body?.get(field)?.as_u64().filter(|count| *count > 0);
    let volume = text("volume").unwrap_or("a volume");
    let is_sampled = body.and_then(|body| body.get("is_sampled")?.as_bool()) == Some(true);
    let is_slow = count("restore_ms")
        .zip(count("rto_s"))
        .is_some_and(|(took_ms, rto_s)| took_ms > rto_s.saturating_mul(1000));
    let (ended, tone) = match state {
        "ok" if is_slow => ("restored, but too slowly", "warn"),
        "ok" => ("restored", "good"),
        "failed" => ("failed", "bad"),
        "running" => ("under way", "neutral"),
        other => (other, "neutral"),
    };
    let mut detail: Vec<String> = Vec::new();
    detail.extend(text("reason").map(|reason| reason.replace('_', " ")));
    detail.extend(text("detail").map(ToOwned::to_owned));
    detail.extend(count("mismatches").map(|differ| format!("{differ} differ")));
    detail.extend(count("files").map(|files| format!("{files} files")));
    detail.extend(is_sampled.then(|| "a sample".to_owned()));
    Words {
        title: format!("Drill of {volume}: {ended}"),
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        by: by.map(ToOwned::to_owned),
        tone,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{drill, words};

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
    #[test]
    fn a_drill_says_whether_it_could_be_restored_and_in_time() {
        let mut body = json!({"volume": "etc", "files": 120, "mismatches": 0, "restore_ms": 2000, "rto_s": 2,
            "is_sampled": false});
        let ok = drill("ok", None, Some(&body));
        assert_eq!(
            (ok.title.as_str(), ok.tone),
            ("Drill of etc: restored", "good")
        );
        assert_eq!(ok.detail.as_deref(), Some("120 files"));
        body["restore_ms"] = json!(2001);
        body["is_sampled"] = json!(true);
        let slow = drill("ok", Some("admin"), Some(&body));
        assert_eq!(slow.title, "Drill of etc: restored, but too slowly");
        assert_eq!(slow.detail.as_deref(), Some("120 files; a sample"));
        assert_eq!(slow.by.as_deref(), Some("admin"));
        let body = json!({"volume": "etc", "reason": "mismatch", "mismatches": 2});
        let failed = drill("failed", None, Some(&body));
        assert_eq!(
            (failed.title.as_str(), failed.tone),
            ("Drill of etc: failed", "bad")
        );
        assert_eq!(failed.detail.as_deref(), Some("mismatch; 2 differ"));
        assert_eq!(
            drill("running", None, None).title,
            "Drill of a volume: under way"
        );
    }
}
