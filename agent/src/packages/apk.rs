//! apk's database, `lib/apk/db/installed`: entries of lines `letter:value`, an empty line between them
//! (apk-package(5), "installed database"; the letters are those of `APKINDEX`).

use std::io::BufRead;

use super::lines::next_line;
use super::{Inventory, MOST, Manager, Package, field, said};

/// The packages of the file.
pub fn parse(mut file: impl BufRead) -> std::io::Result<Inventory> {
    let (mut packages, mut skipped) = (Vec::new(), 0);
    let (mut package, mut has_lines) = (Package::default(), false);
    let mut line = Vec::new();
    loop {
        let more = next_line(&mut file, &mut line)?;
        if !more || line.is_empty() {
            let done = std::mem::take(&mut package);
            let is_one = !done.name.is_empty() && !done.version.is_empty();
            match (has_lines, is_one && packages.len() < MOST) {
                (true, true) => packages.push(done),
                (true, false) => skipped += 1,
                (false, _) => {}
            }
            has_lines = false;
        }
        if !more {
            return Ok(Inventory::new(Manager::Apk, packages, skipped));
        }
        has_lines |= !line.is_empty();
        let text = String::from_utf8_lossy(&line);
        match text.split_once(':') {
            Some(("P", name)) => package.name = field(name),
            Some(("V", version)) => package.version = field(version),
            Some(("A", arch)) => package.arch = field(arch),
            Some(("o", origin)) => package.source = said(origin),
            Some(("f", flags)) => package.broken = broken(flags),
            _ => {}
        }
    }
}

/// What of an installation went wrong, by its flags (apk-tools, `src/database.c`).
fn broken(flags: &str) -> Option<String> {
    let words = [('f', "files"), ('s', "script"), ('x', "attributes")];
    let found = words.iter().filter(|(flag, _)| flags.contains(*flag));
    let found: Vec<_> = found.map(|(_, word)| *word).collect();
    (!found.is_empty()).then(|| found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_letters_are_packages() {
        let text = "C:Q1x\nP:musl\nV:1.2.5-r9\nA:x86_64\nS:1\no:musl\nF:lib\nM:0:0:755\nR:ld.so\na:0:0:755\n\n\
            P:openssl\nV:3.5.1-r0\nA:x86_64\no:openssl3\nf:fs\n\nP:no version\n\n\n";
        let inventory = parse(text.as_bytes()).unwrap();
        let [musl, openssl] = inventory.packages.as_slice() else {
            panic!("{inventory:?}");
        };
        assert_eq!(
            (
                musl.name.as_str(),
                musl.version.as_str(),
                musl.arch.as_str()
            ),
            ("musl", "1.2.5-r9", "x86_64")
        );
        assert_eq!(
            (musl.source.as_deref(), musl.broken.as_deref()),
            (Some("musl"), None)
        );
        assert_eq!(
            (openssl.source.as_deref(), openssl.broken.as_deref()),
            (Some("openssl3"), Some("files, script"))
        );
        assert_eq!(inventory.skipped, 1);
    }
}
