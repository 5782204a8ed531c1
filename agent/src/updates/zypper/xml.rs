//! The few forms of XML that zypper writes: tags with attributes, and texts between two of them.

/// A tag that begins or stands alone.
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    attributes: &'a str,
    after: &'a str,
}

impl Tag<'_> {
    /// An attribute's value.
    pub(super) fn get(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes;
        loop {
            let (name, after) = rest.split_once('=')?;
            let quote = after
                .chars()
                .next()
                .filter(|quote| "'\"".contains(*quote))?;
            let (value, after) = after.get(1..)?.split_once(quote)?;
            if name.trim() == wanted {
                return Some(decode(value));
            }
            rest = after;
        }
    }
}

/// Every tag, in its order.
pub(super) fn tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('<')?;
            let end = end(after)?;
            let tag = after.get(..end)?;
            rest = after.get(end + 1..)?;
            let tag = tag.trim_end_matches('/');
            let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
            if !name.is_empty() && !name.starts_with(['/', '?', '!']) {
                return Some(Tag {
                    name,
                    attributes,
                    after: rest,
                });
            }
        }
    })
}

/// Where the tag ends: a `>` in quotes is a value's.
fn end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// The texts of the tags of a name of which `is_wanted` says so, by their attributes.
pub(super) fn texts(
    text: &str,
    name: &str,
    is_wanted: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool,
) -> Vec<String> {
    let wanted = tags(text).filter(|tag| tag.name == name && is_wanted(&|name| tag.get(name)));
    let texts = wanted.map(|tag| tag.after.split('<').next().unwrap_or_default());
    texts.map(decode).collect()
}

fn decode(text: &str) -> String {
    let named = [
        ("&#10;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let mut text = text.to_owned();
    for (entity, sign) in named {
        text = text.replace(entity, sign);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_attributes_are_found_and_what_is_broken_ends_it() {
        let text = "<?xml version='1.0'?><a x=\"1 &lt; 2 > 0\" y='z'><b/>text &amp; more</a><!-- c --><d e=f><g h=\"";
        let names: Vec<_> = tags(text).map(|tag| tag.name).collect();
        assert_eq!(names, ["a", "b", "d"]);
        let first = tags(text).next().unwrap();
        assert_eq!(first.get("x").as_deref(), Some("1 < 2 > 0"));
        assert_eq!(first.get("y").as_deref(), Some("z"));
        assert_eq!(first.get("z"), None);
        assert_eq!(texts(text, "b", |_| true), ["text & more"]);
        assert_eq!(tags(text).last().unwrap().get("e"), None);
    }
}
