//! `facts.users`: who can log in with a shell, and through which groups they may do more.
//!
//! From `/etc/passwd`, `/etc/group` and `/etc/shells`, which everybody may read. What sudoers grants
//! to single users is root's to read and not here; neither are users of a directory, but that there
//! may be some is said.

use serde::Serialize;

use super::accounts::{self, Group, User};
use super::fact::to_value;
use super::{Reason, Root};

/// The most users told; more have no room in one message.
const USERS: usize = 500;
/// Groups whose members may become root, or read what others may not.
const GROUPS: &[&str] = &[
    "adm",
    "admin",
    "disk",
    "docker",
    "lxd",
    "root",
    "shadow",
    "sudo",
    "systemd-journal",
    "wheel",
];
/// Programs in a shell's place that let nobody in; some systems list them in `/etc/shells`.
const NO_SHELLS: &[&str] = &["false", "halt", "nologin", "shutdown", "sync"];

#[derive(Serialize)]
struct Facts {
    /// By id, then name.
    users: Vec<Login>,
    /// How many more there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<usize>,
    /// Why no user has groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups_unknown: Option<Reason>,
    /// Where nsswitch.conf(5) also looks for users; theirs are not among these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_sources: Vec<String>,
}

#[derive(Serialize)]
struct Login {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
}

/// The body of `facts.users`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let shells = root.read("etc/shells").ok();
    let mut users = accounts::users(root)?;
    users.retain(|user| lets_in(&user.shell, shells.as_deref()));
    users.sort_unstable_by(|a, b| (a.uid, &a.name).cmp(&(b.uid, &b.name)));
    let left_out = users.len().saturating_sub(USERS);
    users.truncate(USERS);

    let (mut groups, groups_unknown) = match accounts::groups(root) {
        Ok(groups) => (groups, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    groups.retain(|group| GROUPS.contains(&group.name.as_str()));
    groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    to_value(&Facts {
        users: users.into_iter().map(|user| login(user, &groups)).collect(),
        left_out: (left_out > 0).then_some(left_out),
        groups_unknown,
        other_sources: other_sources(&root.read("etc/nsswitch.conf").unwrap_or_default()),
    })
}

/// Whether the shell is one; without `/etc/shells`, whatever is not known to be none.
fn lets_in(shell: &str, shells: Option<&str>) -> bool {
    let name = shell.rsplit('/').next().unwrap_or_default();
    !NO_SHELLS.contains(&name)
        && shells.is_none_or(|shells| shells.lines().any(|line| line.trim() == shell))
}

fn login(user: User, groups: &[Group]) -> Login {
    let is_in = |group: &&Group| group.gid == user.gid || group.members.contains(&user.name);
    let groups = groups.iter().filter(is_in);
    Login {
        groups: groups.map(|group| group.name.clone()).collect(),
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        home: user.home,
        shell: user.shell,
    }
}

/// `passwd: files systemd sss` without what is in the files.
fn other_sources(nsswitch: &str) -> Vec<String> {
    let line = nsswitch
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("passwd:"));
    // Actions stand in brackets, and may hold blanks.
    let mut in_action = false;
    let is_source = |word: &&str| {
        let is_action = in_action || word.starts_with('[');
        in_action = is_action && !word.ends_with(']');
        !is_action && !matches!(*word, "files" | "compat")
    };
    line.unwrap_or_default()
        .split_whitespace()
        .take_while(|word| !word.starts_with('#'))
        .filter(is_source)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    const DEBIAN: &[(&str, &str)] = &[
        (
            "etc/passwd",
            include_str!("../../tests/fixtures/passwd-debian"),
        ),
        (
            "etc/group",
            include_str!("../../tests/fixtures/group-debian"),
        ),
        (
            "etc/shells",
            include_str!("../../tests/fixtures/shells-debian"),
        ),
        ("etc/nsswitch.conf", "passwd:         files systemd\n"),
    ];
    const RHEL: &[(&str, &str)] = &[
        (
            "etc/passwd",
            include_str!("../../tests/fixtures/passwd-rhel"),
        ),
        ("etc/group", include_str!("../../tests/fixtures/group-rhel")),
        (
            "etc/nsswitch.conf",
            "# passwd: db files\npasswd:     files [SUCCESS=merge  UNAVAIL=return] sss # ldap\n",
        ),
    ];

    fn told(files: &[(&str, &str)]) -> serde_json::Value {
        let (_keep, root) = fixture::host(files);
        fixture::json(&collect(&root).unwrap())
    }

    fn names(body: &serde_json::Value) -> Vec<&str> {
        let users = body["users"].as_array().unwrap();
        users
            .iter()
            .filter_map(|user| user["name"].as_str())
            .collect()
    }

    #[test]
    fn debians_logins_have_the_groups_that_give_rights_and_nothing_of_a_password() {
        let body = told(DEBIAN);
        let expected = json!({
            "users": [
                {"name": "root", "uid": 0, "gid": 0, "home": "/root", "shell": "/bin/bash",
                 "groups": ["root"]},
                {"name": "postgres", "uid": 110, "gid": 118, "home": "/var/lib/postgresql",
                 "shell": "/bin/bash"},
                {"name": "alice", "uid": 1000, "gid": 1000, "home": "/home/alice",
                 "shell": "/bin/bash", "groups": ["adm", "docker", "sudo"]},
                {"name": "deploy", "uid": 1001, "gid": 27, "home": "/srv/deploy",
                 "shell": "/bin/sh", "groups": ["sudo"]},
            ],
            "other_sources": ["systemd"],
        });
        assert_eq!(body, expected);
        assert!(!body.to_string().contains("$y$"));
    }

    #[test]
    fn without_a_list_of_shells_rhels_logins_are_those_whose_shell_is_no_refusal() {
        let body = told(RHEL);
        assert_eq!(names(&body), ["root", "ec2-user", "git"]);
        assert_eq!(
            body["users"][1]["groups"],
            json!(["adm", "systemd-journal", "wheel"])
        );
        assert_eq!(body["other_sources"], json!(["sss"]));
    }

    #[test]
    fn a_refusal_that_is_listed_as_a_shell_stays_one() {
        assert!(!lets_in("/sbin/nologin", Some("/bin/sh\n/sbin/nologin\n")));
        assert!(lets_in("/bin/sh", Some("# shells\n/bin/sh \n")));
        assert!(!lets_in("# shells", Some("/bin/sh\n")));
        assert!(!lets_in("/bin/false", None) && lets_in("/opt/fish", None));
    }

    #[test]
    fn more_users_than_have_room_are_counted() {
        let passwd: Vec<String> = (0..USERS + 3)
            .map(|n| format!("u{n}:x:{}:100::/home/u{n}:/bin/sh\n", 2000 - n))
            .collect();
        let body = told(&[("etc/passwd", &passwd.concat())]);
        assert_eq!(names(&body).len(), USERS);
        assert_eq!(body["users"][0]["name"], "u502");
        assert_eq!(body["left_out"], 3);
        let reason = body["groups_unknown"].as_str().unwrap();
        assert!(reason.starts_with("/etc/group: "));
    }

    #[test]
    fn garbage_is_nobody() {
        let body = told(&[
            ("etc/passwd", "\0\n::::::\nroot\n\u{fffd}:x\n"),
            ("etc/group", ":::\n,\n"),
            ("etc/nsswitch.conf", "passwd:\n"),
        ]);
        assert_eq!(body, json!({"users": []}));
    }
}
