//! The bodies of the fuzz targets: what must hold for any bytes from outside.
//!
//! One place for two callers: `fuzz/` searches for bytes that break them, `testkit/tests/it/corpus.rs`
//! replays the ones that are kept. Depends on `infratrack-shared`, `rmpv`, `quick-xml`, the collector's
//! `inventory/documents/` and `advisories/documents/`, and the agent's `backup/files/cache/records/`, `packages/` and
//! `restart/` alone, because `fuzz/` takes these files in by their paths.

#[path = "fuzz/backup.rs"]
mod backup;

use infratrack_shared::codec::{self, DecodeError, Limits};
use infratrack_shared::compress;
use infratrack_shared::limits;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::answer::Frame;
use infratrack_shared::wire::batch::{Batch, Body};
use infratrack_shared::wire::enroll::{
    ChallengeRequest, EnrollRequest, RenewRequest, ReturnRequest,
};
use infratrack_shared::wire::event::Event;
use infratrack_shared::wire::frame::FrameReader;
use infratrack_shared::wire::plays::{Plays, PlaysTaken};
use infratrack_shared::wire::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::backup::{backup_cache, backup_pack, backup_snapshot, backup_tree};
use super::advisories::{self, Format, Refused, Sink, State};
use super::documents::{self, Entry, Kind};
use super::packages::dpkg::Database;
use super::packages::log::merge::read_whole;
use super::packages::log::parts::split;
use super::packages::log::source::Source;
use super::packages::{self, Inventory, apk, rpm};
use super::restart::release::{self, Release};
use super::restart::{self, maps};

/// What a target is run with: any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus and of its binary.
pub const TARGETS: &[(&str, Target)] = &[
    ("advisories_osv", advisories_osv),
    ("advisories_oval", advisories_oval),
    ("advisories_tracker", advisories_tracker),
    ("backup_cache", backup_cache),
    ("backup_pack", backup_pack),
    ("backup_snapshot", backup_snapshot),
    ("backup_tree", backup_tree),
    ("batch", batch),
    ("enroll_request", enroll_request),
    ("frames", frames),
    ("inventory_ansible", inventory_ansible),
    ("inventory_csv", inventory_csv),
    ("inventory_terraform", inventory_terraform),
    ("packages_apk", packages_apk),
    ("packages_dpkg", packages_dpkg),
    ("packages_log_dnf", packages_log_dnf),
    ("packages_log_dnf5", packages_log_dnf5),
    ("packages_log_dpkg", packages_log_dpkg),
    ("packages_log_yum", packages_log_yum),
    ("packages_log_zypp", packages_log_zypp),
    ("packages_rpm", packages_rpm),
    ("plays", plays),
    ("problem", problem),
    ("renew_request", renew_request),
    ("restart_maps", restart_maps),
    ("restart_release", restart_release),
    ("return_request", return_request),
    ("scan", scan),
    ("token", token),
    ("zstd", zstd),
];

/// Records of OSV.
pub fn advisories_osv(bytes: &[u8]) {
    advisories(Format::Osv, bytes);
}

/// Definitions of OVAL.
pub fn advisories_oval(bytes: &[u8]) {
    advisories(Format::Oval, bytes);
}

/// What Debian's security tracker says.
pub fn advisories_tracker(bytes: &[u8]) {
    advisories(Format::DebianTracker, bytes);
}

/// What is read of advisories can be stored, and is counted; what is refused says why.
fn advisories(format: Format, bytes: &[u8]) {
    let (mut count, mut said) = (0, 0);
    let mut take = |advisory: advisories::Advisory| -> Result<(), Refused> {
        count += 1;
        said += advisory.statements.len();
        assert!(!advisory.statements.is_empty() && advisory.statements.is_sorted());
        assert!(advisory.cves.is_sorted() && advisory.cves.len() <= advisories::MOST_CVES);
        let names = advisory.cves.iter().chain([&advisory.id]);
        let packages = advisory.statements.iter().map(|one| &one.package);
        for name in names.chain(packages) {
            assert!((1..=advisories::NAME_BYTES).contains(&name.len()));
            assert!(!name.contains(char::is_control));
        }
        for one in &advisory.statements {
            assert_eq!(one.state == State::Fixed, one.fixed_version.is_some());
        }
        Ok(())
    };
    let mut sink = Sink::new(&mut take);
    let read = advisories::read(format, bytes, &mut sink);
    let told = (sink.advisories, sink.statements);
    if let Err(refused) = read {
        assert!(!refused.detail.is_empty());
    }
    assert_eq!(told, (count, said));
}

/// A batch, and the events in it.
pub fn batch(bytes: &[u8]) {
    let Some(batch) = document::<Batch>(bytes, &Limits::default()) else {
        return;
    };
    for record in batch.parts.iter().flat_map(|part| &part.records) {
        let Body::Event(body) = &record.body else {
            continue;
        };
        if let Ok(event) = Event::from_body(&record.kind, body) {
            event.to_body().expect("what was decoded can be encoded");
        }
    }
}

/// An enrollment request.
pub fn enroll_request(bytes: &[u8]) {
    document::<EnrollRequest>(bytes, &Limits::bytes(limits::ENROLL_BYTES));
}

