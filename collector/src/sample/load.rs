//! Writes the sample fleet into the tables, all of it in the caller's transaction.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::beat::{self, INTERVAL};
use super::member::{CLONE, CLONED, Member, Presence, Role, Trouble};
use super::{CERTIFICATE, Fleet, TAG, certified_before, facts, past};
use crate::jobs::rollup;
use crate::store::events::{self, Event};
use crate::store::heartbeats::{self, Row, disk_used_ratio};
use crate::store::host_conflicts::{self, NewConflict};
use crate::store::host_instances::{self, Arrival, InstanceRow};
use crate::store::host_liveness::{self, Seen};
use crate::store::hosts::Cutoffs;
use crate::store::sample_hosts::{self, Bucket, NewHost, Standing};
use crate::store::{host_search, hosts, partitions, rollups, tasks};

/// Rows of one statement.
const CHUNK: usize = 2000;
const BUCKET: Duration = Duration::minutes(5);
const HOUR: Duration = Duration::hours(1);
/// A bucket is summed this long after its end, as the job does it.
const SEALED_AFTER: Duration = Duration::minutes(4);

/// Makes it.
pub(super) async fn fleet(
    connection: &mut PgConnection,
    fleet: Fleet,
    cutoffs: Cutoffs,
) -> sqlx::Result<()> {
    let now = cutoffs.now;
    make_partitions(connection, fleet, now).await?;
    let mut members: Vec<_> = (0..fleet.hosts).map(Member).collect();
    if fleet.hosts > CLONED {
        members.push(Member(CLONE));
    }
    // Whoever writes many rows writes them by host.
    members.sort_by_key(|member| member.host());
    // The clone after the host that it refers to.
    let is_clone = |member: &Member| member.0 == CLONE;
    let (clones, hosts): (Vec<_>, Vec<_>) = members.iter().copied().partition(is_clone);
    for member in hosts.into_iter().chain(clones) {
        make_host(connection, member, now).await?;
    }
    store_facts(connection, &members, now).await?;
    let seen: Vec<_> = members
        .iter()
        .filter_map(|member| Some((*member, last_seen_at(*member, cutoffs)?)))
        .collect();
    for (member, at) in &seen {
        stand(connection, *member, *at, now).await?;
        beat(connection, &[(*member, *at)], now, now - fleet.heartbeats).await?;
    }
    heartbeats_until(connection, &seen, fleet, now).await?;
    tell_events(connection, &members, now).await?;
    if fleet.hosts > CLONED {
        make_conflict(connection, now).await?;
    }
    Ok(())
}

/// When it was seen last; `None`: never.
pub(crate) fn last_seen_at(member: Member, cutoffs: Cutoffs) -> Option<OffsetDateTime> {
    let now = cutoffs.now;
    match member.presence() {
        // Not all in the same instant.
        Presence::Online => Some(now - Duration::seconds(member.roll("phase", 20).cast_signed())),
        Presence::Late => {
            let late = cutoffs.late_before - cutoffs.offline_before;
            Some(cutoffs.late_before - late / 2)
        }
        Presence::Offline(since, _) => Some((now - since).min(cutoffs.offline_before - HOUR / 60)),
        Presence::Never => None,
    }
}

async fn make_partitions(
    connection: &mut PgConnection,
    fleet: Fleet,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let mut day = (now - fleet.heartbeats - HOUR).date();
    while day <= now.date() {
        partitions::create_heartbeats(connection, day).await?;
        day += Duration::DAY;
    }
    for at in [now - past::PAST, now] {
        partitions::create_events(connection, at.year(), at.month()).await?;
    }
    Ok(())
}

