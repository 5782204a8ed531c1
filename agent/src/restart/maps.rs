//! `/proc/PID/maps` and `/proc/PID/cgroup` (proc(5)): which programs and libraries a process runs that are no more on disk,
//! and the unit it belongs to.

/// Where programs and libraries are installed. What is mapped from elsewhere and deleted (`/memfd:`, `/dev/zero`,
/// `/SYSV00000000`, `/tmp`, `/run`, `/dev/shm`) never was a package's.
const INSTALLED: &[&str] = &[
    "/usr/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/bin/", "/sbin/", "/opt/",
];
const DELETED: &str = " (deleted)";
/// Files of one process at most.
pub const MOST_FILES: usize = 64;
/// What a cgroup that is a unit ends in (systemd.unit(5)); slices hold units.
const UNITS: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];
/// In the cgroup of what a container's or a sandbox's manager started. Those that are not told by it have a PID namespace.
const CONTAINERS: &[&str] = &[
    "/docker-",
    "/docker/",
    "/libpod-",
    "/lxc/",
    "/lxc.payload",
    "/kubepods",
    "/crio-",
    "/cri-containerd",
    "/app-flatpak-",
    "/snap.",
];

/// The files that are mapped to be run and were replaced or removed since, each once, in their order.
pub fn replaced(maps: &[u8]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for line in maps.split(|byte| *byte == b'\n') {
        let Some(file) = replaced_in(&String::from_utf8_lossy(line)) else {
            continue;
        };
        if !files.contains(&file) {
            files.push(file);
            if files.len() == MOST_FILES {
                break;
            }
        }
    }
    files
}

/// `7f10c4a28000-7f10c4b7d000 r-xp 00026000 fe:01 393241   /usr/lib/libc.so.6 (deleted)`
fn replaced_in(line: &str) -> Option<String> {
    let mut fields = line.splitn(6, ' ');
    let (_addresses, rights) = (fields.next()?, fields.next()?);
    let (_offset, _device, _inode) = (fields.next()?, fields.next()?, fields.next()?);
    if rights.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    replaced_file(fields.next()?.trim_start())
}

/// The file's name before it was replaced, of a mapping or of the link `/proc/PID/exe`.
pub fn replaced_file(shown: &str) -> Option<String> {
    let file = shown.strip_suffix(DELETED)?;
    let file = before_transaction(file);
    let is_installed = INSTALLED.iter().any(|place| file.starts_with(place));
    is_installed.then(|| file.to_owned())
}

/// rpm renames what it is about to delete to `name;5f3a1b2c`; dpkg has names of its own meanwhile (dpkg(1)).
fn before_transaction(file: &str) -> &str {
    let is_id = |id: &str| id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some((name, id)) = file.rsplit_once(';')
        && is_id(id)
    {
        return name;
    }
    let of_dpkg = file
        .strip_suffix(".dpkg-new")
        .or_else(|| file.strip_suffix(".dpkg-tmp"));
    of_dpkg.unwrap_or(file)
}

/// What `/proc/PID/cgroup` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    Unit(String),
    /// Its files are not the host's.
    Container,
    None,
}

/// The unit of a process: systemd's hierarchy is that of cgroup v2, and `name=systemd` in v1.
pub fn group(cgroup: &str) -> Group {
    let path = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_systemd = controllers == "name=systemd" || (id == "0" && controllers.is_empty());
        is_systemd.then(|| path.to_owned())
    };
    let mut of_unit = Group::None;
    for path in cgroup.lines().filter_map(path) {
        if CONTAINERS.iter().any(|part| path.contains(part)) {
            return Group::Container;
        }
        // What a unit divides itself into is still the unit.
        let mut parts = path.split('/');
        let unit = parts.find(|part| UNITS.iter().any(|ending| part.ends_with(ending)));
        if let (Some(unit), Group::None) = (unit, &of_unit) {
            of_unit = Group::Unit(unit.to_owned());
        }
    }
    of_unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rights: &str, file: &str) -> String {
        format!(
            "7f10c4a28000-7f10c4b7d000 {rights} 00026000 fe:01 393241                     {file}\n"
        )
    }

    #[test]
    fn only_what_is_run_and_was_installed_counts() {
        let libssl = "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)";
        let maps = [
            line("r--p", libssl),
            line("r-xp", libssl),
            line("r-xp", libssl),
            line("r-xp", "/usr/sbin/nginx"),
            line("r-xp", "/lib64/libc.so.6;5f3a1b2c (deleted)"),
            line("r-xp", "/usr/lib/with space.so.dpkg-new (deleted)"),
            line("r-xs", "/memfd:pulseaudio (deleted)"),
            line("rwxs", "/dev/zero (deleted)"),
            line("r-xp", "/SYSV00000000 (deleted)"),
            line("r-xp", "/tmp/jna123.tmp (deleted)"),
            line("r-xp", "/run/user/1000/orcexec.x (deleted)"),
            line("r-xp", "/home/me/target/debug/x (deleted)"),
            line("rw-p", "/usr/share/fonts/cache (deleted)"),
            line("r-xp", "[vdso]"),
            line("r-xp", "/[aio] (deleted)"),
            "cut r-xp".to_owned(),
        ];
        let expected = [
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            "/lib64/libc.so.6",
            "/usr/lib/with space.so",
        ];
        assert_eq!(replaced(maps.concat().as_bytes()), expected);
    }

    #[test]
    fn a_process_is_of_the_first_unit_of_its_path() {
        let unit = |name: &str| Group::Unit(name.to_owned());
        for (text, expected) in [
            ("0::/system.slice/ssh.service\n", unit("ssh.service")),
            ("0::/init.scope\n", unit("init.scope")),
            (
                "0::/system.slice/docker.service/a/b\n",
                unit("docker.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n",
                unit("user@1000.service"),
            ),
            (
                "12:pids:/system.slice/other.service\n1:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service\n",
                unit("cron.service"),
            ),
            (
                "0::/system.slice/docker-0123456789ab.scope\n",
                Group::Container,
            ),
            ("1:name=systemd:/docker/0123/a.service\n", Group::Container),
            (
                "0::/system.slice/snap.lxd.daemon.service\n",
                Group::Container,
            ),
            ("0::/lxc.payload.web/init.scope\n", Group::Container),
            ("0::/system.slice/lxcfs.service\n", unit("lxcfs.service")),
            ("0::/\n", Group::None),
            ("", Group::None),
        ] {
            assert_eq!(group(text), expected, "{text}");
        }
    }
}
