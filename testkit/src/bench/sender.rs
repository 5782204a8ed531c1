//! What one host of a measurement sends: live heartbeats, and the backlog of an outage.
//!
//! Every request is one that an agent could have sent, and no two are the same. Backlogs are encoded before they
//! are measured: in a fleet that is other machines' work.

use std::io::Write;

use infratrack_agent::clock::Clock;
use infratrack_agent::collect;
use infratrack_shared::ids::{BootId, InstanceId, StreamId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Batch, Body, Class, Part, Record};
use infratrack_shared::wire::heartbeat::{Heartbeat, SpoolUsage};
use infratrack_shared::wire::{CONTENT_TYPE, PROTOCOL, path};
use infratrack_shared::{codec, compress};
use serde::Serialize;
use serde_json::value::RawValue;

use super::members::Member;
use crate::fleet::heartbeat::Host;

/// Between two heartbeats of a backlog, in milliseconds.
const INTERVAL_MS: i64 = 30_000;
/// Simulated hosts have been up for longer than any backlog, in milliseconds.
const UPTIME_MS: u64 = 30 * 24 * 3600 * 1000;
/// The kind of the events.
pub const KIND: &str = "package_upgraded";

/// A host, and how far it has counted.
#[derive(Debug)]
pub struct Sender {
    pub member: Member,
    values: Host,
    clock: Clock,
    n: u64,
    beats: u64,
    events: u64,
}

impl Sender {
    /// `index` seeds what it says of itself.
    pub fn new(index: usize, member: Member) -> Self {
        Self {
            member,
            values: Host::new(1, index),
            clock: Clock::system(),
            n: 0,
            beats: 0,
            events: 0,
        }
    }

    /// The next live heartbeat, as an HTTP request.
    pub fn live(&mut self, request: &mut Vec<u8>) -> anyhow::Result<()> {
        let (now, mono_ms) = self.clocks();
        let batch = Batch {
            heartbeat: Some(self.heartbeat(now, mono_ms)),
            ..self.batch(now, mono_ms)
        };
        write_request(request, &batch)
    }

    /// Heartbeats that could not be sent when they were due, the oldest `ago` before now.
    pub fn beats(&mut self, ago_ms: i64, count: usize) -> anyhow::Result<Vec<u8>> {
        let (now, mono_ms) = self.clocks();
        let first_seq = self.beats + 1;
        let records = (0..count).map(|place| {
            let before_ms = ago_ms - INTERVAL_MS * i64::try_from(place).unwrap_or(i64::MAX);
            let at = now.plus_millis(-before_ms);
            let then_ms = mono_ms.saturating_sub(before_ms.unsigned_abs());
            self.beats += 1;
            Record {
                seq: self.beats,
                at,
                mono_ms: then_ms,
                boot_id: None,
                kind: Heartbeat::KIND.to_owned(),
                body: Body::Heartbeat(Box::new(self.heartbeat(at, then_ms))),
            }
        });
        let records = records.collect();
        self.replay(Class::Beat, first_seq, records, (now, mono_ms))
    }

    /// Events that happened within the last `ago`.
    pub fn events(&mut self, ago_ms: i64, count: usize) -> anyhow::Result<Vec<u8>> {
        let (now, mono_ms) = self.clocks();
        let first_seq = self.events + 1;
        let step_ms = ago_ms / i64::try_from(count)?;
        let records = (0..count).map(|place| {
            let before_ms = ago_ms - step_ms * i64::try_from(place)?;
            self.events += 1;
            let body = codec::to_value(&Upgraded::new(self.events))?;
            Ok(Record {
                seq: self.events,
                at: now.plus_millis(-before_ms),
                mono_ms: mono_ms.saturating_sub(before_ms.unsigned_abs()),
                boot_id: None,
                kind: KIND.to_owned(),
                body: Body::Event(body),
            })
        });
        let records = records.collect::<anyhow::Result<_>>()?;
        self.replay(Class::Critical, first_seq, records, (now, mono_ms))
    }

    /// The wall clock, and the uptime in milliseconds.
    fn clocks(&self) -> (UnixMillis, u64) {
        (self.clock.now(), UPTIME_MS + collect::mono_ms())
    }

    fn replay(
        &self,
        class: Class,
        first_seq: u64,
        records: Vec<Record>,
        (now, mono_ms): (UnixMillis, u64),
    ) -> anyhow::Result<Vec<u8>> {
        let part = Part {
            class,
            first_seq,
            lost: Vec::new(),
            records,
        };
        let batch = Batch {
            parts: vec![part],
            ..self.batch(now, mono_ms)
        };
        let mut request = Vec::new();
        write_request(&mut request, &batch)?;
        Ok(request)
    }

    fn heartbeat(&mut self, at: UnixMillis, mono_ms: u64) -> Heartbeat {
        self.n += 1;
        let identity = (self.member.stream, self.n);
        self.values
            .heartbeat(identity, at, mono_ms, SpoolUsage::default())
    }

    fn batch(&self, sent_at: UnixMillis, mono_ms: u64) -> Batch {
        let (stream, instance, boot_id): (StreamId, InstanceId, BootId) = (
            self.member.stream,
            self.member.instance,
            self.member.boot_id,
        );
        Batch {
            protocol: PROTOCOL,
            stream,
            instance,
            boot_id,
            sent_at,
            mono_ms: Some(mono_ms),
            // The newest there is: none comes back.
            policy_version: u64::MAX,
            wait_ms: 0,
            commands_seen: Vec::new(),
            heartbeat: None,
            parts: Vec::new(),
            state: Vec::new(),
        }
    }
}

/// An event of a usual size: some 200 bytes of JSON.
#[derive(Serialize)]
struct Upgraded {
    package: String,
    old_version: String,
    new_version: String,
    architecture: &'static str,
    by: &'static str,
    command: String,
    unique: u64,
}

impl Upgraded {
    fn new(number: u64) -> Self {
        let (minor, patch) = (number % 7, number % 31);
        Self {
            package: format!("libexample{}", number % 997),
            old_version: format!("1.{minor}.{patch}-2+deb12u1"),
            new_version: format!("1.{minor}.{patch}-2+deb12u2"),
            architecture: "amd64",
            by: "unattended-upgrade",
            command: format!("/usr/bin/unattended-upgrade --run {number}"),
            unique: number,
        }
    }
}

/// What is stored of the event of that number.
pub fn event_json(number: u64) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(&Upgraded::new(number))
}

/// As `infratrack_agent::uplink` writes it.
fn write_request(request: &mut Vec<u8>, batch: &Batch) -> anyhow::Result<()> {
    let body = codec::encode(batch)?;
    let compressed = compress::compress(&body);
    request.clear();
    write!(
        request,
        "POST {} HTTP/1.1\r\nhost: 127.0.0.1:8443\r\ncontent-type: {CONTENT_TYPE}\r\n",
        path::BATCH
    )?;
    if compressed.is_some() {
        write!(request, "content-encoding: {}\r\n", compress::ENCODING)?;
    }
    let body = compressed.unwrap_or(body);
    write!(request, "content-length: {}\r\n\r\n", body.len())?;
    request.extend_from_slice(&body);
    Ok(())
}
