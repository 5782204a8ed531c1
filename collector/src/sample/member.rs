//! A host of the sample fleet, all of it by its number: the same number is the same host, wherever and whenever.

use infratrack_shared::ids::{BootId, HostId, InstanceId, StreamId};
use time::Duration;
use uuid::{Builder, Uuid};

/// Another one would make another fleet.
const SEED: &str = "infratrack sample 1";
/// The clone of the host whose identity two machines have.
pub(super) const CLONE: u32 = 1_000_044;
/// Whose clone it is.
pub(super) const CLONED: u32 = 44;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member(pub(crate) u32);

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Web,
    Db,
    Cache,
    Ci,
    Edge,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Db => "db",
            Self::Cache => "cache",
            Self::Ci => "ci",
            Self::Edge => "edge",
        }
    }

    pub(crate) fn owner(self) -> &'static str {
        match self {
            Self::Web => "team-shop",
            Self::Db => "team-data",
            Self::Cache | Self::Edge => "team-platform",
            Self::Ci => "team-build",
        }
    }

    /// Its program's name, unit and port.
    pub(crate) fn service(self) -> (&'static str, &'static str, u16) {
        match self {
            Self::Web => ("nginx", "nginx.service", 443),
            Self::Db => ("postgres", "postgresql.service", 5432),
            Self::Cache => ("redis-server", "redis-server.service", 6379),
            Self::Ci => ("gitlab-runner", "gitlab-runner.service", 9252),
            Self::Edge => ("haproxy", "haproxy.service", 443),
        }
    }
}

/// An operating system, and what comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) pretty_name: &'static str,
    pub(crate) kernel: &'static str,
    /// The kernel it had before.
    pub(crate) old_kernel: &'static str,
}

const SYSTEMS: [System; 4] = [
    System {
        id: "debian",
        name: "Debian GNU/Linux",
        version: "12",
        pretty_name: "Debian GNU/Linux 12 (bookworm)",
        kernel: "6.1.0-28-amd64",
        old_kernel: "6.1.0-26-amd64",
    },
    System {
        id: "ubuntu",
        name: "Ubuntu",
        version: "24.04",
        pretty_name: "Ubuntu 24.04.1 LTS",
        kernel: "6.8.0-51-generic",
        old_kernel: "6.8.0-49-generic",
    },
    System {
        id: "almalinux",
        name: "AlmaLinux",
        version: "9.5",
        pretty_name: "AlmaLinux 9.5 (Teal Serval)",
        kernel: "5.14.0-503.15.1.el9_5.x86_64",
        old_kernel: "5.14.0-503.14.1.el9_5.x86_64",
    },
    System {
        id: "debian",
        name: "Debian GNU/Linux",
        version: "11",
        pretty_name: "Debian GNU/Linux 11 (bullseye)",
        kernel: "5.10.0-33-amd64",
        old_kernel: "5.10.0-32-amd64",
    },
];

/// Whether it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Online,
    /// Behind what counts as late, and not as offline.
    Late,
    /// Since so long, and why: as the liveness job says it.
    Offline(Duration, &'static str),
    Never,
}

/// What is wrong with it, but for its presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    DiskCritical,
    DiskWarning,
    FailedUnits,
    RebootRequired,
    ClockSkew,
    CertificateExpiring,
    IdentityConflict,
}

