//! The bytes of every release still mean what they meant: each file in `tests/wire/<release>/` decodes
//! into the value that its release sent.
//!
//! `INFRATRACK_RECORD=1 cargo test -p infratrack-shared --test wire` writes what is missing for this
//! release and never overwrites: recorded bytes are never edited, a release gets a directory of its own.

#[path = "wire/backups.rs"]
mod backups;
#[path = "wire/described.rs"]
mod described;
#[path = "wire/documents.rs"]
mod documents;
#[path = "wire/properties.rs"]
mod properties;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use infratrack_shared::codec::{self, Limits};
use infratrack_shared::wire::answer::{Ack, Action, Frame, Goaway, Intervals, Policy, Rejected};
use infratrack_shared::wire::batch::{Batch, Body, Lost, LostReason, Record, StatePart};
use infratrack_shared::wire::enroll::{EnrollRequest, EnrollResponse};
use infratrack_shared::wire::event::{CommandOutcome, CommandResult, Event};
use infratrack_shared::wire::frame::{self, FrameReader};
use infratrack_shared::wire::heartbeat::{AgentUsage, FilesystemUsage, Heartbeat, SpoolUsage};
use infratrack_shared::wire::problem::Problem;
use rmpv::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

const RELEASE: &str = "0.1.0";

/// The recorded bytes of `name`; written first where recording is on and they are missing.
fn recorded(name: &str, fresh: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = directory().join(format!("{name}.msgpack"));
    if std::env::var_os("INFRATRACK_RECORD").is_some() && !path.exists() {
        fs::create_dir_all(directory()).expect("the directory can be made");
        fs::write(&path, fresh()).expect("the file can be written");
    }
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; INFRATRACK_RECORD=1 writes it", path.display())
    })
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wire")
        .join(RELEASE)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    codec::decode(bytes, &Limits::default()).expect("decodes")
}

fn value(bytes: &[u8]) -> Value {
    decode(bytes)
}

fn bytes(value: &Value) -> Vec<u8> {
    codec::encode(value).expect("encodes")
}

/// A map from a literal list.
fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(
        entries
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect(),
    )
}

/// The same document from a newer release: each map of a known shape has more fields, before and after.
fn from_a_newer_release(value: Value) -> Value {
    // Raw to this build, so that nothing in them is "unknown".
    const RAW: [&str; 1] = ["body"];
    match value {
        Value::Array(values) => values.into_iter().map(from_a_newer_release).collect(),
        Value::Map(entries) => {
            let extra = map([("nested", Value::Array(vec![Value::Nil, 1.into()]))]);
            let mut more = vec![("a_newer_field".into(), extra.clone())];
            more.extend(entries.into_iter().map(|(key, value)| {
                if key.as_str().is_some_and(|key| RAW.contains(&key)) {
                    (key, value)
                } else {
                    (key, from_a_newer_release(value))
                }
            }));
            more.push(("z_newer_field".into(), extra));
            Value::Map(more)
        }
        scalar @ (Value::Nil
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Binary(_)
        | Value::Ext(..)) => scalar,
    }
}

/// The recording decodes to `expected`, and so it does with fields this build does not know.
fn check<T>(name: &str, expected: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = recorded(name, || codec::encode(expected).expect("encodes"));
    assert_eq!(&decode::<T>(&bytes), expected, "{name}");
    let newer = from_a_newer_release(value(&bytes));
    let newer: T = decode(&self::bytes(&newer));
    assert_eq!(&newer, expected, "{name} with unknown fields");
}

#[test]
fn recorded_documents_decode_to_what_was_sent() {
    check("batch-minimal", &documents::batch_minimal());
    check("batch-full", &documents::batch_full());
    check("enroll-request", &documents::enroll_request());
    check("enroll-response", &documents::enroll_response());
    check("enroll-pending", &documents::enroll_pending());
    check("renew-request", &documents::renew_request());
    check(
        "renew-request-clone",
        &documents::renew_request_of_a_clone(),
    );
    check("renew-response", &documents::renew_response());
    check("challenge-request", &documents::challenge_request());
    check("challenge-response", &documents::challenge_response());
    check("return-request", &documents::return_request());
    check("problem", &documents::problem());
    check("packages-part", &documents::packages_part());
    check("updates-part", &documents::updates_part());
    check("plays", &documents::plays());
    check("plays-taken", &documents::plays_taken());
    check("plays-rejected", &documents::plays_rejected());
    for (name, frame) in documents::frames() {
        check(&format!("frame-{name}"), &frame);
    }
}

