//! How parts of changes look: words, badges, and what differs in a resource.

use serde_json::Value;

use crate::store::change_runs::ResourceRow;
use crate::web::plain::line;

/// Attributes of a resource that are shown; the API has the rest.
const ATTRIBUTES: usize = 40;
/// Characters of a value.
const VALUE_CHARS: usize = 400;
/// A resource that differs in more is folded up.
const UNFOLDED: usize = 12;

/// The class of an outcome's badge.
pub fn outcome_tone(outcome: &str) -> &'static str {
    match outcome {
        "succeeded" | "complete" | "pass" => "good",
        "failed" | "interrupted" | "errored" | "unreachable" | "fail" | "error" => "bad",
        "running" | "started" | "changed" => "warn",
        "planned" | "ok" => "neutral",
        _ => "unknown",
    }
}

/// An action of a plan or an apply: the class of its badge, and its words.
pub fn action(action: &str) -> (&'static str, &str) {
    match action {
        "create" => ("good", "create"),
        "update" => ("warn", "change"),
        "delete" => ("bad", "destroy"),
        "delete_create" => ("bad", "destroy, then create"),
        "create_delete" => ("bad", "create, then destroy"),
        "create_forget" => ("good", "create, and forget the old one"),
        "forget" => ("neutral", "forget"),
        "read" => ("neutral", "read"),
        "no_op" => ("neutral", "stays"),
        "unrecognised" => ("unknown", "not known here"),
        other => ("neutral", other),
    }
}

/// What drifted: changed or gone outside of Terraform.
pub fn drifted(action: &str) -> (&'static str, &'static str) {
    match action {
        "delete" => ("bad", "deleted outside"),
        _ => ("warn", "changed outside"),
    }
}

/// The class of the badge of how sure a link is.
pub fn confidence_tone(confidence: &str) -> &'static str {
    match confidence {
        "certain" | "high" => "good",
        "medium" => "neutral",
        _ => "unknown",
    }
}

/// An address that a browser may be sent to.
pub fn web_address(text: &str) -> Option<&str> {
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    is_web.then_some(text)
}

/// As much of a commit's id as tells it from others.
pub fn short_commit(commit: &str) -> String {
    let is_hash = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    match commit.get(..12) {
        Some(short) if is_hash => short.to_owned(),
        _ => line(commit, 80),
    }
}

/// An attribute that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// `tags.Name`, `ingress[0].port`.
    pub path: String,
    pub was: Option<String>,
    pub is: Option<String>,
    /// What stands in the place of a value.
    pub instead: Option<&'static str>,
}

/// What differs in a resource or an output.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    pub lines: Vec<Line>,
    /// And so many more.
    pub more: usize,
}

impl Lines {
    /// Of the stored list of attributes.
    pub fn of(attributes: &Value) -> Self {
        let all = attributes.as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            lines: all.iter().take(ATTRIBUTES).map(shown).collect(),
            more: all.len().saturating_sub(ATTRIBUTES),
        }
    }

    pub fn is_unfolded(&self) -> bool {
        self.lines.len() <= UNFOLDED
    }

    pub fn count(&self) -> usize {
        self.lines.len() + self.more
    }
}

fn shown(attribute: &Value) -> Line {
    let text = |name: &str| {
        let text = attribute.get(name).and_then(Value::as_str);
        text.map(|text| line(text, VALUE_CHARS))
    };
    let what = attribute.get("what").and_then(Value::as_str);
    let (was, is, instead) = match what.unwrap_or_default() {
        "added" => (None, text("after"), None),
        "removed" => (text("before"), None, None),
        "unknown" => (text("before"), None, Some("known after apply")),
        "sensitive_changed" => (None, None, Some("sensitive, changes")),
        "sensitive" => (None, None, Some("sensitive")),
        _ => (text("before"), text("after"), None),
    };
    let path = attribute.get("path").and_then(Value::as_array);
    Line {
        path: path_of(path.map(Vec::as_slice).unwrap_or_default()),
        was,
        is,
        instead,
    }
}

fn path_of(parts: &[Value]) -> String {
    let mut path = String::new();
    for part in parts.iter().filter_map(Value::as_str) {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push('[');
            path.push_str(part);
            path.push(']');
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(part);
        }
    }
    line(&path, 200)
}

/// Resources of one module; `None` is the root.
pub type Module<'a> = (Option<&'a str>, Vec<&'a ResourceRow>);

/// Resources by their modules, in the order in which those come.
pub fn by_module(resources: &[ResourceRow]) -> Vec<Module<'_>> {
    let mut modules: Vec<Module<'_>> = Vec::new();
    for resource in resources {
        let name = resource.module_address.as_deref();
        match modules.iter_mut().find(|(known, _)| *known == name) {
            Some((_, of_module)) => of_module.push(resource),
            None => modules.push((name, vec![resource])),
        }
    }
    modules
}

/// What is known of something that may be a host, in a line.
pub fn marks(marks: &Value) -> String {
    let each = marks
        .as_object()
        .into_iter()
        .flatten()
        .map(|(mark, values)| {
            let values = values.as_array().into_iter().flatten();
            let values: Vec<_> = values.filter_map(Value::as_str).collect();
            format!("{} {}", mark.replace('_', " "), values.join(", "))
        });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attribute_says_what_it_was_and_is_or_why_it_can_not() {
        let lines = Lines::of(&json!([
            {"path": ["tags", "Name"], "what": "changed", "before": "\"a\"", "after": "\"b\""},
            {"path": ["ingress", "0", "port"], "what": "removed", "before": "80", "after": null},
            {"path": ["id"], "what": "unknown", "before": "\"i-1\"", "after": null},
            {"path": ["password"], "what": "sensitive_changed", "before": "{}", "after": "{}"},
        ]));
        let told: Vec<_> = lines
            .lines
            .iter()
            .map(|line| {
                (
                    line.path.as_str(),
                    line.was.as_deref(),
                    line.is.as_deref(),
                    line.instead,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("tags.Name", Some("\"a\""), Some("\"b\""), None),
                ("ingress[0].port", Some("80"), None, None),
                ("id", Some("\"i-1\""), None, Some("known after apply")),
                ("password", None, None, Some("sensitive, changes")),
            ]
        );
        let many = Value::Array(vec![
            json!({"path": ["a"], "what": "added", "after": "1"});
            100
        ]);
        assert_eq!(
            (Lines::of(&many).lines.len(), Lines::of(&many).count()),
            (ATTRIBUTES, 100)
        );
        assert_eq!(Lines::of(&Value::Null).count(), 0);
    }

    #[test]
    fn only_addresses_of_the_web_become_links() {
        assert!(web_address("https://ci.example/1").is_some());
        for bad in [
            "javascript:alert(1)",
            "//evil",
            "data:text/html,x",
            "HTTPS",
            "",
        ] {
            assert_eq!(web_address(bad), None, "{bad}");
        }
    }
}