/// The id of what is no host.
pub(super) fn id_of(what: &str) -> Uuid {
    let mut bytes = [0; 16];
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{SEED} {what}").as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl Member {
    fn hash(self, what: &str) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(SEED.as_bytes());
        hasher.update(&self.0.to_be_bytes());
        hasher.update(what.as_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    fn id(self, what: &str) -> Uuid {
        Builder::from_custom_bytes(self.hash(what)).into_uuid()
    }

    /// A number of its own for each purpose, below `below`.
    pub(crate) fn roll(self, what: &str, below: u64) -> u64 {
        let [a, b, c, d, ..] = self.hash(what);
        u64::from(u32::from_be_bytes([a, b, c, d])) % below.max(1)
    }

    /// Likewise, from 0 to 1.
    pub(crate) fn share(self, what: &str) -> f64 {
        self.roll(what, 10_000) as f64 / 10_000.0
    }

    pub(crate) fn host(self) -> HostId {
        HostId(self.id("host"))
    }

    pub(crate) fn stream(self) -> StreamId {
        StreamId(self.id("stream"))
    }

    /// The process that runs, or one before it.
    pub(crate) fn instance(self, before: u32) -> InstanceId {
        InstanceId(self.id(&format!("instance {before}")))
    }

    /// The boot it runs in, or one before it.
    pub(crate) fn boot(self, before: u32) -> BootId {
        BootId(self.id(&format!("boot {before}")))
    }

    pub(crate) fn conflict(self) -> Uuid {
        self.id("conflict")
    }

    pub(crate) fn task(self, nth: u32) -> Uuid {
        self.id(&format!("task {nth}"))
    }

    pub(crate) fn serial(self) -> [u8; 16] {
        self.hash("serial")
    }

    pub(crate) fn machine_id(self) -> String {
        hex::encode(self.hash("machine"))
    }

    pub(crate) fn role(self) -> Role {
        match self.0 % 10 {
            0..=3 => Role::Web,
            4 | 5 => Role::Db,
            6 => Role::Cache,
            7 => Role::Ci,
            _ => Role::Edge,
        }
    }

    pub(crate) fn environment(self) -> &'static str {
        match self.0 / 10 % 10 {
            0..=5 => "production",
            6 | 7 => "staging",
            _ => "development",
        }
    }

    /// `db-044.prod.example.org`.
    pub(crate) fn name(self) -> String {
        let domain = match self.environment() {
            "production" => "prod",
            "staging" => "stage",
            _ => "dev",
        };
        let number = if self.0 == CLONE { CLONED } else { self.0 };
        format!("{}-{number:03}.{domain}.example.org", self.role().name())
    }

    pub(crate) fn site(self) -> &'static str {
        ["fra1", "ams2", "waw1"][usize::from(self.0 % 7 > 2) + usize::from(self.0 % 7 > 4)]
    }

    pub(crate) fn system(self) -> System {
        // Few still have the old one.
        let roll = self.roll("system", 20);
        SYSTEMS[match roll {
            0..=9 => 0,
            10..=14 => 1,
            15..=17 => 2,
            _ => 3,
        }]
    }

    pub(crate) fn agent_version(self) -> &'static str {
        match self.roll("agent", 10) {
            0 => "0.1.0-rc.3",
            1 | 2 => "0.1.0-rc.4",
            _ => "0.1.0",
        }
    }

    pub(crate) fn threads(self) -> u64 {
        let least = if self.role() == Role::Db { 8 } else { 2 };
        least << self.roll("threads", 3)
    }

    pub(crate) fn memory_bytes(self) -> u64 {
        self.threads() * (2 << 30)
    }

    pub(crate) fn address(self) -> String {
        let net = 16 + self.roll("net", 3);
        format!("10.{net}.{}.{}", self.0 / 200 % 256, 10 + self.0 % 200)
    }

    /// How long before the fleet was loaded it was booted.
    pub(crate) fn booted_before(self) -> Duration {
        match self.trouble() {
            Some(Trouble::RebootRequired) => Duration::days(74),
            _ => Duration::minutes(90 + self.roll("boot", 40 * 24 * 60).cast_signed()),
        }
    }

    pub(crate) fn presence(self) -> Presence {
        match self.0 {
            11 => Presence::Offline(Duration::minutes(47), "unknown"),
            28 => Presence::Offline(Duration::hours(3), "shutdown"),
            CLONE => Presence::Offline(Duration::minutes(20), "unknown"),
            37 | 19 => Presence::Late,
            53 => Presence::Never,
            number => match number % 67 {
                52 => Presence::Never,
                31 => Presence::Late,
                65 => Presence::Offline(Duration::days(6), "agent stopped"),
                _ => Presence::Online,
            },
        }
    }

    pub(crate) fn trouble(self) -> Option<Trouble> {
        match self.0 {
            4 => Some(Trouble::DiskCritical),
            7 => Some(Trouble::FailedUnits),
            15 => Some(Trouble::RebootRequired),
            22 => Some(Trouble::ClockSkew),
            39 => Some(Trouble::CertificateExpiring),
            CLONED => Some(Trouble::IdentityConflict),
            number if self.presence() == Presence::Online => match number % 59 {
                25 => Some(Trouble::DiskWarning),
                48 => Some(Trouble::FailedUnits),
                _ => None,
            },
            _ => None,
        }
    }

    /// One without an agent: an operator wrote it down.
    pub(crate) fn is_manual(self) -> bool {
        self.presence() == Presence::Never && self.0.is_multiple_of(2)
    }

    /// The filesystem that fills up.
    pub(crate) fn data_mount(self) -> Option<&'static str> {
        match self.role() {
            Role::Db => Some("/var/lib/postgresql"),
            Role::Ci => Some("/srv/builds"),
            Role::Cache => Some("/var/lib/redis"),
            Role::Web | Role::Edge => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_number_is_a_host_of_its_own_and_always_the_same() {
        let hosts: BTreeSet<_> = (0..1000).map(|number| Member(number).host()).collect();
        assert_eq!(hosts.len(), 1000);
        assert_eq!(Member(4).name(), "db-004.prod.example.org");
        assert_eq!(
            Member(4).host().to_string(),
            Member(4).host().0.hyphenated().to_string()
        );
        assert_ne!(Member(4).boot(0), Member(4).boot(1));
        assert_eq!(Member(4).system(), Member(4).system());
    }

    #[test]
    fn the_first_sixty_have_all_there_is_to_see() {
        let all: Vec<_> = (0..60).map(Member).collect();
        for trouble in [
            Trouble::DiskCritical,
            Trouble::DiskWarning,
            Trouble::FailedUnits,
            Trouble::RebootRequired,
            Trouble::ClockSkew,
            Trouble::CertificateExpiring,
            Trouble::IdentityConflict,
        ] {
            let has = |member: &&Member| member.trouble() == Some(trouble);
            assert!(all.iter().any(|member| has(&member)), "{trouble:?}");
        }
        let of = |is: fn(Presence) -> bool| all.iter().filter(|m| is(m.presence())).count();
        assert!(of(|presence| presence == Presence::Never) >= 2);
        assert!(of(|presence| presence == Presence::Late) >= 2);
        assert!(of(|presence| matches!(presence, Presence::Offline(..))) >= 2);
        assert!(of(|presence| presence == Presence::Online) > 50);
        let systems: BTreeSet<_> = all.iter().map(|member| member.system().version).collect();
        assert_eq!(systems.len(), 4);
    }
}
