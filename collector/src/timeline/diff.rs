//! What differs between two documents, place by place: the history of a fact.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Differences of one change at most; with more, the document is another one.
pub const MOST: usize = 100;
/// Deeper than this a value is compared whole.
const DEPTH: usize = 16;

/// One place at which two documents differ.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = FactDifference)]
pub struct Difference {
    /// A JSON pointer (RFC 6901); empty for the whole.
    pub path: String,
    /// Null where there was nothing.
    #[schema(value_type = Option<Object>)]
    pub was: Option<Value>,
    /// Null where nothing is left.
    #[schema(value_type = Option<Object>)]
    pub is: Option<Value>,
}

/// Where `was` and `is` differ, in order of place; the first [`MOST`], and how many more there are.
pub fn diff(was: Option<&Value>, is: Option<&Value>) -> (Vec<Difference>, usize) {
    let mut found = Found::default();
    found.compare("", was, is, 0);
    (found.differences, found.more)
}

#[derive(Default)]
struct Found {
    differences: Vec<Difference>,
    more: usize,
}

impl Found {
    fn compare(&mut self, path: &str, was: Option<&Value>, is: Option<&Value>, depth: usize) {
        if was == is {
            return;
        }
        match (was, is) {
            (Some(Value::Object(was)), Some(Value::Object(is))) if depth < DEPTH => {
                let gone = was.keys().filter(|key| !is.contains_key(*key));
                for key in is.keys().chain(gone) {
                    let below = format!("{path}/{}", escaped(key));
                    self.compare(&below, was.get(key), is.get(key), depth + 1);
                }
            }
            (Some(Value::Array(was)), Some(Value::Array(is))) if depth < DEPTH => {
                self.lists(path, was, is, depth);
            }
            _ => self.add(path, was, is),
        }
    }

    /// A list whose start and end are the same tells what came or went between them.
    fn lists(&mut self, path: &str, was: &[Value], is: &[Value], depth: usize) {
        let same = |pair: &(&Value, &Value)| pair.0 == pair.1;
        let start = was.iter().zip(is).take_while(same).count();
        let (was, is) = (&was[start..], &is[start..]);
        let end = was
            .iter()
            .rev()
            .zip(is.iter().rev())
            .take_while(same)
            .count();
        let (was, is) = (&was[..was.len() - end], &is[..is.len() - end]);
        for index in 0..was.len().max(is.len()) {
            let below = format!("{path}/{}", start + index);
            self.compare(&below, was.get(index), is.get(index), depth + 1);
        }
    }

    fn add(&mut self, path: &str, was: Option<&Value>, is: Option<&Value>) {
        if self.differences.len() < MOST {
            self.differences.push(Difference {
                path: path.to_owned(),
                was: was.cloned(),
                is: is.cloned(),
            });
        } else {
            self.more += 1;
        }
    }
}

/// RFC 6901, section 3.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(was: &Value, is: &Value) -> Vec<String> {
        let tell = |value: Option<Value>| value.map_or("-".to_owned(), |value| value.to_string());
        let (found, more) = diff(Some(was), Some(is));
        assert_eq!(more, 0);
        found
            .into_iter()
            .map(|d| format!("{} {} {}", d.path, tell(d.was), tell(d.is)))
            .collect()
    }

    #[test]
    fn a_difference_is_told_at_its_place() {
        let was = json!({"os": {"id": "debian", "version": "12"}, "gone": 1, "a/b~": [1, 2]});
        let is = json!({"os": {"id": "debian", "version": "13"}, "new": null, "a/b~": [1, 3]});
        let expected = [
            "/a~1b~0/1 2 3",
            "/new - null",
            "/os/version \"12\" \"13\"",
            "/gone 1 -",
        ];
        assert_eq!(told(&was, &is), expected);
        assert!(told(&was, &was).is_empty());
        assert_eq!(told(&json!(1), &json!("1")), [" 1 \"1\""]);
    }

    #[test]
    fn what_is_put_into_a_list_does_not_change_what_follows() {
        assert_eq!(told(&json!([1, 2, 3]), &json!([1, 9, 2, 3])), ["/1 - 9"]);
        assert_eq!(told(&json!([1, 2, 3]), &json!([1, 3])), ["/1 2 -"]);
        assert_eq!(told(&json!([1, 1]), &json!([1])), ["/1 1 -"]);
    }

    #[test]
    fn differences_are_bounded_and_what_is_left_out_is_counted() {
        let is: Vec<_> = (0..MOST + 7).collect();
        let (found, more) = diff(Some(&json!([])), Some(&json!(is)));
        assert_eq!((found.len(), more), (MOST, 7));
    }
}