async fn make_host(
    connection: &mut PgConnection,
    member: Member,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let role = member.role();
    let notes = match (member.trouble(), role) {
        (Some(Trouble::DiskCritical), _) => {
            Some("Primary of the shop's database. **Page the team before a restart.**")
        }
        (_, Role::Ci) => Some("Builds of all teams; may be rebooted at any time."),
        _ => None,
    };
    let new = NewHost {
        host: member.host(),
        number: i32::try_from(member.0).unwrap_or_default(),
        name: member.name(),
        tags: vec![
            TAG.to_owned(),
            format!("role:{}", role.name()),
            format!("site:{}", member.site()),
        ],
        owner: role.owner().to_owned(),
        environment: member.environment().to_owned(),
        notes: notes.map(str::to_owned),
        origin: if member.is_manual() {
            "manual"
        } else {
            "agent"
        },
        created_at: now - Duration::days(21) - certified_before(member),
        conflict_of: (member.0 == CLONE).then(|| Member(CLONED).host()),
    };
    sample_hosts::insert(connection, &new, now).await?;
    if !member.is_manual() && member.0 != CLONE {
        let issued_at = now - certified_before(member);
        let until = issued_at + CERTIFICATE;
        sample_hosts::insert_cert(connection, new.host, &member.serial(), issued_at, until).await?;
    }
    for task in past::tasks(member, now) {
        tasks::insert(connection, &task).await?;
    }
    Ok(())
}

/// What it was before its last upgrade, then what it is.
async fn store_facts(
    connection: &mut PgConnection,
    members: &[Member],
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let told: Vec<_> = members
        .iter()
        .filter(|member| member.presence() != Presence::Never)
        .collect();
    for version in [1, 2] {
        // Changes have one instant a statement.
        for some in told.chunks(10) {
            let all: Vec<_> = some
                .iter()
                .flat_map(|member| facts::facts(**member, version))
                .collect();
            let all: Vec<_> = all.iter().collect();
            let before = some
                .iter()
                .map(|member| past::upgraded_before(**member))
                .min();
            let at = match version {
                1 => now - past::PAST,
                _ => now - before.unwrap_or_default(),
            };
            crate::store::facts::upsert(connection, &all, at).await?;
        }
    }
    let ids: Vec<_> = told.iter().map(|member| member.host().0).collect();
    hosts::update_identity(connection, &ids).await?;
    for some in ids.chunks(50) {
        host_search::update_fact_words(connection, some).await?;
    }
    Ok(())
}

/// Its row as it was before its last heartbeat.
async fn stand(
    connection: &mut PgConnection,
    member: Member,
    at: OffsetDateTime,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let (liveness, reason, since) = match member.presence() {
        Presence::Online | Presence::Never => ("online", None, now - member.booted_before()),
        Presence::Late => ("late", Some("unknown"), now - Duration::seconds(20)),
        Presence::Offline(_, reason) => ("offline", Some(reason), at + BUCKET),
    };
    let boot_at = now - member.booted_before();
    let standing = Standing {
        host: member.host(),
        last_seen_at: at,
        instance: member.instance(0),
        boot_id: member.boot(0),
        boot_at,
        liveness,
        reason,
        since,
        reboot_required_since: (member.trouble() == Some(Trouble::RebootRequired))
            .then(|| now - Duration::days(9)),
    };
    sample_hosts::update_standing(connection, &standing).await?;
    if let Some(address) = facts::address(member) {
        let arrival = Arrival {
            host: member.host(),
            instance: member.instance(0),
            boot_id: member.boot(0),
            address,
            received_at: boot_at,
        };
        host_instances::insert(connection, &arrival).await?;
    }
    Ok(())
}

/// One heartbeat of each of `members`, sorted by host, received when it says. Raw rows before `kept_from` are none:
/// they may have no partition.
pub(crate) async fn beat(
    connection: &mut PgConnection,
    members: &[(Member, OffsetDateTime)],
    loaded_at: OffsetDateTime,
    kept_from: OffsetDateTime,
) -> sqlx::Result<()> {
    let beats: Vec<_> = members
        .iter()
        .map(|(member, at)| (*member, *at, beat::heartbeat(*member, *at, loaded_at)))
        .collect();
    let kept = beats.iter().filter(|(_, at, _)| *at >= kept_from);
    let rows: Vec<_> = kept
        .map(|(member, at, beat)| row(*member, *at, beat))
        .collect();
    heartbeats::insert(connection, &rows.iter().collect::<Vec<_>>()).await?;
    let seen: Vec<_> = beats
        .iter()
        .map(|(member, at, beat)| Seen {
            host: member.host(),
            received_at: *at,
            instance: member.instance(0),
            boot_id: member.boot(0),
            skew_ms: beat::skew_ms(*member),
            disk_used_ratio: disk_used_ratio(beat),
            heartbeat: beat,
        })
        .collect();
    host_liveness::update_seen(connection, &seen)
        .await
        .map(drop)
}

