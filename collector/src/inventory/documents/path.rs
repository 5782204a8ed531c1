//! Places in a JSON value, by paths with `*` for every item: `network_interface/*/network_ip`.

use std::net::IpAddr;

use serde_json::Value;

/// Everything at `path`.
pub fn all<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in path.split('/') {
        found = found
            .into_iter()
            .flat_map(|value| items(value, step))
            .collect();
    }
    found
}

fn items<'v>(value: &'v Value, step: &str) -> Vec<&'v Value> {
    match (value, step) {
        (Value::Array(items), "*") => items.iter().collect(),
        (Value::Object(fields), "*") => fields.values().collect(),
        (Value::Object(fields), step) => fields.get(step).into_iter().collect(),
        (Value::Array(items), step) => step
            .parse::<usize>()
            .ok()
            .and_then(|at| items.get(at))
            .into_iter()
            .collect(),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => Vec::new(),
    }
}

/// The first text or number at any of `paths`.
pub fn text(value: &Value, paths: &[&str]) -> Option<String> {
    paths
        .iter()
        .flat_map(|path| all(value, path))
        .find_map(plain)
}

/// A text or number that is not empty.
pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The addresses at `paths`; what is none is left out.
pub fn addresses(value: &Value, paths: &[&str]) -> Vec<IpAddr> {
    let found = paths.iter().flat_map(|path| all(value, path));
    found
        .filter_map(Value::as_str)
        .filter_map(super::address)
        .collect()
}

/// What stands at `paths` as tags: texts as they are, the fields of an object as `key=value`.
pub fn tags(value: &Value, paths: &[&str]) -> Vec<String> {
    let mut tags = Vec::new();
    for found in paths.iter().flat_map(|path| all(value, path)) {
        match found {
            Value::String(text) => tags.push(text.clone()),
            Value::Array(items) => tags.extend(items.iter().filter_map(plain)),
            Value::Object(fields) => {
                let pair = |(key, value): (&String, &Value)| match plain(value) {
                    Some(value) => format!("{key}={value}"),
                    None => key.clone(),
                };
                tags.extend(fields.iter().map(pair));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    tags
}

/// The value of the tag `key`, however it is written, in the objects at `paths`.
pub fn tagged(value: &Value, paths: &[&str], keys: &[&str]) -> Option<String> {
    let objects = paths
        .iter()
        .flat_map(|path| all(value, path))
        .filter_map(Value::as_object);
    let mut pairs = objects.flatten();
    pairs.find_map(|(name, value)| {
        let is_asked = keys.iter().any(|key| key.eq_ignore_ascii_case(name));
        if is_asked { plain(value) } else { None }
    })
}
