//! What there is to install, by every package manager of the host: the state `updates`, and its summary `facts.updates`.
//!
//! The answers are another unit's, see [`super::answers`].

use infratrack_shared::wire::packages::{Manager, PendingUpdate, UpdateCheck};
use serde_json::json;

use super::answers::{Question, ask};
use super::fact::to_value;
use super::packages::{RPM, has_rpm};
use super::{Reason, Root};
use crate::updates::Answer;

/// Whom to ask, and what shows that it is of use on this host.
struct Tool {
    question: Question,
    manager: Manager,
    is_there: fn(&Root) -> bool,
}

const APT: Tool = Tool {
    question: Question {
        name: "apt",
        inputs: &[
            "var/lib/dpkg/status",
            "var/lib/dpkg/updates",
            "var/lib/apt/lists",
            // Comes and goes with every run that brings lists, also where all are as they were.
            "var/lib/apt/lists/partial",
            "var/lib/apt/periodic/update-success-stamp",
            "var/lib/apt/extended_states",
            "var/lib/ubuntu-advantage/apt-esm/var/lib/apt/lists",
            "etc/apt/apt.conf",
            "etc/apt/apt.conf.d",
            "etc/apt/sources.list",
            "etc/apt/sources.list.d",
            "etc/apt/preferences",
            "etc/apt/preferences.d",
        ],
    },
    manager: Manager::Dpkg,
    is_there: |root| root.exists("usr/bin/apt-get") && root.exists("var/lib/dpkg/status"),
};

const DNF: Tool = Tool {
    question: Question {
        name: "dnf",
        inputs: &[
            "var/lib/rpm/rpmdb.sqlite",
            "var/lib/rpm/rpmdb.sqlite-wal",
            "var/lib/rpm/Packages",
            "var/lib/rpm/Packages.db",
            "usr/lib/sysimage/rpm/rpmdb.sqlite",
            "usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
            "var/cache/dnf",
            "var/cache/dnf/*/repodata/repomd.xml",
            "var/cache/libdnf5",
            "var/cache/libdnf5/*/repodata/repomd.xml",
            "var/cache/yum",
            "etc/yum.conf",
            "etc/yum.repos.d",
            "etc/dnf",
            "etc/dnf/dnf.conf",
            "etc/dnf/modules.d",
            "etc/dnf/plugins",
            "etc/dnf/plugins/versionlock.list",
            "etc/dnf/versionlock.toml",
        ],
    },
    manager: Manager::Rpm,
    is_there: |root| {
        let programs = ["usr/bin/dnf", "usr/bin/dnf5", "usr/bin/yum"];
        programs.iter().any(|program| root.exists(program)) && has_rpm(root)
    },
};

const ZYPPER: Tool = Tool {
    question: Question {
        name: "zypper",
        inputs: &[
            "var/lib/rpm/Packages",
            "var/lib/rpm/Packages.db",
            "var/lib/rpm/rpmdb.sqlite",
            "usr/lib/sysimage/rpm/Packages.db",
            "usr/lib/sysimage/rpm/rpmdb.sqlite",
            "usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
            "var/cache/zypp/raw",
            "var/cache/zypp/raw/*/repodata/repomd.xml",
            "var/cache/zypp/solv/*/solv",
            "etc/zypp/locks",
            "etc/zypp/repos.d",
            "etc/zypp/zypp.conf",
        ],
    },
    manager: Manager::Rpm,
    is_there: |root| root.exists("usr/bin/zypper") && has_rpm(root),
};

const APK: Tool = Tool {
    question: Question {
        name: "apk",
        inputs: &[
            "lib/apk/db/installed",
            "usr/lib/apk/db/installed",
            "var/cache/apk",
            "etc/apk/cache",
            "etc/apk/repositories",
            "etc/apk/world",
        ],
    },
    manager: Manager::Apk,
    is_there: |root| {
        let databases = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
        databases.iter().any(|path| root.exists(path))
    },
};

const SNAP: Tool = Tool {
    question: Question {
        name: "snap",
        inputs: &[],
    },
    manager: Manager::Snap,
    is_there: |root| root.exists("var/lib/snapd/snaps") && root.exists("usr/bin/snap"),
};

const FLATPAK: Tool = Tool {
    question: Question {
        name: "flatpak",
        inputs: &[],
    },
    manager: Manager::Flatpak,
    is_there: |root| root.exists("var/lib/flatpak/app") && root.exists("usr/bin/flatpak"),
};

/// In the order in which one of them stands for the host.
const TOOLS: [&Tool; 6] = [&APT, &DNF, &ZYPPER, &APK, &SNAP, &FLATPAK];

