//! The keys: one table, from which the dialog that shows them is made, and from that what `static/keys.js` does.

use crate::web::frame::Frame;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Goes there.
    Go(&'static str),
    /// What the script calls so; where a page has a part with this key (`data-key`), that part is pressed.
    Do(&'static str),
}

/// A key, or two after each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// With spaces between.
    pub keys: &'static str,
    pub name: &'static str,
    pub does: Does,
}

impl Key {
    const fn go(keys: &'static str, name: &'static str, to: &'static str) -> Self {
        Self {
            keys,
            name,
            does: Does::Go(to),
        }
    }

    const fn of(keys: &'static str, name: &'static str, what: &'static str) -> Self {
        Self {
            keys,
            name,
            does: Does::Do(what),
        }
    }

    /// One by one.
    pub fn strokes(&self) -> Vec<&'static str> {
        self.keys.split(' ').collect()
    }
}

/// The table.
pub const KEYS: [Key; 16] = [
    Key::of("Ctrl+K", "Search everything", "palette"),
    Key::of("/", "To the search", "search"),
    Key::go("g o", "Overview", "/"),
    Key::go("g h", "Hosts", "/hosts"),
    Key::go("g c", "Changes", "/changes"),
    Key::go("g i", "Inventory", "/inventory"),
    Key::go("g a", "Audit log", "/audit"),
    Key::go("g s", "Settings", "/settings"),
    Key::of("j", "Next row", "down"),
    Key::of("k", "Row before", "up"),
    Key::of("x", "Select the row", "select"),
    Key::of("*", "Select all rows", "all"),
    Key::of("e", "Edit what is selected", "edit"),
    Key::of("t", "Tag what is selected", "tag"),
    Key::of("n", "Make a new one", "new"),
    Key::of("?", "These keys", "keys"),
];

/// Those that the reader may use.
pub fn of(frame: &Frame) -> Vec<Key> {
    let mut keys = KEYS.to_vec();
    keys.retain(|key| match key.does {
        Does::Go(to) => frame.may("GET", to),
        Does::Do(_) => true,
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::routes;

    #[test]
    fn no_key_is_there_twice_nor_begins_another_and_each_goes_somewhere() {
        for (place, key) in KEYS.iter().enumerate() {
            for other in &KEYS[place + 1..] {
                let longer = format!("{} ", key.keys);
                assert!(key.keys != other.keys && !other.keys.starts_with(&longer));
            }
            if let Does::Go(to) = key.does {
                assert!(routes().iter().any(|route| route.path == to), "{to}");
            }
        }
    }
}