/// A renewal request.
pub fn renew_request(bytes: &[u8]) {
    document::<RenewRequest>(bytes, &Limits::bytes(limits::ENROLL_BYTES));
}

/// What the return of an expired certificate sends: the request for a nonce, and the return itself.
pub fn return_request(bytes: &[u8]) {
    let limits = Limits::bytes(limits::ENROLL_BYTES);
    document::<ChallengeRequest>(bytes, &limits);
    document::<ReturnRequest>(bytes, &limits);
}

/// Records of plays, and the answer to them.
pub fn plays(bytes: &[u8]) {
    document::<Plays>(bytes, &Limits::bytes(limits::PLAYS_BYTES));
    document::<PlaysTaken>(bytes, &Limits::bytes(limits::FRAME_BYTES));
}

/// apk's database.
pub fn packages_apk(bytes: &[u8]) {
    are_packages(&apk::parse(bytes).expect("memory can be read"));
}

/// dpkg's database, in one file and in two.
pub fn packages_dpkg(bytes: &[u8]) {
    let mut database = Database::default();
    let (one, other) = bytes.split_at(bytes.len() / 2);
    for part in [one, other, bytes] {
        database.add(part).expect("memory can be read");
    }
    are_packages(&database.inventory());
}

/// The mappings of a process, and its cgroup.
pub fn restart_maps(bytes: &[u8]) {
    let files = maps::replaced(bytes);
    assert!(files.len() <= maps::MOST_FILES);
    for file in &files {
        assert!(file.starts_with('/') && !file.contains('\n'));
    }
    let text = String::from_utf8_lossy(bytes);
    if let maps::Group::Unit(unit) = maps::group(&text) {
        assert!(!unit.is_empty() && !unit.contains(['/', '\n']));
    }
}

/// Names of kernels as files, packages and the kernel itself have them, and the list beside the marker.
pub fn restart_release(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut names: Vec<&str> = text.lines().collect();
    names.extend(text.lines().filter_map(release::of_file));
    names.extend(text.lines().filter_map(release::of_package));
    for name in names {
        if let Some(found) = Release::parse(name) {
            assert!(!found.flavour.is_empty() && !found.key.is_empty());
            assert!(Release::parse(name) == Some(found), "a name is one kernel");
        }
        release::of_alpine(name, name);
        release::of_rpm_package("kernel-core", name, "x86_64");
        if let Some(version) = release::package_version(name, &text) {
            assert!(release::is_same_build(&version, &version));
        }
    }
    let packages = restart::packages(&text);
    assert!(packages.len() <= restart::MOST_PACKAGES);
    let mut once = packages.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), packages.len(), "a package is named twice");
}

/// What rpm says of its database.
pub fn packages_rpm(bytes: &[u8]) {
    are_packages(&rpm::parse(bytes).expect("memory can be read"));
}

fn are_packages(inventory: &Inventory) {
    assert!(inventory.packages.len() <= packages::MOST && inventory.packages.is_sorted());
    for package in &inventory.packages {
        for text in [&package.name, &package.version] {
            assert!((1..=packages::FIELD_BYTES).contains(&text.len()));
            assert!(!text.contains(['\0', '\n']));
        }
    }
}

/// The logs of dnf 4: dnf's up to a NUL, and rpm's after it.
pub fn packages_log_dnf(bytes: &[u8]) {
    logs(Source::Dnf, bytes);
}

/// The log of dnf 5.
pub fn packages_log_dnf5(bytes: &[u8]) {
    logs(Source::Dnf5, bytes);
}

/// apt's history up to a NUL, and the log of dpkg after it.
pub fn packages_log_dpkg(bytes: &[u8]) {
    logs(Source::Dpkg, bytes);
}

/// The log of yum 3.
pub fn packages_log_yum(bytes: &[u8]) {
    logs(Source::Yum, bytes);
}

/// zypper's history.
pub fn packages_log_zypp(bytes: &[u8]) {
    logs(Source::Zypp, bytes);
}

/// What logs tell has names, and fits into records, part by part.
fn logs(source: Source, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (front, runs) = text.split_once('\0').unwrap_or(("", &text));
    for over in read_whole(source, [front, runs]) {
        let whole = over.transaction;
        assert!(whole.changes.len() <= 2 * packages::log::MOST_CHANGES);
        for change in &whole.changes {
            assert!((1..=packages::FIELD_BYTES).contains(&change.name.len()));
            assert!(!change.name.contains(['\0', '\n']));
        }
        let parts = split(whole.clone());
        let mut together = Vec::new();
        for (part, number) in parts.iter().zip(0..) {
            assert_eq!((part.part, part.parts as usize), (number, parts.len()));
            let encoded = codec::encode(part).expect("a transaction can be encoded");
            assert!(encoded.len() < limits::RECORD_BYTES / 2);
            together.extend(part.changes.iter().cloned());
        }
        assert!(together == whole.changes, "parts are not the whole");
    }
}

/// A problem document, as an agent reads it.
pub fn problem(bytes: &[u8]) {
    document::<Problem>(bytes, &Limits::bytes(limits::FRAME_BYTES));
}