/// What each package manager of the host would install, or why that is not known; asked for anew where something changed.
pub fn pending_updates(root: &Root) -> Vec<(UpdateCheck, Vec<PendingUpdate>)> {
    let there = TOOLS.iter().filter(|tool| (tool.is_there)(root));
    let there: Vec<_> = there.collect();
    let mut questions: Vec<_> = there.iter().map(|tool| &tool.question).collect();
    if super::packages::has_rpm_database(root) {
        questions.insert(0, &RPM);
    }
    let asked = ask(root, &questions);
    let told = there.iter().map(|tool| {
        let answer = tool.question.answer::<Answer>(root).map_err(|reason| {
            // Why it could not be asked is what to see to.
            asked.clone().err().unwrap_or(reason)
        });
        match answer {
            Ok(Answer { check, pending }) => (check, pending),
            Err(unknown) => {
                let check = UpdateCheck {
                    manager: tool.manager,
                    tool: tool.question.name.to_owned(),
                    unknown: Some(unknown),
                    ..UpdateCheck::default()
                };
                (check, Vec::new())
            }
        }
    });
    told.collect()
}

/// The body of `facts.updates`: of the first of them, how many there are.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let told = pending_updates(root).into_iter().next();
    let (check, pending) = told.ok_or("no package manager is here that is asked")?;
    if let Some(unknown) = check.unknown {
        return to_value(&json!({"manager": check.tool, "unknown": unknown}));
    }
    let open = pending.iter().filter(|update| update.blocked.is_none());
    let security = open.clone().filter(|update| update.security == Some(true));
    to_value(&json!({
        "manager": check.tool,
        "lists_at_s": check.metadata_at_s,
        "pending": open.clone().count(),
        "security": security.count(),
        "blocked": pending.len() - open.count(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const ANSWER: &str = r#"{"check": {"manager": "dpkg", "tool": "apt", "metadata_at_s": 7}, "pending": [
        {"name": "a", "arch": "all", "installed": "1", "candidate": "2", "security": true},
        {"name": "b", "arch": "all", "installed": "1", "candidate": "2", "blocked": {"why": "held"}}]}"#;

    #[test]
    fn the_fact_is_a_summary_of_what_would_be_installed() {
        let (_keep, root) = fixture::host(&[
            ("usr/bin/apt-get", ""),
            ("var/lib/dpkg/status", ""),
            ("run/infratrack-updates/apt.json", ANSWER),
        ]);
        let fact = fixture::json(&collect(&root).unwrap());
        let expected =
            json!({"manager": "apt", "lists_at_s": 7, "pending": 1, "security": 1, "blocked": 1});
        assert_eq!(fact, expected);
        let [(check, pending)] = &pending_updates(&root)[..] else {
            panic!("one is there");
        };
        assert_eq!((check.tool.as_str(), pending.len()), ("apt", 2));
    }

    #[test]
    fn every_package_manager_says_itself_why_nothing_is_known() {
        let (_keep, root) = fixture::host(&[
            ("usr/bin/apt-get", ""),
            ("var/lib/dpkg/status", ""),
            ("usr/bin/flatpak", ""),
            ("var/lib/flatpak/app/none", ""),
            (
                "run/infratrack-updates/apt.json",
                r#"{"check": {"manager": "dpkg", "tool": "apt", "unknown": "broken"}, "pending": []}"#,
            ),
        ]);
        let told = pending_updates(&root);
        let told: Vec<_> = told
            .iter()
            .map(|(check, _)| (check.tool.as_str(), check.unknown.as_deref().unwrap_or("")))
            .collect();
        let [apt, (flatpak, reason)] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!((*apt, *flatpak), (("apt", "broken"), "flatpak"));
        assert!(
            reason.starts_with("/run/infratrack-updates.sock: "),
            "{reason}"
        );
        let fact = fixture::json(&collect(&root).unwrap());
        assert_eq!(fact, json!({"manager": "apt", "unknown": "broken"}));
    }

    #[test]
    fn dnf_on_a_host_of_dpkg_is_only_a_tool() {
        let rpm = |packages: &str| {
            format!(r#"{{"manager": "rpm", "packages": [{packages}], "skipped": 0}}"#)
        };
        for (packages, tools) in [
            ("", vec!["apt"]),
            (
                r#"{"name": "a", "version": "1-1", "arch": "noarch"}"#,
                vec!["apt", "dnf"],
            ),
        ] {
            let (_keep, root) = fixture::host(&[
                ("usr/bin/apt-get", ""),
                ("usr/bin/dnf", ""),
                ("var/lib/dpkg/status", ""),
                ("var/lib/rpm/rpmdb.sqlite", ""),
                ("run/infratrack-updates/rpm.json", &rpm(packages)),
            ]);
            let told = pending_updates(&root);
            let told: Vec<_> = told.iter().map(|(check, _)| check.tool.as_str()).collect();
            assert_eq!(told, tools);
        }
        let (_keep, root) = fixture::host(&[]);
        assert!(
            collect(&root)
                .unwrap_err()
                .starts_with("no package manager")
        );
    }
}