#[test]
fn a_recorded_answer_comes_apart_into_its_frames() {
    let sent: Vec<Frame> = documents::frames().into_iter().map(|(_, f)| f).collect();
    let bytes = recorded("frames", || {
        let encoded = sent.iter().map(|f| frame::encode(f).expect("encodes"));
        encoded.flatten().collect()
    });
    for chunk in [1, 7, bytes.len()] {
        let mut reader = FrameReader::default();
        let mut read = Vec::new();
        for some in bytes.chunks(chunk) {
            reader.push(some);
            while let Some(frame) = reader.next_frame().expect("valid") {
                read.push(frame);
            }
        }
        assert_eq!(read, sent, "in chunks of {chunk}");
        assert!(reader.is_empty());
    }
}

#[test]
fn every_known_kind_of_event_has_a_recording_that_decodes() {
    let mut kinds = BTreeSet::new();
    for event in documents::events() {
        let kind = event.kind().expect("a known kind");
        kinds.insert(kind);
        let bytes = recorded(&format!("event-{kind}"), || {
            bytes(&event.to_body().expect("encodes"))
        });
        let body = value(&bytes);
        assert_eq!(Event::from_body(kind, &body).expect("decodes"), event);
        let newer = Event::from_body(kind, &from_a_newer_release(body));
        assert_eq!(newer.expect("decodes"), event);
    }
    assert_eq!(kinds, Event::KINDS.iter().copied().collect());
}

#[test]
fn every_recorded_file_is_checked() {
    let mut checked: BTreeSet<String> = [
        "batch-minimal",
        "batch-full",
        "enroll-request",
        "enroll-response",
        "enroll-pending",
        "renew-request",
        "renew-request-clone",
        "renew-response",
        "challenge-request",
        "challenge-response",
        "return-request",
        "packages-part",
        "plays",
        "plays-taken",
        "plays-rejected",
        "problem",
        "updates-part",
        "frames",
    ]
    .map(str::to_owned)
    .into();
    checked.extend(backups::NAMES.map(str::to_owned));
    checked.extend(Event::KINDS.iter().map(|kind| format!("event-{kind}")));
    checked.extend(
        documents::frames()
            .iter()
            .map(|(n, _)| format!("frame-{n}")),
    );
    let files = fs::read_dir(directory()).expect("recordings are there");
    let names = files.map(|file| {
        let name = file.expect("readable").file_name();
        let name = name.to_str().expect("ASCII");
        name.trim_end_matches(".msgpack").to_owned()
    });
    assert_eq!(names.collect::<BTreeSet<_>>(), checked);
}

#[test]
fn a_missing_optional_field_has_its_default() {
    let id = || Value::Binary(vec![7; 16]);
    let least = map([
        ("protocol", 1.into()),
        ("stream", id()),
        ("instance", id()),
        ("boot_id", id()),
        ("sent_at", 5.into()),
        ("policy_version", 0.into()),
    ]);
    let batch: Batch = decode(&bytes(&least));
    assert_eq!(batch.wait_ms, 0);
    assert!(batch.commands_seen.is_empty() && batch.parts.is_empty() && batch.state.is_empty());
    assert_eq!(batch.heartbeat, None);

    let least = map([
        ("stream", id()),
        ("n", 3.into()),
        ("at", 5.into()),
        ("mono_ms", 6.into()),
    ]);
    let heartbeat: Heartbeat = decode(&bytes(&least));
    let expected = Heartbeat {
        stream: heartbeat.stream,
        n: 3,
        at: heartbeat.at,
        mono_ms: 6,
        ..Heartbeat::default()
    };
    assert_eq!(heartbeat, expected);
    assert_eq!(heartbeat.cpu_ratio, None, "unknown is not 0");
    assert_eq!(heartbeat.spool, SpoolUsage::default());

    let least = map([
        ("key", "facts.os".into()),
        ("version", 1.into()),
        ("new_hash", id()),
        ("body", Value::Nil),
    ]);
    let state: StatePart = decode(&bytes(&least));
    assert_eq!((state.part, state.parts, state.base_hash), (0, 1, None));

    let least = map([
        ("seq", 1.into()),
        ("at", 2.into()),
        ("kind", "x".into()),
        ("body", Value::Nil),
    ]);
    let record: Record = decode(&bytes(&least));
    assert_eq!((record.mono_ms, record.boot_id), (0, None));
}

