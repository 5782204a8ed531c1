//! What holds for every document, not only for the recorded ones.

use infratrack_shared::codec::{self, Limits};
use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{BootId, CommandId, InstanceId, StreamId};
use infratrack_shared::limits;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::Frame;
use infratrack_shared::wire::batch::{
    Batch, Body, Class, Lost, LostReason, Part, Record, StatePart,
};
use infratrack_shared::wire::enroll::{
    ChallengeRequest, EnrollRequest, RenewRequest, ReturnRequest,
};
use infratrack_shared::wire::frame::FrameReader;
use infratrack_shared::wire::heartbeat::{FilesystemUsage, Heartbeat, SpoolUsage, Unknown};
use infratrack_shared::wire::problem::Problem;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rmpv::Value;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Any value but NaN, which equals nothing.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f32::NORMAL.prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        vec(any::<u8>(), 0..20).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((inner.clone(), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

prop_compose! {
    fn heartbeat()(
        stream in uuid(),
        (n, mono_ms, sizes) in (any::<u64>(), any::<u64>(), option::of(any::<u64>())),
        at in any::<i64>(),
        (ratio, count) in (option::of(proptest::num::f32::NORMAL), option::of(any::<u32>())),
        reboot_required in option::of(any::<bool>()),
        mounts in vec((".{0,12}", any::<u64>(), any::<u64>()), 0..4),
        (records, hash) in (any::<u64>(), option::of(".{0,8}")),
        unknown in vec((".{0,8}", ".{0,8}"), 0..3),
    ) -> Heartbeat {
        let mounted = |(mount, total_bytes, available_bytes)| FilesystemUsage {
            mount, total_bytes, available_bytes, ..FilesystemUsage::default()
        };
        let digest = |text: String| Digest::of(text.as_bytes());
        Heartbeat {
            stream: StreamId(stream),
            n,
            at: UnixMillis(at),
            mono_ms,
            cpu_ratio: ratio,
            load_1: ratio,
            io_pressure_full_ratio: ratio,
            temperature_max_celsius: ratio,
            memory_total_bytes: sizes,
            net_sent_bytes_per_s: sizes,
            process_count: count,
            failed_unit_count: count,
            reboot_required,
            filesystems: mounts.into_iter().map(mounted).collect(),
            spool: SpoolUsage { critical_records: records, ..SpoolUsage::default() },
            facts_hash: hash.map(digest),
            unknown: unknown.into_iter().map(|(field, reason)| Unknown { field, reason }).collect(),
            ..Heartbeat::default()
        }
    }
}

fn record() -> impl Strategy<Value = Record> {
    let event = ("[a-z_]{0,12}", value()).prop_filter_map("the heartbeat's own", |(kind, body)| {
        (kind != Heartbeat::KIND).then_some((kind, Body::Event(body)))
    });
    let beat = heartbeat().prop_map(|h| (Heartbeat::KIND.to_owned(), Body::Heartbeat(Box::new(h))));
    let common = (any::<u64>(), any::<i64>(), any::<u64>(), option::of(uuid()));
    (prop_oneof![event, beat], common).prop_map(|((kind, body), (seq, at, mono_ms, boot))| Record {
        seq,
        at: UnixMillis(at),
        mono_ms,
        boot_id: boot.map(BootId),
        kind,
        body,
    })
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Critical), Just(Class::Beat)]
}

fn lost() -> impl Strategy<Value = Lost> {
    let reason = prop_oneof![
        Just(LostReason::RingFull),
        Just(LostReason::Quota),
        Just(LostReason::Damaged),
        Just(LostReason::AckedNotKept),
        Just(LostReason::Refused),
        Just(LostReason::DiskFull),
        Just(LostReason::Other),
    ];
    (any::<u64>(), any::<u64>(), reason).prop_map(|(from, to, reason)| Lost { from, to, reason })
}

fn part() -> impl Strategy<Value = Part> {
    let fields = (
        class(),
        any::<u64>(),
        vec(lost(), 0..3),
        vec(record(), 0..5),
    );
    fields.prop_map(|(class, first_seq, lost, records)| Part {
        class,
        first_seq,
        lost,
        records,
    })
}

prop_compose! {
    fn state()(
        key in ".{0,12}",
        version in any::<u64>(),
        base in option::of(".{0,4}"),
        new in ".{0,4}",
        (part, parts) in (any::<u32>(), any::<u32>()),
        body in value(),
    ) -> StatePart {
        let base_hash = base.map(|base| Digest::of(base.as_bytes()));
        StatePart { key, version, base_hash, new_hash: Digest::of(new.as_bytes()), part, parts, body }
    }
}

prop_compose! {
    fn batch()(
        (protocol, policy_version, wait_ms) in (any::<u16>(), any::<u64>(), any::<u32>()),
        (stream, instance, boot) in (uuid(), uuid(), uuid()),
        sent_at in any::<i64>(),
        mono_ms in any::<Option<u64>>(),
        seen in vec(uuid(), 0..4),
        heartbeat in option::of(heartbeat()),
        parts in vec(part(), 0..3),
        state in vec(state(), 0..3),
    ) -> Batch {
        Batch {
            protocol,
            stream: StreamId(stream),
            instance: InstanceId(instance),
            boot_id: BootId(boot),
            sent_at: UnixMillis(sent_at),
            mono_ms,
            policy_version,
            wait_ms,
            commands_seen: seen.into_iter().map(CommandId).collect(),
            heartbeat,
            parts,
            state,
        }
    }
}

/// Every decoder of outside bytes; a panic is the failure.
fn decode_as_everything(bytes: &[u8]) {
    let small = Limits::bytes(limits::ENROLL_BYTES);
    drop(codec::decode::<Batch>(bytes, &Limits::default()));
    drop(codec::decode::<Frame>(bytes, &Limits::default()));
    drop(codec::decode::<EnrollRequest>(bytes, &small));
    drop(codec::decode::<RenewRequest>(bytes, &small));
    drop(codec::decode::<ChallengeRequest>(bytes, &small));
    drop(codec::decode::<ReturnRequest>(bytes, &small));
    drop(codec::decode::<Problem>(bytes, &small));
    let mut reader = FrameReader::default();
    reader.push(bytes);
    while let Ok(Some(_)) = reader.next_frame() {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_is_the_same_after_the_wire(batch in batch()) {
        let bytes = codec::encode(&batch).expect("encodes");
        let read: Batch = codec::decode(&bytes, &Limits::default()).expect("decodes");
        prop_assert_eq!(read, batch);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..512)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn no_damage_to_a_batch_makes_a_decoder_panic(
        batch in batch(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = codec::encode(&batch).expect("encodes");
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        decode_as_everything(&bytes);
        decode_as_everything(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn a_batch_as_deep_as_the_walk_allows_decodes_and_a_level_more_is_refused() {
    // batch, parts, part, records, record: 5 levels above the body.
    let nested = |levels: usize| {
        let mut batch = super::documents::batch_full();
        let body = (0..levels).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
        batch.parts[0].records[1].body = Body::Event(body);
        codec::encode(&batch).expect("encodes")
    };
    let deepest = nested(limits::DEPTH - 5);
    codec::decode::<Batch>(&deepest, &Limits::default()).expect("just deep enough");
    let too_deep = codec::decode::<Batch>(&nested(limits::DEPTH - 4), &Limits::default());
    let error = too_deep.expect_err("too deep").to_string();
    assert!(error.starts_with("nested deeper than 32"), "{error}");
}
