//! Users and groups of `/etc/passwd` and `/etc/group`, without what stands in their password fields.
//!
//! Users of directories (LDAP, systemd-homed) are behind NSS, whose modules would be foreign code in
//! the agent's process; they are not here. Called by users and listening.

use std::collections::HashMap;

use super::{Reason, Root};

/// One line of `/etc/passwd` (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    /// Empty means `/bin/sh`, and is given as that.
    pub(super) shell: String,
}

/// One line of `/etc/group` (group(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) gid: u32,
    pub(super) members: Vec<String>,
}

/// The users, in the order of the file.
pub(super) fn users(root: &Root) -> Result<Vec<User>, Reason> {
    Ok(root.text("etc/passwd")?.lines().filter_map(user).collect())
}

/// The groups, in the order of the file.
pub(super) fn groups(root: &Root) -> Result<Vec<Group>, Reason> {
    Ok(root.text("etc/group")?.lines().filter_map(group).collect())
}

/// The name of each user id; of two users with one id the first, as getpwuid(3) has it.
pub(super) fn names(root: &Root) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for user in users(root).unwrap_or_default() {
        names.entry(user.uid).or_insert(user.name);
    }
    names
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = name(fields.next()?)?;
    // After the password, and after the gecos field.
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.to_owned();
    let shell = fields.next().filter(|shell| !shell.is_empty());
    Some(User {
        name,
        uid,
        gid,
        home,
        shell: shell.unwrap_or("/bin/sh").to_owned(),
    })
}

fn group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = name(fields.next()?)?;
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',');
    Some(Group {
        name,
        gid,
        members: members
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// A name; not a comment, nor NIS's `+` and `-`.
fn name(field: &str) -> Option<String> {
    let is_name = !field.is_empty() && !field.starts_with(['+', '-', '#']);
    is_name.then(|| field.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn lines_are_read_without_the_password_and_broken_ones_left_out() {
        let (_keep, root) = fixture::host(&[
            (
                "etc/passwd",
                "root:$6$salt$secret:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:\n\
                 +::::::\n#old:x:1:1::/:/bin/sh\nshort:x:7\nmany:x:4294967296:1::/:/bin/sh\n:x:1:1::/:\n",
            ),
            (
                "etc/group",
                "sudo:x:27:alice, bob,\nempty:!:9:\n+\nno:x:y:z\n",
            ),
        ]);
        let users = users(&root).unwrap();
        assert!(!format!("{users:?}").contains("secret"));
        let told: Vec<_> = users
            .iter()
            .map(|user| (user.name.as_str(), user.uid, user.shell.as_str()))
            .collect();
        assert_eq!(told, [("root", 0, "/bin/bash"), ("toor", 0, "/bin/sh")]);
        assert_eq!(names(&root).get(&0).map(String::as_str), Some("root"));

        let groups = groups(&root).unwrap();
        let told: Vec<_> = groups
            .iter()
            .map(|group| (group.name.as_str(), group.gid, group.members.len()))
            .collect();
        assert_eq!(told, [("sudo", 27, 2), ("empty", 9, 0)]);
    }
}