#[test]
fn a_missing_optional_field_of_a_small_document_has_its_default() {
    let policy: Policy = decode(&bytes(&map([("version", 2.into())])));
    assert_eq!(policy.intervals, Intervals::default());
    let ack: Ack = decode(&bytes(&map([("server_time", 9.into())])));
    assert!(ack.cursors.is_empty() && ack.expected.is_empty() && ack.rejected.is_empty());
    let rejected: Rejected = decode(&bytes(&map([("code", "x".into())])));
    assert_eq!((rejected.seq, rejected.key), (None, None));
    let agent: AgentUsage = decode(&bytes(&map([("version", "1".into())])));
    assert_eq!((agent.rss_bytes, agent.cpu_ms), (None, None));
    let mounted = map([
        ("mount", "/".into()),
        ("total_bytes", 2.into()),
        ("available_bytes", 1.into()),
    ]);
    let mounted: FilesystemUsage = decode(&bytes(&mounted));
    assert_eq!((mounted.inodes_total, mounted.inodes_free), (0, 0));
    let problem = map([
        ("type", "x".into()),
        ("title", "X".into()),
        ("status", 400.into()),
    ]);
    let problem: Problem = decode(&bytes(&problem));
    assert_eq!((problem.detail, problem.request_id), (None, None));

    let mut request = value(&codec::encode(&documents::enroll_request()).expect("encodes"));
    without(&mut request, "machine_id");
    assert_eq!(decode::<EnrollRequest>(&bytes(&request)).machine_id, None);
}

#[test]
fn a_missing_required_field_is_an_error_that_names_it() {
    for field in ["protocol", "stream", "instance", "boot_id", "sent_at"] {
        let mut batch = value(&codec::encode(&documents::batch_minimal()).expect("encodes"));
        without(&mut batch, field);
        let error = codec::decode::<Batch>(&bytes(&batch), &Limits::default());
        let error = format!("{:?}", error.expect_err("incomplete"));
        assert!(error.contains(field), "{error}");
    }
    let mut response = value(&codec::encode(&documents::enroll_response()).expect("encodes"));
    without(&mut response, "chain");
    assert!(codec::decode::<EnrollResponse>(&bytes(&response), &Limits::default()).is_err());
}

fn without(document: &mut Value, field: &str) {
    let Value::Map(entries) = document else {
        panic!("a map");
    };
    let before = entries.len();
    entries.retain(|(key, _)| key.as_str() != Some(field));
    assert_eq!(entries.len() + 1, before, "{field} was there");
}

#[test]
fn a_record_of_an_unknown_kind_stays_as_it_is() {
    let body = map([
        ("user", "root".into()),
        ("deep", Value::Array(vec![Value::Binary(vec![0, 255])])),
    ]);
    let mut batch = documents::batch_full();
    let record = &mut batch.parts[0].records[0];
    record.kind = "login".to_owned();
    record.body = Body::Event(body.clone());
    let read: Batch = decode(&codec::encode(&batch).expect("encodes"));
    assert_eq!(read, batch);
    let event = Event::from_body("login", &body).expect("kept");
    assert_eq!(event, Event::Unknown(body.clone()));
    assert_eq!(event.to_body().expect("encodes"), body);
    assert_eq!(event.kind(), None);
}

#[test]
fn a_known_kind_of_another_shape_is_an_error_of_that_record_alone() {
    let mut batch = documents::batch_full();
    batch.parts[0].records[0].body = Body::Event(Value::from("no map"));
    let read: Batch = decode(&codec::encode(&batch).expect("encodes"));
    assert_eq!(read, batch, "the batch decodes");
    assert!(Event::from_body("agent_start", &Value::from("no map")).is_err());
}

#[test]
fn a_body_before_its_kind_is_refused() {
    let record = map([
        ("seq", 1.into()),
        ("at", 2.into()),
        ("body", Value::Nil),
        ("kind", "x".into()),
    ]);
    assert!(codec::decode::<Record>(&bytes(&record), &Limits::default()).is_err());
}

#[test]
fn an_unknown_frame_is_skipped() {
    let unknown = bytes(&map([("telemetry", map([("level", 3.into())]))]));
    let mut answer = u32::try_from(unknown.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    answer.extend(unknown);
    let goaway = Frame::from(Goaway { within_ms: 5000 });
    answer.extend(frame::encode(&goaway).expect("encodes"));
    let mut reader = FrameReader::default();
    reader.push(&answer);
    let first = reader.next_frame().expect("valid");
    assert_eq!(first, Some(Frame::default()));
    assert_eq!(reader.next_frame().expect("valid"), Some(goaway));
    assert!(reader.is_empty());
}

#[test]
fn an_unknown_word_of_an_open_list_is_its_catch_all() {
    let lost = map([
        ("from", 1.into()),
        ("to", 2.into()),
        ("reason", "eaten".into()),
    ]);
    assert_eq!(decode::<Lost>(&bytes(&lost)).reason, LostReason::Other);
    let action = bytes(&"format_disk".into());
    assert_eq!(decode::<Action>(&action), Action::Unsupported);
    let result = map([
        ("id", Value::Binary(vec![1; 16])),
        ("outcome", "postponed".into()),
    ]);
    let result: CommandResult = decode(&bytes(&result));
    assert_eq!(result.outcome, CommandOutcome::Other);
}
