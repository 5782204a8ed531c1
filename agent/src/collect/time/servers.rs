//! The servers in the configuration of timesyncd, chrony and ntpd.
//!
//! Each in its own syntax, with the files it would read itself, up to a bound; nothing but the names
//! of servers is kept. What cannot be read is a reason. Called by `facts.time` for a service that runs.

use std::collections::BTreeMap;

use crate::collect::{Reason, Root};

/// Where systemd looks for configuration; earlier ones mask later ones (timesyncd.conf(5)).
const SYSTEMD: &[&str] = &[
    "etc/systemd",
    "run/systemd",
    "usr/local/lib/systemd",
    "usr/lib/systemd",
    "lib/systemd",
];
/// Debian's place, and that of RHEL.
const CHRONY: &[&str] = &["etc/chrony/chrony.conf", "etc/chrony.conf"];
/// The place of `NTPsec`, of the reference implementation, and of `OpenNTPD`.
const NTPD: &[&str] = &[
    "etc/ntpsec/ntp.conf",
    "etc/ntp.conf",
    "etc/openntpd/ntpd.conf",
];
/// The most files read for one service, and the most servers told.
const FILES: usize = 64;
const SERVERS: usize = 64;

/// In the order of the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    pub(super) servers: Vec<String>,
    pub(super) fallback: Vec<String>,
}

/// `NTP=` and `FallbackNTP=`: each adds to what came before, an empty one clears it.
pub(super) fn of_timesyncd(root: &Root) -> Result<Servers, Reason> {
    let mut files = Vec::new();
    let main = SYSTEMD
        .iter()
        .map(|directory| format!("{directory}/timesyncd.conf"));
    files.extend(main.into_iter().find(|file| root.exists(file)));
    let directories = SYSTEMD
        .iter()
        .map(|directory| format!("{directory}/timesyncd.conf.d"));
    files.extend(fragments(root, directories, ".conf"));

    let mut found = Servers::default();
    for file in files.iter().take(FILES) {
        let mut in_section = false;
        for line in root.text(file)?.lines().map(str::trim) {
            if line.starts_with('[') {
                in_section = line == "[Time]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| in_section) else {
                continue;
            };
            let servers = match key.trim_end() {
                "NTP" => &mut found.servers,
                "FallbackNTP" => &mut found.fallback,
                _ => continue,
            };
            if value.trim().is_empty() {
                servers.clear();
            }
            for server in value.split_whitespace() {
                add(servers, server);
            }
        }
    }
    Ok(found)
}

/// `server`, `pool` and `peer`, also of the directories the file names (chrony.conf(5)).
pub(super) fn of_chrony(root: &Root) -> Result<Servers, Reason> {
    let text = first(root, CHRONY)?;
    let mut found = Servers::default();
    let mut budget = FILES;
    read_chrony(root, &text, &mut found.servers, &mut budget)?;
    Ok(found)
}

/// `server`, `pool` and `peer`, and `servers` of `OpenNTPD`.
pub(super) fn of_ntpd(root: &Root) -> Result<Servers, Reason> {
    let mut found = Servers::default();
    for (directive, mut arguments) in directives(&first(root, NTPD)?) {
        if !matches!(directive.as_str(), "server" | "servers" | "pool" | "peer") {
            continue;
        }
        // `-4` and `-6` stand before the name.
        if let Some(server) = arguments.find(|word| !word.starts_with('-')) {
            add(&mut found.servers, server);
        }
    }
    Ok(found)
}

fn read_chrony(
    root: &Root,
    text: &str,
    servers: &mut Vec<String>,
    budget: &mut usize,
) -> Result<(), Reason> {
    for (directive, mut arguments) in directives(text) {
        let files = match directive.as_str() {
            "server" | "pool" | "peer" => {
                if let Some(server) = arguments.next() {
                    add(servers, server);
                }
                continue;
            }
            "confdir" => fragments(root, arguments.map(str::to_owned), ".conf"),
            "sourcedir" => fragments(root, arguments.map(str::to_owned), ".sources"),
            "include" => arguments
                .next()
                .map(|file| included(root, file))
                .unwrap_or_default(),
            _ => continue,
        };
        for file in files {
            // Also what ends a file that includes itself.
            *budget = budget
                .checked_sub(1)
                .ok_or_else(|| format!("more than {FILES} files of configuration"))?;
            read_chrony(root, &root.text(&file)?, servers, budget)?;
        }
    }
    Ok(())
}

/// The files of an `include`: one, or those of a directory with a certain ending.
fn included(root: &Root, pattern: &str) -> Vec<String> {
    match pattern.split_once("/*") {
        Some((directory, ending)) => fragments(root, [directory.to_owned()], ending),
        None => vec![relative(pattern)],
    }
}

