//! What release 0.1.0 sent, as values: one of every document, every field of it in use somewhere.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{BootId, CommandId, HostId, InstanceId, RunId, StreamId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::{
    Ack, Action, Command, Cursor, Expected, Frame, Goaway, Intervals, Policy, Rejected, StateAck,
    WantWhole,
};
use infratrack_shared::wire::batch::{
    Batch, Body, Class, Lost, LostReason, Part, Record, StatePart,
};
use infratrack_shared::wire::enroll::{
    ChallengeRequest, ChallengeResponse, EnrollPending, EnrollRequest, EnrollResponse,
    RenewRequest, RenewResponse, ReturnRequest,
};
use infratrack_shared::wire::event::{
    AgentStart, AgentStop, Boot, BootExpected, CertificateRenewed, CommandOutcome, CommandResult,
    DamagedClass, Event, PackageAction, PackageChange, PackageTransaction, SpoolDamaged,
    StopReason,
};
use infratrack_shared::wire::heartbeat::{
    AgentUsage, FilesystemUsage, Heartbeat, SpoolUsage, Unknown,
};
use infratrack_shared::wire::packages::{
    Blocked, BlockedWhy, Database, Group, Manager, Package, PackageKey, PackagesPart,
    PendingUpdate, UpdateCheck, UpdatesPart,
};
use infratrack_shared::wire::plays::{Plays, PlaysTaken, RejectedPlay};
use infratrack_shared::wire::problem::{Problem, code};
use rmpv::Value;
use serde_bytes::ByteBuf;
use uuid::Uuid;

/// 2026-01-01T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

/// The `n`th id; no clock, no chance.
fn id(n: u8) -> Uuid {
    Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 | u128::from(n))
}

fn stream() -> StreamId {
    StreamId(id(1))
}

fn instance() -> InstanceId {
    InstanceId(id(2))
}

fn boot() -> BootId {
    BootId(id(3))
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
    Value::Map(entries.collect())
}

pub(crate) fn batch_minimal() -> Batch {
    Batch {
        protocol: 1,
        stream: stream(),
        instance: instance(),
        boot_id: boot(),
        sent_at: NOW,
        mono_ms: None,
        policy_version: 0,
        wait_ms: 0,
        commands_seen: Vec::new(),
        heartbeat: None,
        parts: Vec::new(),
        state: Vec::new(),
    }
}

pub(crate) fn batch_full() -> Batch {
    Batch {
        mono_ms: Some(86_400_456),
        policy_version: 4,
        wait_ms: 29_500,
        commands_seen: vec![CommandId(id(9)), CommandId(id(10))],
        heartbeat: Some(heartbeat_full()),
        parts: vec![critical_part(), beat_part()],
        state: state(),
        ..batch_minimal()
    }
}

fn heartbeat_full() -> Heartbeat {
    Heartbeat {
        stream: stream(),
        n: 4711,
        at: NOW,
        mono_ms: 86_400_123,
        cpu_ratio: Some(0.25),
        load_1: Some(0.5),
        load_5: Some(1.5),
        load_15: Some(2.25),
        memory_total_bytes: Some(8 << 30),
        memory_available_bytes: Some(3 << 30),
        swap_total_bytes: Some(1 << 30),
        swap_used_bytes: Some(0),
        // Since a later release; the recorded bytes have none.
        cpu_pressure_some_ratio: None,
        memory_pressure_some_ratio: None,
        memory_pressure_full_ratio: None,
        io_pressure_some_ratio: None,
        io_pressure_full_ratio: None,
        temperature_max_celsius: None,
        filesystems: vec![
            FilesystemUsage {
                mount: "/".to_owned(),
                total_bytes: 100 << 30,
                available_bytes: 40 << 30,
                inodes_total: 6_553_600,
                inodes_free: 6_000_000,
            },
            FilesystemUsage {
                mount: "/srv/daten-ä".to_owned(),
                total_bytes: u64::MAX,
                available_bytes: 1,
                inodes_total: 0,
                inodes_free: 0,
            },
        ],
        disk_read_bytes_per_s: Some(1_000),
        disk_written_bytes_per_s: Some(70_000),
        net_received_bytes_per_s: Some(128),
        net_sent_bytes_per_s: Some(5_000_000_000),
        uptime_s: Some(86_400),
        process_count: Some(231),
        failed_unit_count: Some(1),
        reboot_required: Some(true),
        spool: SpoolUsage {
            critical_records: 3,
            beat_records: 1,
            size_bytes: 6 << 20,
        },
        agent: AgentUsage {
            version: "0.1.0".to_owned(),
            rss_bytes: Some(12 << 20),
            cpu_ms: Some(5_400),
        },
        facts_hash: Some(Digest::of(b"facts")),
        inventory_hash: Some(Digest::of(b"inventory")),
        unknown: vec![Unknown {
            field: "filesystems".to_owned(),
            reason: "/mnt/nfs: no answer within 1s".to_owned(),
        }],
    }
}

