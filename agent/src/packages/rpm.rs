//! What rpm says of its database, asked by [`QUERY`]: only rpm reads all of its formats (Berkeley DB, ndb, sqlite).

use std::io::BufRead;

use super::{Inventory, MOST, Manager, Package, field, said};

/// The format to ask for: fields of which none can hold the separators between them.
pub const QUERY: &str = "%{NAME}\x1f%{EPOCH}\x1f%{VERSION}\x1f%{RELEASE}\x1f%{ARCH}\x1f%{SOURCERPM}\x1f%{VENDOR}\x1f%{INSTALLTIME}\x1e";

const FIELD_END: u8 = 0x1f;
const RECORD_END: u8 = 0x1e;
/// Of a record; a longer one is none.
const RECORD_BYTES: usize = 64 * 1024;
/// Keys stand among the packages.
const KEY: &str = "gpg-pubkey";

/// The packages of an answer.
pub fn parse(mut answer: impl BufRead) -> std::io::Result<Inventory> {
    let (mut packages, mut skipped) = (Vec::new(), 0);
    let mut record = Vec::new();
    while next_record(&mut answer, &mut record)? {
        if record.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match package(&record) {
            Some(package) if package.name == KEY => {}
            Some(package) if packages.len() < MOST => packages.push(package),
            Some(_) | None => skipped += 1,
        }
    }
    Ok(Inventory::new(Manager::Rpm, packages, skipped))
}

/// Reads a record without its end, of one that is too long nothing. Answers whether there was one.
fn next_record(answer: &mut impl BufRead, record: &mut Vec<u8>) -> std::io::Result<bool> {
    record.clear();
    let (mut is_any, mut bytes) = (false, 0);
    loop {
        let part = answer.fill_buf()?;
        if part.is_empty() {
            break;
        }
        is_any = true;
        let end = part.iter().position(|byte| *byte == RECORD_END);
        let text = &part[..end.unwrap_or(part.len())];
        bytes += text.len();
        if bytes <= RECORD_BYTES {
            record.extend_from_slice(text);
        }
        let used = end.map_or(part.len(), |end| end + 1);
        answer.consume(used);
        if end.is_some() {
            break;
        }
    }
    if bytes > RECORD_BYTES {
        // Counted as one that makes no sense.
        *record = b"-".to_vec();
    }
    Ok(is_any)
}

fn package(record: &[u8]) -> Option<Package> {
    let mut fields = record.split(|byte| *byte == FIELD_END).map(text);
    let mut next = || fields.next();
    let (name, epoch, version, release) = (next()?, next()?, next()?, next()?);
    let (arch, source, vendor, time) = (next()?, next()?, next()?, next()?);
    if name.is_empty() || version.is_empty() || next().is_some() {
        return None;
    }
    let built = version_of(None, &version, &release);
    let (source, source_version) = match source_of(&source) {
        Some((source, of)) => (
            (source != name).then_some(source),
            (of != built).then_some(of),
        ),
        None => (None, None),
    };
    Some(Package {
        version: version_of(epoch.parse().ok(), &version, &release),
        name,
        arch,
        source,
        source_version,
        vendor: said(&vendor),
        installed_at_s: time.parse().ok(),
        held: false,
        broken: None,
    })
}

/// As rpm and dnf print it: an epoch of 0 is none.
pub fn version_of(epoch: Option<u32>, version: &str, release: &str) -> String {
    let epoch = epoch.filter(|epoch| *epoch > 0);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = match release {
        "" => String::new(),
        release => format!("-{release}"),
    };
    field(&format!("{epoch}{version}{release}"))
}

/// `NAME-VERSION-RELEASE.src.rpm`.
pub fn source_of(file: &str) -> Option<(String, String)> {
    let name = file.strip_suffix(".rpm")?;
    let name = name.strip_suffix(".src").or(name.strip_suffix(".nosrc"))?;
    let mut parts = name.rsplitn(3, '-');
    let (release, version, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some((said(name)?, format!("{version}-{release}")))
}

/// Of what a package lacks rpm says `(none)`. An answer begins a line where one before has ended its own.
fn text(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    let text = super::field(&text.replace(['\n', '\r'], " "));
    if text == "(none)" {
        String::new()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_packages_and_keys_are_none() {
        let text = "bash\x1f(none)\x1f5.1.8\x1f9.el9\x1fx86_64\x1fbash-5.1.8-9.el9.src.rpm\x1fRed Hat, Inc.\x1f1700000000\x1e\
            openssl-libs\x1f1\x1f3.0.7\x1f27.el9\x1fx86_64\x1fopenssl-3.0.7-27.el9.src.rpm\x1f(none)\x1f1700000001\x1e\
            sub\x1f0\x1f2.0\x1f1\x1fnoarch\x1fmain-pkg-1.0-3.nosrc.rpm\x1fa\nb\x1fx\x1e\
            gpg-pubkey\x1f(none)\x1ffd431d51\x1f4ae0493b\x1f(none)\x1f(none)\x1f(none)\x1f1\x1e\
            too\x1ffew\x1e\n";
        let inventory = parse(text.as_bytes()).unwrap();
        assert_eq!(inventory.names(), ["bash", "openssl-libs", "sub"]);
        assert_eq!(inventory.skipped, 1);
        let [bash, ssl, sub] = inventory.packages.as_slice() else {
            panic!("{inventory:?}");
        };
        assert_eq!(
            (bash.version.as_str(), bash.source.as_deref()),
            ("5.1.8-9.el9", None)
        );
        assert_eq!(bash.source_version, None);
        assert_eq!(bash.vendor.as_deref(), Some("Red Hat, Inc."));
        assert_eq!(
            (ssl.version.as_str(), ssl.source.as_deref()),
            ("1:3.0.7-27.el9", Some("openssl"))
        );
        assert_eq!(
            (ssl.source_version.as_deref(), ssl.vendor.as_deref()),
            (None, None)
        );
        assert_eq!(sub.version, "2.0-1");
        assert_eq!(
            (sub.source.as_deref(), sub.source_version.as_deref()),
            (Some("main-pkg"), Some("1.0-3"))
        );
        assert_eq!(
            (sub.vendor.as_deref(), sub.installed_at_s),
            (Some("a b"), None)
        );
    }

    #[test]
    fn a_record_without_end_is_not_kept() {
        let long = "x".repeat(3 * RECORD_BYTES);
        let text = format!("{long}\x1ea\x1f\x1f1\x1f1\x1fnoarch\x1f\x1f\x1f1");
        let inventory = parse(text.as_bytes()).unwrap();
        assert_eq!((inventory.names(), inventory.skipped), (vec!["a"], 1));
    }
}
