//! The logs that are read, and of whom they are.
//!
//! What is not: apk keeps no log. rpm's and dnf's histories are sqlite databases (`/var/lib/dnf/history.sqlite`), so a plain
//! `rpm -i` and what `PackageKit` does on an RPM host are told by nobody. yum 3 makes its log root's alone.

use infratrack_shared::wire::packages::Manager;

use super::transactions::{FRONT, LOGS, RUNS, Settings};
use super::{Parser, apt, dnf, dnf5, dpkg, yum, zypp};

/// Package managers that keep a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// apt's history and the log of dpkg.
    Dpkg,
    Dnf,
    Dnf5,
    Zypp,
    /// Version 3, before dnf.
    Yum,
}

/// One log.
pub struct Log {
    /// Without the leading slash.
    pub path: &'static str,
    pub parser: Box<dyn Parser>,
}

impl Source {
    pub const ALL: [Self; 5] = [Self::Dpkg, Self::Dnf, Self::Dnf5, Self::Zypp, Self::Yum];

    /// Whether the lines of its logs say of which year they are.
    pub fn names_years(self) -> bool {
        self != Self::Yum
    }

    pub fn settings(self) -> Settings {
        let (manager, source, quiet_ms) = match self {
            Self::Dpkg => (Manager::Dpkg, "/var/log/dpkg.log", 2_000),
            // Where dnf.log has no end of it: nothing says how long the next package takes.
            Self::Dnf => (Manager::Rpm, "/var/log/dnf.rpm.log", 60_000),
            Self::Dnf5 => (Manager::Rpm, "/var/log/dnf5.log", 2_000),
            Self::Zypp => (Manager::Rpm, "/var/log/zypp/history", 60_000),
            Self::Yum => (Manager::Rpm, "/var/log/yum.log", 60_000),
        };
        Settings {
            manager,
            source,
            quiet_ms,
        }
    }

    /// Its logs, by their places in a [`super::transactions::Transactions`].
    pub fn logs(self) -> [Option<Log>; LOGS] {
        let log = |path, parser| Some(Log { path, parser });
        let mut logs: [Option<Log>; LOGS] = [None, None];
        let (front, runs) = match self {
            Self::Dpkg => (
                log(
                    "var/log/apt/history.log",
                    Box::<apt::History>::default() as _,
                ),
                log("var/log/dpkg.log", Box::<dpkg::Log>::default() as _),
            ),
            Self::Dnf => (
                log("var/log/dnf.log", Box::<dnf::Log>::default() as _),
                log("var/log/dnf.rpm.log", Box::<dnf::RpmLog>::default() as _),
            ),
            Self::Dnf5 => (
                None,
                log("var/log/dnf5.log", Box::<dnf5::Log>::default() as _),
            ),
            Self::Zypp => (
                None,
                log("var/log/zypp/history", Box::<zypp::History>::default() as _),
            ),
            Self::Yum => (
                None,
                log("var/log/yum.log", Box::<yum::Log>::default() as _),
            ),
        };
        logs[FRONT] = front;
        logs[RUNS] = runs;
        logs
    }
}