/// The files of several directories in order of their names; the first directory with a name has it.
fn fragments(
    root: &Root,
    directories: impl IntoIterator<Item = String>,
    ending: &str,
) -> Vec<String> {
    let mut files = BTreeMap::new();
    for directory in directories {
        let directory = relative(&directory);
        // Directories that do not exist are named in many a distribution's file.
        for name in root.names(&directory).unwrap_or_default() {
            if name.ends_with(ending) && !name.starts_with('.') {
                let file = format!("{directory}/{name}");
                files.entry(name).or_insert(file);
            }
        }
    }
    files.into_values().collect()
}

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The first of `files` that exists.
fn first(root: &Root, files: &[&str]) -> Result<String, Reason> {
    let found = files.iter().find(|file| root.exists(file));
    let found = found.ok_or_else(|| format!("none of /{} is there", files.join(", /")))?;
    root.text(found)
}

/// The lines of words, without comments; the first word in lower case.
fn directives(text: &str) -> impl Iterator<Item = (String, impl Iterator<Item = &str>)> {
    text.lines().filter_map(|line| {
        let mut words = line
            .split_whitespace()
            .take_while(|word| !word.starts_with(['#', '!', ';', '%']));
        Some((words.next()?.to_lowercase(), words))
    })
}

fn add(servers: &mut Vec<String>, server: &str) {
    if servers.len() < SERVERS && !servers.iter().any(|known| known == server) {
        servers.push(server.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const CHRONY_DEBIAN: &str = include_str!("../../../tests/fixtures/chrony.conf-debian");
    const NTPSEC: &str = include_str!("../../../tests/fixtures/ntp.conf-ntpsec");

    #[test]
    fn drop_ins_of_timesyncd_add_clear_and_mask() {
        let (_keep, root) = fixture::host(&[
            (
                "etc/systemd/timesyncd.conf",
                "NTP=outside.example\n[Time]\n#NTP=\nNTP=a.example  b.example\nFallbackNTP=c.example\n",
            ),
            (
                "etc/systemd/timesyncd.conf.d/20-more.conf",
                "[Time]\nNTP = d.example a.example\n[Other]\nNTP=e.example\n",
            ),
            (
                "usr/lib/systemd/timesyncd.conf.d/10-vendor.conf",
                "[Time]\nNTP=\nFallbackNTP=\n",
            ),
            (
                "usr/lib/systemd/timesyncd.conf.d/20-more.conf",
                "[Time]\nNTP=f.example\n",
            ),
            (
                "usr/lib/systemd/timesyncd.conf",
                "[Time]\nNTP=masked.example\n",
            ),
        ]);
        let expected = Servers {
            servers: vec!["d.example".to_owned(), "a.example".to_owned()],
            fallback: Vec::new(),
        };
        assert_eq!(of_timesyncd(&root), Ok(expected));
    }

    #[test]
    fn debians_chrony_finds_its_servers_in_the_directories_it_names() {
        let (_keep, root) = fixture::host(&[
            ("etc/chrony/chrony.conf", CHRONY_DEBIAN),
            (
                "etc/chrony/conf.d/office.conf",
                "Server ntp.office.example iburst\n",
            ),
            ("etc/chrony/conf.d/README", "server no.example\n"),
            ("etc/chrony/sources.d/lan.sources", "peer 192.0.2.4 key 7\n"),
            (
                "etc/chrony/sources.d/dup.sources",
                "pool 2.debian.pool.ntp.org\n",
            ),
        ]);
        let found = of_chrony(&root).unwrap();
        assert_eq!(
            found.servers,
            ["ntp.office.example", "2.debian.pool.ntp.org", "192.0.2.4"]
        );
    }

    #[test]
    fn a_file_that_includes_itself_is_a_reason() {
        let text = "server a.example\ninclude /etc/chrony.conf\n";
        let (_keep, root) = fixture::host(&[("etc/chrony.conf", text)]);
        let reason = "more than 64 files of configuration".to_owned();
        assert_eq!(of_chrony(&root), Err(reason));
    }

    #[test]
    fn ntpsec_has_pools_and_servers_behind_options() {
        let (_keep, root) = fixture::host(&[("etc/ntpsec/ntp.conf", NTPSEC)]);
        let found = of_ntpd(&root).unwrap();
        assert_eq!(
            found.servers,
            [
                "0.debian.pool.ntp.org",
                "1.debian.pool.ntp.org",
                "ntp.office.example"
            ]
        );
    }

    #[test]
    fn garbage_names_no_server_and_too_many_are_cut() {
        let garbage = "server\n=\n[Time\n\u{fffd}\0 pool x\nserver # y\n";
        let (_keep, root) = fixture::host(&[
            ("etc/ntp.conf", garbage),
            ("etc/chrony.conf", garbage),
            ("etc/systemd/timesyncd.conf", garbage),
        ]);
        for found in [of_ntpd(&root), of_chrony(&root), of_timesyncd(&root)] {
            assert_eq!(found, Ok(Servers::default()));
        }
        let many: Vec<String> = (0..SERVERS + 5).map(|n| format!("server s{n}\n")).collect();
        let (_keep, root) = fixture::host(&[("etc/ntp.conf", &many.concat())]);
        assert_eq!(of_ntpd(&root).unwrap().servers.len(), SERVERS);
    }
}