fn critical_part() -> Part {
    let start = Event::AgentStart(agent_start());
    Part {
        class: Class::Critical,
        first_seq: 41,
        lost: vec![
            Lost {
                from: 42,
                to: 49,
                reason: LostReason::Quota,
            },
            Lost {
                from: 51,
                to: 51,
                reason: LostReason::AckedNotKept,
            },
        ],
        records: vec![
            Record {
                seq: 41,
                at: NOW,
                mono_ms: 86_400_000,
                boot_id: None,
                kind: "agent_start".to_owned(),
                body: Body::Event(start.to_body().expect("encodes")),
            },
            Record {
                seq: 50,
                at: UnixMillis(-1),
                mono_ms: 12,
                boot_id: Some(BootId(id(4))),
                kind: "of_a_newer_agent".to_owned(),
                body: Body::Event(map([
                    ("nil", Value::Nil),
                    ("number", Value::from(-7)),
                    ("ratio", Value::F64(0.125)),
                    ("bytes", Value::Binary(vec![0, 1, 255])),
                    ("list", Value::Array(vec![true.into(), "text".into()])),
                ])),
            },
        ],
    }
}

fn beat_part() -> Part {
    let beat = Heartbeat {
        stream: stream(),
        n: 4710,
        at: UnixMillis(NOW.0 - 30_000),
        mono_ms: 86_370_123,
        agent: AgentUsage {
            version: "0.1.0".to_owned(),
            ..AgentUsage::default()
        },
        ..Heartbeat::default()
    };
    Part {
        class: Class::Beat,
        first_seq: 8,
        lost: vec![Lost {
            from: 8,
            to: 2_887,
            reason: LostReason::RingFull,
        }],
        records: vec![Record {
            seq: 2_888,
            at: beat.at,
            mono_ms: beat.mono_ms,
            boot_id: None,
            kind: Heartbeat::KIND.to_owned(),
            body: Body::Heartbeat(Box::new(beat)),
        }],
    }
}

fn state() -> Vec<StatePart> {
    vec![
        StatePart {
            key: "facts.os".to_owned(),
            version: 17,
            base_hash: None,
            new_hash: Digest::of(b"os"),
            part: 0,
            parts: 1,
            body: map([
                ("name", "Debian GNU/Linux".into()),
                ("version", "13".into()),
            ]),
        },
        StatePart {
            key: "packages".to_owned(),
            version: 18,
            base_hash: Some(Digest::of(b"before")),
            new_hash: Digest::of(b"after"),
            part: 1,
            parts: 3,
            body: Value::Array(vec![map([("removed", "telnet".into())])]),
        },
    ]
}

fn policy() -> Policy {
    Policy {
        version: 4,
        intervals: Intervals {
            heartbeat_ms: 15_000,
            facts_ms: 300_000,
        },
        trust_bundle: vec![ByteBuf::from(vec![0x30, 0x03, 0x02, 0x01, 0x05])],
        features: vec!["packages".to_owned()],
    }
}

/// One of each frame, in the order of an answer.
pub(crate) fn frames() -> Vec<(&'static str, Frame)> {
    vec![
        ("ack", ack().into()),
        ("policy", policy().into()),
        (
            "command",
            Command {
                id: CommandId(id(9)),
                expires_at: UnixMillis(NOW.0 + 600_000),
                action: Action::RefreshFacts,
                target: None,
            }
            .into(),
        ),
        (
            "command-target",
            Command {
                id: CommandId(id(10)),
                expires_at: UnixMillis(NOW.0 + 600_000),
                action: Action::RunBackup,
                target: Some("etc".to_owned()),
            }
            .into(),
        ),
        ("goaway", Goaway { within_ms: 5_000 }.into()),
    ]
}

fn ack() -> Ack {
    Ack {
        cursors: vec![
            Cursor {
                stream: stream(),
                class: Class::Critical,
                acked_seq: 51,
            },
            Cursor {
                stream: stream(),
                class: Class::Beat,
                acked_seq: 2_888,
            },
        ],
        state: vec![StateAck {
            key: "facts.os".to_owned(),
            version: 17,
            part: 0,
        }],
        want_whole: vec![WantWhole {
            key: "facts".to_owned(),
        }],
        rejected: vec![
            Rejected {
                class: Some(Class::Critical),
                seq: Some(50),
                code: "body_invalid".to_owned(),
                ..Rejected::default()
            },
            Rejected {
                key: Some("packages".to_owned()),
                version: Some(18),
                code: "state_parts_unsupported".to_owned(),
                ..Rejected::default()
            },
            Rejected {
                heartbeat: Some(4711),
                code: "of_a_newer_collector".to_owned(),
                ..Rejected::default()
            },
        ],
        expected: vec![Expected {
            stream: stream(),
            class: Class::Critical,
            seq: 12,
        }],
        server_time: UnixMillis(NOW.0 + 40),
    }
}

