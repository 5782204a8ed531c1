//! What a sample host has behind it: starts, stops and silences as events, an upgrade among its facts, and what
//! operators wrote down.

use infratrack_shared::ids::HostId;
use infratrack_shared::wire::event::{
    self, AgentStart, AgentStop, CertificateRenewed, PackageAction, PackageChange,
    PackageTransaction, StopReason,
};
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};

use super::member::{Member, Presence, Role, Trouble};
use super::{CERTIFICATE, certified_before, changes, software};
use crate::agents::writer::json;
use crate::store::events::Event;
use crate::store::tasks::TaskRow;
use crate::store::{json_text, unix_millis};

/// The longest past of a host.
pub(super) const PAST: Duration = Duration::days(20);

/// How long ago its kernel was upgraded, where that left a trace.
pub(super) fn upgraded_before(member: Member) -> Duration {
    member.booted_before().min(PAST - Duration::DAY)
}

/// Its events, oldest first.
pub(super) fn events(member: Member, loaded_at: OffsetDateTime) -> Vec<Event> {
    let mut told = Vec::new();
    let mut tell = |at: OffsetDateTime, body: event::Event| {
        told.extend(said(member, at, &body, told.len()));
    };
    let start = |before: u32| {
        event::Event::AgentStart(AgentStart {
            instance: member.instance(before),
            boot_id: member.boot(before),
            version: member.agent_version().to_owned(),
        })
    };
    let stop = |before: u32, reason| {
        let instance = member.instance(before);
        event::Event::AgentStop(AgentStop { instance, reason })
    };
    let booted_at = loaded_at - member.booted_before();
    if booted_at > loaded_at - PAST {
        // A reboot: the process before it said its last words.
        tell(
            booted_at - Duration::seconds(40),
            stop(1, StopReason::Shutdown),
        );
        tell(booted_at + Duration::seconds(11), start(0));
    }
    let certified_at = loaded_at - certified_before(member);
    if certified_at > loaded_at - PAST {
        let renewed = CertificateRenewed {
            serial: hex::encode(member.serial()),
            not_after: unix_millis(certified_at + CERTIFICATE),
        };
        tell(certified_at, event::Event::CertificateRenewed(renewed));
    }
    for (before, transaction) in packages(member, loaded_at) {
        let done = event::Event::PackageTransaction(transaction);
        tell(loaded_at - before, done);
    }
    if let Presence::Offline(since, reason) = member.presence() {
        let at = loaded_at - since;
        match reason {
            "shutdown" => tell(at, stop(0, StopReason::Shutdown)),
            "agent stopped" => tell(at, stop(0, StopReason::Stopped)),
            _ => {}
        }
        told.push(transition(
            member.host(),
            at + Duration::seconds(95),
            "online",
            "late",
            reason,
        ));
        told.push(transition(
            member.host(),
            at + Duration::seconds(305),
            "late",
            "offline",
            reason,
        ));
    }
    told.sort_by_key(|event| event.at);
    told
}

/// What package managers did, and how long ago: in the play with security updates, and once by hand, which no change tells.
fn packages(member: Member, loaded_at: OffsetDateTime) -> Vec<(Duration, PackageTransaction)> {
    let mut done = Vec::new();
    let mut tell = |before: Duration, command: &str, via: Option<&str>, changes| {
        let at = loaded_at - before;
        let transaction = PackageTransaction {
            manager: software::manager(member),
            source: software::log(member).to_owned(),
            started_at: unix_millis(at - Duration::seconds(12)),
            ended_at: Some(unix_millis(at)),
            command: Some(command.to_owned()),
            requested_by: Some("deploy".to_owned()),
            via: via.map(str::to_owned),
            changes,
            ..PackageTransaction::default()
        };
        done.push((before, transaction));
    };
    if changes::is_patched(member) {
        let before = changes::PATCHED_BEFORE - Duration::seconds(70);
        let command = software::upgrade_command(member);
        tell(before, command, Some("ansible"), software::upgraded(member));
    }
    if member.trouble() == Some(Trouble::DiskCritical) {
        let installed = PackageChange {
            action: PackageAction::Installed,
            name: "ncdu".to_owned(),
            arch: "amd64".to_owned(),
            to: Some("1.18-0.2".to_owned()),
            ..PackageChange::default()
        };
        let command = "apt-get install ncdu";
        tell(Duration::minutes(95), command, None, vec![installed]);
    }
    done
}

/// As an agent says it.
fn said(member: Member, at: OffsetDateTime, body: &event::Event, nth: usize) -> Option<Event> {
    let value = body.to_body().ok()?;
    let seq = nth as u64 + 1;
    Some(Event {
        host: member.host(),
        at,
        claimed_at: at,
        origin: Some((member.stream(), seq, member.boot(0), seq)),
        instance: Some(member.instance(0)),
        kind: body.kind()?.to_owned(),
        body: Json(json::text(&value)),
    })
}

/// As the liveness job says it.
fn transition(host: HostId, at: OffsetDateTime, was: &str, is: &str, reason: &str) -> Event {
    Event {
        host,
        at,
        claimed_at: at,
        origin: None,
        instance: None,
        kind: format!("host_{is}"),
        body: json_text(&serde_json::json!({"from": was, "reason": reason, "last_seen_at": null})),
    }
}

/// What operators wrote down of it.
pub(super) fn tasks(member: Member, loaded_at: OffsetDateTime) -> Vec<TaskRow> {
    let mut tasks = Vec::new();
    let mut write = |kind: &str, status: &str, title: &str, notes: &str, in_hours: i64| {
        let nth = u32::try_from(tasks.len()).unwrap_or_default();
        let at = loaded_at + Duration::hours(in_hours);
        let written_at = at.min(loaded_at - Duration::hours(1));
        tasks.push(TaskRow {
            task_id: member.task(nth),
            host_id: member.host().0,
            kind: kind.to_owned(),
            status: status.to_owned(),
            title: title.to_owned(),
            notes: notes.to_owned(),
            at,
            created_at: written_at,
            created_by: BY.to_owned(),
            updated_at: written_at,
            updated_by: BY.to_owned(),
        });
    };
    match member.trouble() {
        Some(Trouble::DiskCritical) => {
            write(
                "other",
                "in_progress",
                "Make room on the data volume",
                "Old WAL archives go first; then the volume grows to 500 GiB.",
                -2,
            );
        }
        Some(Trouble::RebootRequired) => {
            write(
                "reboot",
                "planned",
                "Reboot into the new kernel",
                "In the window of Thursday night.",
                62,
            );
            write("patch", "done", "Kernel and OpenSSL upgraded", "", -9 * 24);
        }
        Some(Trouble::FailedUnits) => {
            write(
                "other",
                "failed",
                "Restart certbot",
                "It fails again: the challenge is not answered.",
                -20,
            );
        }
        _ if member.role() == Role::Db && member.roll("tasks", 4) == 0 => {
            write(
                "patch",
                "done",
                "Minor release of Postgres",
                "Done on the standby first.",
                -7 * 24,
            );
        }
        _ if member.roll("tasks", 20) == 0 => {
            write("installation", "done", "Put into service", "", -18 * 24);
        }
        _ => {}
    }
    tasks
}

/// Who wrote the tasks.
const BY: &str = "sample";