/// An answer: the same frames come out, and the same error, however the bytes arrive. The first byte
/// says in chunks of how many.
pub fn frames(bytes: &[u8]) {
    let Some((chunk, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read_frames(bytes.chunks(bytes.len().max(1)));
    let chunked = read_frames(bytes.chunks(usize::from(*chunk).max(1)));
    assert_eq!(whole, chunked, "chunks of {chunk}");
}

/// But for limits, the walk accepts exactly what a decoder reads to the end.
pub fn scan(bytes: &[u8]) {
    let limits = Limits::default();
    let checked = codec::check(bytes, &limits);
    let mut rest = bytes;
    let read = rmpv::decode::read_value_with_max_depth(&mut rest, 1_000).is_ok() && rest.is_empty();
    match checked {
        Ok(items) => {
            assert!(items <= limits.items && items <= bytes.len());
            assert!(read, "the walk accepts what no decoder reads");
        }
        Err(DecodeError::Truncated { .. } | DecodeError::Trailing { .. }) => {
            assert!(!read, "the walk refuses what a decoder reads");
        }
        // rmpv reads the marker that is none as nil.
        Err(
            DecodeError::Reserved { .. }
            | DecodeError::TooLarge { .. }
            | DecodeError::TooManyItems { .. }
            | DecodeError::TooDeep { .. }
            | DecodeError::StringTooLong { .. },
        ) => {}
        Err(DecodeError::Shape(error)) => panic!("the walk knows no shapes: {error}"),
    }
}

/// The text of an enrollment token: one that is read is the same after its text form.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(token) = text.parse::<EnrollToken>() {
        assert_eq!(token.reveal(), text.trim());
        assert_eq!(token.reveal().parse(), Ok(token.clone()));
        let secret = text.trim().split('.').nth(1).unwrap_or_default();
        assert!(!format!("{token:?}").contains(secret));
    }
}

/// A compressed body: never more than the limit comes out.
pub fn zstd(bytes: &[u8]) {
    if let Ok(out) = compress::decompress(bytes, limits::BATCH_BYTES) {
        assert!(out.len() <= limits::BATCH_BYTES);
        if let Some(compressed) = compress::compress(&out) {
            let again = compress::decompress(&compressed, limits::BATCH_BYTES);
            assert!(again.is_ok_and(|again| again == out));
        }
    }
}

/// The output of `ansible-inventory --list`.
pub fn inventory_ansible(bytes: &[u8]) {
    inventory(Kind::Ansible, bytes);
}

/// A table of hosts.
pub fn inventory_csv(bytes: &[u8]) {
    inventory(Kind::Csv, bytes);
}

/// The state of `terraform show -json`.
pub fn inventory_terraform(bytes: &[u8]) {
    inventory(Kind::Terraform, bytes);
}

/// What is read of an inventory can be kept: names, keys and lists within their limits, each key once.
fn inventory(kind: Kind, bytes: &[u8]) {
    let read = match documents::read(kind, bytes) {
        Ok(read) => read,
        Err(refused) => {
            assert!(!refused.place.is_empty() && !refused.detail.is_empty());
            return;
        }
    };
    assert!(read.entries.len() <= documents::MOST_ENTRIES);
    assert!(read.warnings.len() <= read.warning_count);
    let mut keys: Vec<_> = read.entries.iter().map(|entry| &entry.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), read.entries.len(), "a key names two entries");
    for entry in &read.entries {
        assert!((1..=documents::NAME_BYTES).contains(&entry.name.len()));
        assert!(entry.addresses.len() <= documents::MOST_ADDRESSES);
        assert!(entry.tags.len() <= documents::MOST_TAGS && entry.tags.is_sorted());
        assert!(!entry.name.contains('\0') && !entry.key.contains('\0'));
        let kept = serde_json::to_vec(entry).expect("an entry is JSON");
        let again: Entry = serde_json::from_slice(&kept).expect("what was kept is read");
        assert_eq!(again, *entry);
    }
}

/// Decodes; what is decoded has one encoding, which decodes to the same.
fn document<T: Serialize + DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Option<T> {
    let document: T = codec::decode(bytes, limits).ok()?;
    let encoded = codec::encode(&document).expect("what was decoded can be encoded");
    // A default that was left out is written, so the encoding may be over the limit that its source held.
    let roomy = Limits {
        bytes: usize::MAX,
        items: usize::MAX,
        ..*limits
    };
    let again: T = codec::decode(&encoded, &roomy).expect("what was encoded decodes");
    let again = codec::encode(&again).expect("what was decoded can be encoded");
    // Compared as bytes: NaN is equal to nothing.
    assert!(encoded == again, "another document after the wire");
    Some(document)
}

fn read_frames<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<String>) {
    let mut reader = FrameReader::default();
    let mut read = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => read.push(encoded(&frame)),
                Ok(None) => break,
                Err(error) => return (read, Some(error.to_string())),
            }
        }
    }
    (read, None)
}

fn encoded(frame: &Frame) -> Vec<u8> {
    codec::encode(frame).expect("what was decoded can be encoded")
}