pub(crate) fn enroll_request() -> EnrollRequest {
    EnrollRequest {
        protocol: 1,
        token: "AQEBAQEBAQEB.AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI.\
                AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM"
            .to_owned(),
        csr: ByteBuf::from(vec![0x30, 0x82, 0x01, 0x00]),
        hostname: "web-01.example.org".to_owned(),
        boot_id: boot(),
        agent_version: "0.1.0".to_owned(),
        machine_id: Some("8d1f0c0e5bcd4a64b1a6a4d0f0a0b0c0".to_owned()),
    }
}

pub(crate) fn enroll_response() -> EnrollResponse {
    EnrollResponse {
        host_id: HostId(id(5)),
        chain: vec![ByteBuf::from(vec![1; 40]), ByteBuf::from(vec![2; 40])],
        trust_bundle: vec![ByteBuf::from(vec![3; 40])],
        not_after: UnixMillis(NOW.0 + 30 * 86_400_000),
        endpoints: vec![
            "collector-1.example.org:8443".to_owned(),
            "[2001:db8::1]:8443".to_owned(),
        ],
        policy: policy(),
        server_time: NOW,
    }
}

pub(crate) fn enroll_pending() -> EnrollPending {
    EnrollPending {
        poll_after_ms: 10_000,
    }
}

pub(crate) fn renew_request() -> RenewRequest {
    RenewRequest {
        protocol: 1,
        csr: ByteBuf::from(vec![0x30, 0x82, 0x01, 0x01]),
        instance: None,
    }
}

pub(crate) fn renew_request_of_a_clone() -> RenewRequest {
    RenewRequest {
        instance: Some(instance()),
        ..renew_request()
    }
}

pub(crate) fn renew_response() -> RenewResponse {
    RenewResponse {
        chain: vec![ByteBuf::from(vec![4; 40]), ByteBuf::from(vec![2; 40])],
        trust_bundle: vec![ByteBuf::from(vec![3; 40]), ByteBuf::from(vec![5; 40])],
        not_after: UnixMillis(NOW.0 + 30 * 86_400_000),
        server_time: NOW,
    }
}

pub(crate) fn challenge_request() -> ChallengeRequest {
    ChallengeRequest { protocol: 1 }
}

pub(crate) fn challenge_response() -> ChallengeResponse {
    ChallengeResponse {
        nonce: ByteBuf::from(vec![6; 48]),
        server_time: NOW,
    }
}

pub(crate) fn return_request() -> ReturnRequest {
    ReturnRequest {
        protocol: 1,
        certificate: ByteBuf::from(vec![4; 40]),
        nonce: ByteBuf::from(vec![6; 48]),
        csr: ByteBuf::from(vec![0x30, 0x82, 0x01, 0x02]),
        signature: ByteBuf::from(vec![0x30, 0x45, 7]),
    }
}

pub(crate) fn problem() -> Problem {
    Problem {
        code: code::BODY_INVALID.to_owned(),
        title: "Bad Request".to_owned(),
        status: 400,
        detail: Some("parts/0: sequence number 7 where 5 is next".to_owned()),
        request_id: Some("0192".to_owned()),
    }
}

fn agent_start() -> AgentStart {
    AgentStart {
        instance: instance(),
        boot_id: boot(),
        version: "0.1.0".to_owned(),
    }
}