fn row(
    member: Member,
    at: OffsetDateTime,
    heartbeat: &infratrack_shared::wire::heartbeat::Heartbeat,
) -> Row<'_> {
    Row {
        host: member.host(),
        at,
        may_move: false,
        claimed_at: crate::store::timestamp(heartbeat.at),
        received_at: at,
        instance: member.instance(0),
        heartbeat,
    }
}

/// Sums for days, each heartbeat for hours, and the sums of those.
async fn heartbeats_until(
    connection: &mut PgConnection,
    seen: &[(Member, OffsetDateTime)],
    fleet: Fleet,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let sealed = rollup::floor(now - SEALED_AFTER, BUCKET);
    let raw_from = rollup::floor(now - fleet.heartbeats, BUCKET);
    let sums_from = rollup::floor(now - fleet.sums, HOUR);
    let mut buckets = Vec::with_capacity(CHUNK);
    for (member, last) in seen {
        let mut at = sums_from;
        while at < raw_from && at < *last {
            let beat = beat::heartbeat(*member, at + BUCKET / 2, now);
            buckets.push(Bucket {
                host: member.host(),
                at,
                beat,
            });
            at += BUCKET;
            if buckets.len() == CHUNK {
                sample_hosts::insert_buckets(connection, &buckets).await?;
                buckets.clear();
            }
        }
    }
    sample_hosts::insert_buckets(connection, &buckets).await?;
    for (member, last) in seen {
        let mut beats = Vec::new();
        // The last one is there already.
        let mut at = *last - INTERVAL;
        while at >= raw_from {
            beats.push((at, beat::heartbeat(*member, at, now)));
            at -= INTERVAL;
        }
        let rows: Vec<_> = beats
            .iter()
            .rev()
            .map(|(at, beat)| row(*member, *at, beat))
            .collect();
        for some in rows.iter().collect::<Vec<_>>().chunks(CHUNK) {
            heartbeats::insert(connection, some).await?;
        }
    }
    rollups::sum_5m(connection, raw_from, sealed).await?;
    let mut hour = sums_from;
    while hour < sealed {
        rollups::sum_1h(connection, hour, hour + HOUR).await?;
        hour += HOUR;
    }
    Ok(())
}

async fn tell_events(
    connection: &mut PgConnection,
    members: &[Member],
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let all: Vec<Event> = members
        .iter()
        .filter(|member| member.presence() != Presence::Never && member.0 != CLONE)
        .flat_map(|member| past::events(*member, now))
        .collect();
    // Received when they happened: a statement for each instant.
    let instants: BTreeSet<_> = all.iter().map(|event| event.at).collect();
    for at in instants {
        let some: Vec<_> = all.iter().filter(|event| event.at == at).collect();
        events::insert(connection, &some, at).await?;
    }
    Ok(())
}

/// Two machines with one certificate, as docs/clones.md has it.
async fn make_conflict(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<()> {
    let (host, clone) = (Member(CLONED), Member(CLONE));
    let machine = |member: Member, first_seen_at| {
        Some(InstanceRow {
            instance: member.instance(0).0,
            ordinal: 1,
            boot_id: member.boot(0).0,
            address: facts::address(member)?.into(),
            first_seen_at,
            replaced_at: None,
        })
    };
    let kept = machine(host, now - host.booted_before());
    let other = machine(clone, now - Duration::minutes(26));
    if let (Some(kept), Some(other)) = (kept, other) {
        let new = NewConflict {
            conflict: clone.conflict(),
            host: host.host(),
            hidden: clone.host(),
            kept: &kept,
            clone: &other,
            now: now - Duration::minutes(25),
        };
        host_conflicts::insert(connection, &new).await?;
    }
    host_conflicts::update_counts(connection, host.host())
        .await
        .map(drop)
}
