//! What a sample host's heartbeat says at an instant: days have their busy hours, disks fill up, no two hosts agree.

use std::f64::consts::TAU;

use infratrack_shared::wire::heartbeat::{AgentUsage, FilesystemUsage, Heartbeat, SpoolUsage};
use time::{Duration, OffsetDateTime};

use super::member::{Member, Role, Trouble};
use crate::store::unix_millis;

/// Between two heartbeats of a host.
pub(crate) const INTERVAL: Duration = Duration::seconds(30);
const GIB: f64 = (1_u64 << 30) as f64;
const DAY_S: i64 = 86_400;

#[expect(clippy::cast_possible_truncation, reason = "no more digits are needed")]
fn short(value: f64) -> f32 {
    value as f32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and rates, not negative"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// How busy it is at that instant, about 0 to 1.
fn busy(member: Member, at: OffsetDateTime) -> f64 {
    let phase = at.unix_timestamp().rem_euclid(DAY_S) as f64 / DAY_S as f64;
    // Europe's afternoon; builds come in bursts instead, the whole day.
    let by_day = 0.5 - 0.5 * ((phase + 0.4) * TAU).cos();
    let slot = at.unix_timestamp() / 30;
    let noise = member.share(&format!("noise {slot}"));
    let burst = member.share(&format!("burst {}", slot / 24));
    match member.role() {
        Role::Ci if burst > 0.6 => 0.75 + 0.25 * noise,
        Role::Ci => 0.05 * noise,
        Role::Web | Role::Db | Role::Cache | Role::Edge => {
            let own = 0.3 + 0.7 * member.share("busy");
            own * (0.15 + 0.6 * by_day) + 0.12 * noise
        }
    }
}

/// Used share of the filesystem that fills up. `ago` is how long before the loading it is.
fn disk_used(member: Member, ago: Duration) -> f64 {
    let days = ago.as_seconds_f64() / DAY_S as f64;
    match member.trouble() {
        Some(Trouble::DiskCritical) => (0.962 - 0.021 * days).clamp(0.4, 0.964),
        Some(Trouble::DiskWarning) => (0.873 - 0.004 * days).clamp(0.4, 0.88),
        _ => {
            let own = 0.2 + 0.5 * member.share("disk");
            (own - 0.002 * days).clamp(0.05, 0.75)
        }
    }
}

fn filesystem(mount: &str, total_gib: f64, used: f64) -> FilesystemUsage {
    let inodes = total_gib * 65_536.0;
    FilesystemUsage {
        mount: mount.to_owned(),
        total_bytes: whole(total_gib * GIB),
        available_bytes: whole(total_gib * GIB * (1.0 - used)),
        inodes_total: whole(inodes),
        inodes_free: whole(inodes * (1.0 - used / 6.0)),
    }
}

fn filesystems(member: Member, ago: Duration) -> Vec<FilesystemUsage> {
    let fuller = disk_used(member, ago);
    let root_used = if member.data_mount().is_some() {
        0.2 + 0.2 * member.share("root")
    } else {
        fuller
    };
    let mut all = vec![
        filesystem("/", 40.0, root_used),
        filesystem("/boot", 1.0, 0.31),
    ];
    if let Some(mount) = member.data_mount() {
        let gib = 100.0 * f64::from(1 << member.roll("data", 3));
        all.push(filesystem(mount, gib, fuller));
    }
    all
}

/// The heartbeat of that instant, in a fleet that was loaded at `loaded_at`.
pub(crate) fn heartbeat(
    member: Member,
    at: OffsetDateTime,
    loaded_at: OffsetDateTime,
) -> Heartbeat {
    let busy = busy(member, at).clamp(0.0, 1.0);
    let threads = member.threads() as f64;
    let memory = member.memory_bytes() as f64;
    let memory_used = 0.25 + 0.45 * member.share("memory") + 0.15 * busy;
    let up = (at - (loaded_at - member.booted_before())).max(Duration::ZERO);
    let net = threads * busy * 4.0e6;
    let disk = threads
        * busy
        * if member.role() == Role::Db {
            6.0e6
        } else {
            0.4e6
        };
    let failed = match member.trouble() {
        Some(Trouble::FailedUnits) => 2,
        _ => 0,
    };
    let clock = match member.trouble() {
        Some(Trouble::ClockSkew) => at + SKEW,
        _ => at,
    };
    Heartbeat {
        stream: member.stream(),
        n: (at.unix_timestamp() / INTERVAL.whole_seconds()).unsigned_abs(),
        at: unix_millis(clock),
        mono_ms: up.whole_seconds().unsigned_abs() * 1000,
        cpu_ratio: Some(short(busy)),
        load_1: Some(short(busy * threads * 1.1)),
        load_5: Some(short(busy * threads)),
        load_15: Some(short(busy * threads * 0.95)),
        memory_total_bytes: Some(member.memory_bytes()),
        memory_available_bytes: Some(whole(memory * (1.0 - memory_used))),
        swap_total_bytes: Some(0),
        swap_used_bytes: Some(0),
        cpu_pressure_some_ratio: Some(short((busy - 0.6).max(0.0) * 0.5)),
        memory_pressure_some_ratio: Some(0.0),
        memory_pressure_full_ratio: Some(0.0),
        io_pressure_some_ratio: Some(short(busy * 0.04)),
        io_pressure_full_ratio: Some(short(busy * 0.02)),
        temperature_max_celsius: None,
        filesystems: filesystems(member, loaded_at - at),
        disk_read_bytes_per_s: Some(whole(disk * 0.6)),
        disk_written_bytes_per_s: Some(whole(disk)),
        net_received_bytes_per_s: Some(whole(net * 0.4)),
        net_sent_bytes_per_s: Some(whole(net)),
        uptime_s: Some(up.whole_seconds().unsigned_abs()),
        process_count: Some(u32::try_from(90 + member.roll("processes", 120)).unwrap_or(90)),
        failed_unit_count: Some(failed),
        reboot_required: Some(member.trouble() == Some(Trouble::RebootRequired)),
        spool: SpoolUsage::default(),
        agent: AgentUsage {
            version: member.agent_version().to_owned(),
            rss_bytes: Some(5_400_000 + member.roll("rss", 900_000)),
            cpu_ms: Some(up.whole_seconds().unsigned_abs() / 3),
        },
        facts_hash: None,
        inventory_hash: None,
        unknown: Vec::new(),
    }
}

/// How far a clock that is wrong is wrong.
const SKEW: Duration = Duration::seconds(94);

/// Agent's clock less collector's, as the collector measures it.
pub(crate) fn skew_ms(member: Member) -> i64 {
    match member.trouble() {
        Some(Trouble::ClockSkew) => SKEW.whole_seconds() * 1000,
        _ => member.roll("skew", 80).cast_signed() - 40,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::store::heartbeats::disk_used_ratio;

    const LOADED: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    #[test]
    fn values_are_in_their_ranges_for_weeks_before_and_after() {
        for number in 0..60 {
            for hours in (-24 * 30..24 * 30).step_by(37) {
                let at = LOADED + Duration::hours(hours);
                let beat = heartbeat(Member(number), at, LOADED);
                let ratio = beat.cpu_ratio.unwrap();
                assert!((0.0..=1.0).contains(&ratio), "{number}: {ratio}");
                let used = disk_used_ratio(&beat).unwrap();
                assert!((0.0..0.97).contains(&used), "{number}: {used}");
                assert!(beat.memory_available_bytes < beat.memory_total_bytes);
            }
        }
    }

    #[test]
    fn the_same_instant_is_the_same_heartbeat_and_one_disk_is_critical() {
        let beat = |number| heartbeat(Member(number), LOADED, LOADED);
        assert_eq!(beat(3), beat(3));
        assert_ne!(beat(3).cpu_ratio, beat(2).cpu_ratio);
        let critical = (0..200).filter(|number| disk_used_ratio(&beat(*number)) >= Some(0.95));
        assert_eq!(critical.collect::<Vec<_>>(), [4]);
    }
}