/// One of each known kind.
pub(crate) fn events() -> Vec<Event> {
    vec![
        Event::AgentStart(agent_start()),
        Event::AgentStop(AgentStop {
            instance: instance(),
            reason: StopReason::Shutdown,
        }),
        Event::SpoolDamaged(SpoolDamaged {
            stream: Some(stream()),
            detail: "the ledger names records that can't be read".to_owned(),
            classes: vec![DamagedClass {
                class: Class::Critical,
                expected: 20,
                salvaged: 18,
            }],
        }),
        Event::CommandResult(CommandResult {
            id: CommandId(id(9)),
            outcome: CommandOutcome::Failed,
            detail: Some("the disk is full".to_owned()),
        }),
        Event::CertificateRenewed(CertificateRenewed {
            serial: "0a1b2c".to_owned(),
            not_after: UnixMillis(NOW.0 + 30 * 86_400_000),
        }),
        Event::Boot(Boot {
            boot_id: boot(),
            booted_at: UnixMillis(NOW.0 - 60_000),
            kernel: Some("6.1.0-28-amd64".to_owned()),
            container: None,
            previous_boot_id: Some(BootId(id(4))),
            previous_kernel: Some("6.1.0-27-amd64".to_owned()),
            expected: BootExpected::Yes,
            evidence: vec!["the agent was stopped as the host went down".to_owned()],
        }),
        Event::PackageTransaction(PackageTransaction {
            manager: Manager::Dpkg,
            source: "/var/log/dpkg.log".to_owned(),
            started_at: UnixMillis(NOW.0 - 5_000),
            ended_at: Some(NOW),
            command: Some("apt-get install tool".to_owned()),
            requested_by: Some("anna".to_owned()),
            via: Some("ansible".to_owned()),
            changes: vec![
                PackageChange {
                    action: PackageAction::Upgraded,
                    name: "tool".to_owned(),
                    arch: "amd64".to_owned(),
                    from: Some("1:1.0-1".to_owned()),
                    to: Some("1:1.1-1".to_owned()),
                    left: None,
                    automatic: false,
                },
                PackageChange {
                    action: PackageAction::Installed,
                    name: "libtool".to_owned(),
                    arch: "all".to_owned(),
                    from: None,
                    to: Some("2".to_owned()),
                    left: Some("half-configured".to_owned()),
                    automatic: true,
                },
            ],
            error: Some("Sub-process /usr/bin/dpkg returned an error code (1)".to_owned()),
            part: 1,
            parts: 2,
        }),
        Event::BackupResult(crate::backups::end()),
    ]
}

pub(crate) fn packages_part() -> PackagesPart {
    PackagesPart {
        databases: vec![
            Database {
                manager: Manager::Dpkg,
                unknown: None,
                skipped: 1,
                has_log: true,
            },
            Database {
                manager: Manager::Rpm,
                unknown: Some("/var/lib/rpm: it is locked".to_owned()),
                skipped: 0,
                has_log: false,
            },
        ],
        put: vec![Group {
            manager: Manager::Dpkg,
            packages: vec![Package {
                name: "libssl3".to_owned(),
                version: "3.0.15-1~deb12u1".to_owned(),
                arch: "amd64".to_owned(),
                source: Some("openssl".to_owned()),
                source_version: Some("3.0.15-1".to_owned()),
                vendor: Some("Debian".to_owned()),
                installed_at_s: Some(1_767_225_600),
                held: true,
                broken: Some("unpacked".to_owned()),
            }],
        }],
        gone: vec![Group {
            manager: Manager::Dpkg,
            packages: vec![PackageKey {
                name: "libssl3".to_owned(),
                version: "3.0.14-1".to_owned(),
                arch: "amd64".to_owned(),
            }],
        }],
    }
}

pub(crate) fn plays() -> Plays {
    Plays {
        protocol: 1,
        run: RunId(id(9)),
        first_seq: 8,
        records: vec![
            r#"{"kind":"host","number":0,"name":"web1"}"#.to_owned(),
            r#"{"kind":"end","at":"2026-01-01T00:00:00.000Z","outcome":"ok"}"#.to_owned(),
        ],
    }
}

pub(crate) fn plays_taken() -> PlaysTaken {
    PlaysTaken {
        acked_seq: 9,
        rejected: None,
    }
}

pub(crate) fn plays_rejected() -> PlaysTaken {
    PlaysTaken {
        acked_seq: 7,
        rejected: Some(RejectedPlay {
            seq: 8,
            status: 422,
            detail: "is no record: missing field `name`".to_owned(),
        }),
    }
}

pub(crate) fn updates_part() -> UpdatesPart {
    UpdatesPart {
        checks: vec![UpdateCheck {
            manager: Manager::Dpkg,
            tool: "apt".to_owned(),
            unknown: Some("no package lists: apt-get update has not run".to_owned()),
            metadata_at_s: Some(1_767_139_200),
            warnings: vec!["deb.example stable: no lists".to_owned()],
        }],
        pending: vec![Group {
            manager: Manager::Dpkg,
            packages: vec![PendingUpdate {
                name: "libssl3".to_owned(),
                arch: "amd64".to_owned(),
                installed: "3.0.14-1".to_owned(),
                candidate: "3.0.15-1~deb12u1".to_owned(),
                source: Some("openssl".to_owned()),
                repository: Some("Debian-Security:12/stable-security".to_owned()),
                security: Some(true),
                severity: Some("important".to_owned()),
                advisories: vec!["DSA-5764-1".to_owned()],
                blocked: Some(Blocked {
                    why: BlockedWhy::Phased,
                    detail: Some("30 %".to_owned()),
                }),
            }],
        }],
    }
}
