//! A table with a header: one host a line, columns by their names.

use std::collections::BTreeSet;

use super::{Document, Found, Refused, TEXT_BYTES, address};

/// The columns that there may be. `name` has to be there.
pub const COLUMNS: [&str; 8] = [
    "name",
    "instance_id",
    "addresses",
    "tags",
    "groups",
    "environment",
    "owner",
    "destroyed",
];

/// Reads a table.
pub fn read(text: &str) -> Result<Document, Refused> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| refused(&error))?.clone();
    let mut columns = Vec::new();
    for name in &header {
        let Some(column) = COLUMNS.iter().find(|column| **column == name) else {
            let detail = format!("has the column {name:?}; known are {}", COLUMNS.join(", "));
            return Err(Refused::at("line 1", shortened(&detail)));
        };
        if columns.contains(column) {
            return Err(Refused::at(
                "line 1",
                format!("has the column {name:?} twice"),
            ));
        }
        columns.push(*column);
    }
    if !columns.contains(&"name") {
        return Err(Refused::at("line 1", "has no column \"name\""));
    }
    let (mut document, mut keys) = (Document::default(), BTreeSet::new());
    for record in reader.records() {
        let record = record.map_err(|error| refused(&error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let place = format!("line {line}");
        let found = found(&place, &columns, &record)?;
        document.push(&place, found, &mut keys)?;
    }
    Ok(document)
}

fn found(place: &str, columns: &[&str], record: &csv::StringRecord) -> Result<Found, Refused> {
    let mut found = Found::default();
    for (column, text) in columns.iter().zip(record) {
        if text.len() > TEXT_BYTES {
            return Err(Refused::at(
                place,
                format!("has over {TEXT_BYTES} bytes in {column}"),
            ));
        }
        let text_of = || Some(text.to_owned()).filter(|text| !text.is_empty());
        match *column {
            "name" => text.clone_into(&mut found.name),
            "instance_id" => found.instance_id = text_of(),
            "addresses" => {
                for word in words(text) {
                    let address = address(word).ok_or_else(|| {
                        Refused::at(
                            place,
                            shortened(&format!("has {word:?} in addresses, which is none")),
                        )
                    })?;
                    found.addresses.push(address);
                }
            }
            "tags" => found.tags.extend(words(text).map(str::to_owned)),
            "groups" => found
                .tags
                .extend(words(text).map(|group| format!("group:{group}"))),
            "environment" => found.environment = text_of(),
            "owner" => found.owner = text_of(),
            _ => {
                found.destroyed = match text {
                    "true" => true,
                    "false" | "" => false,
                    _ => {
                        return Err(Refused::at(
                            place,
                            "has neither true nor false in destroyed",
                        ));
                    }
                }
            }
        }
    }
    found.key.clone_from(&found.name);
    Ok(found)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ';', ',']).filter(|word| !word.is_empty())
}

fn refused(error: &csv::Error) -> Refused {
    let line = error.position().map_or(0, csv::Position::line);
    Refused::at(
        format!("line {line}"),
        shortened(&format!("is refused: {error}")),
    )
}

/// What is told of a document is not as long as the document.
fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_the_names_of_its_columns() {
        let text = "name,addresses,tags,groups,environment,owner,instance_id,destroyed\r\n\
                    web-1,10.0.0.1 2001:db8::1/64,role:web;a,front,prod,\"ops, web\",i-1,\n\
                    db-1,,,,,,,true\n";
        let document = read(text).expect("read");
        let [web, db] = document.entries.as_slice() else {
            panic!("{document:?}");
        };
        assert_eq!((web.name.as_str(), web.key.as_str()), ("web-1", "i-1"));
        assert_eq!(web.addresses.len(), 2);
        assert_eq!(web.tags, ["a", "group:front", "role:web"]);
        assert_eq!(web.owner.as_deref(), Some("ops, web"));
        assert!(db.destroyed && !web.destroyed);
        assert_eq!((db.key.as_str(), db.environment.as_deref()), ("db-1", None));
    }

    #[test]
    fn a_table_that_is_wrong_is_refused_with_its_line() {
        for (text, words) in [
            ("", "line 1 has no column \"name\""),
            ("name,colour\n", "line 1 has the column \"colour\""),
            ("name,name\n", "line 1 has the column \"name\" twice"),
            ("owner\nbob\n", "line 1 has no column \"name\""),
            ("name,owner\na,b\nc\n", "line 3 is refused"),
            ("name\na\na\n", "line 3 is there twice"),
            ("name,addresses\na,ten\n", "line 2 has \"ten\" in addresses"),
            (
                "name,destroyed\na,perhaps\n",
                "line 2 has neither true nor false",
            ),
            ("name\n\"a\nb\"\n", "line 2 has no name"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with(words), "{text:?}: {error}");
        }
    }
}
