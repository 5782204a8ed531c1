//! The machine that an operator sits at: Ansible, SSH, the packages, in the hub's network.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use infratrack_testkit::rig::{Rig, said};
use serde_json::Value;

/// Where `make packages` puts them.
const PACKAGES: &str = "target/packages";

pub(crate) struct Control<'a> {
    pub(crate) rig: &'a Rig,
    work: tempfile::TempDir,
    path: String,
}

impl<'a> Control<'a> {
    /// With the packages in its directory, and an `ssh` that has the key.
    pub(crate) fn new(rig: &'a Rig) -> anyhow::Result<Self> {
        let work = tempfile::tempdir()?;
        for package in
            fs::read_dir(repository().join(PACKAGES)).context("make packages comes first")?
        {
            let package = package?;
            fs::copy(package.path(), work.path().join(package.file_name()))?;
        }
        let bin = work.path().join("bin");
        fs::create_dir(&bin)?;
        let state = rig.state().display();
        let config = format!(
            "User ops\nIdentityFile {state}/id\nIdentitiesOnly yes\nUserKnownHostsFile {state}/known_hosts\n"
        );
        fs::write(work.path().join("ssh_config"), config)?;
        let ssh = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F {}/ssh_config \"$@\"\n",
            work.path().display()
        );
        fs::write(bin.join("ssh"), ssh)?;
        fs::set_permissions(bin.join("ssh"), Permissions::from_mode(0o755))?;
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(Self {
            rig,
            path: format!("{}:{path}", bin.display()),
            work,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.work.path()
    }

    /// A shell command in the hub, as the operator types it.
    pub(crate) fn shell(&self, text: &str) -> Command {
        let mut command = self.rig.hub("bash");
        command
            .args(["-euo", "pipefail", "-c", text])
            .current_dir(self.dir())
            .env("PATH", &self.path)
            .env("HOME", self.dir())
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_HOME", self.dir().join(".ansible"))
            .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
            .env("ANSIBLE_CALLBACK_RESULT_FORMAT", "yaml")
            .env_remove("INFRATRACK_API_TOKEN");
        command
    }

    pub(crate) fn run(&self, text: &str) -> anyhow::Result<String> {
        said(&mut self.shell(text))
    }

    /// Runs a playbook of the collection with more arguments; answers the recap's figures by host.
    pub(crate) fn playbook(&self, name: &str, arguments: &str) -> anyhow::Result<Recap> {
        self.playbook_with("inventory.ini", name, arguments)
    }

    pub(crate) fn playbook_with(
        &self,
        inventory: &str,
        name: &str,
        arguments: &str,
    ) -> anyhow::Result<Recap> {
        let text =
            format!("ansible-playbook -i {inventory} infratrack.infratrack.{name} {arguments}");
        Recap::of(self.shell(&text).output()?)
    }

    /// A newer package whose program fails where it is called for `service`; answers its file.
    pub(crate) fn broken_package(&self, name: &str, service: &str) -> anyhow::Result<String> {
        let file = format!("{name}_0.1.2-1_amd64.deb");
        let build = format!(
            "rm -rf broken && dpkg-deb -R {name}_0.1.1-1_amd64.deb broken\n\
             cd broken/usr/bin && mv {name} {name}.real\n\
             printf '#!/bin/sh\\ncase \" $* \" in *\" {service} \"*) exit 1; esac\\nexec /usr/bin/{name}.real \"$@\"\\n' > {name}\n\
             chmod 755 {name} && cd ../../..\n\
             sed -i 's/^Version: .*/Version: 0.1.2-1/' broken/DEBIAN/control\n\
             dpkg-deb -b --root-owner-group broken {file}"
        );
        self.run(&build)?;
        Ok(file)
    }

    pub(crate) fn has_version(
        &self,
        host: &str,
        package: &str,
        version: &str,
    ) -> anyhow::Result<()> {
        let ask = ["dpkg-query", "-W", "-f", "${Version}", package];
        let installed = self.rig.exec(host, &ask)?;
        ensure!(
            installed == version,
            "{package} on {host} is {installed}, not {version}"
        );
        Ok(())
    }

    /// Asks the API, as an administrator; a body is JSON.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let ask = "import sys, urllib.request as r\n\
            method, path, body, token = sys.argv[1:]\n\
            headers = {'Authorization': 'Bearer ' + token, 'Content-Type': 'application/json'}\n\
            request = r.Request('http://127.0.0.1:8080' + path, body.encode() or None, headers, method=method)\n\
            print(r.urlopen(request, timeout=10).read().decode())";
        let token = self.rig.exec(
            super::COLLECTOR,
            &["infratrack-collector", "token", "admin"],
        )?;
        let answer = self.rig.exec(
            super::COLLECTOR,
            &["python3", "-c", ask, method, path, body, token.trim()],
        )?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// A host's address.
    pub(crate) fn address(&self, host: &str) -> anyhow::Result<String> {
        Ok(self.rig.exec(host, &["hostname", "-I"])?.trim().to_owned())
    }

    /// What the collector shows of the host with this name.
    pub(crate) fn host(&self, id: &str) -> anyhow::Result<Value> {
        let shown = self
            .rig
            .exec(super::COLLECTOR, &["infratrack-collector", "host", id])?;
        Ok(serde_json::from_str(&shown)?)
    }

    /// The id that a host says it has.
    pub(crate) fn id(&self, host: &str) -> anyhow::Result<String> {
        let status = self
            .rig
            .exec(host, &["infratrack-agent", "status", "--json"])?;
        let status: Value = serde_json::from_str(&status)?;
        Ok(status["host_id"].as_str().context("no host_id")?.to_owned())
    }

    /// A query's only value, as text, from the collector's private database.
    pub(crate) fn query(&self, sql: &str) -> anyhow::Result<String> {
        let psql = "cd / && exec setpriv --reuid infratrack-collector --regid infratrack-collector --clear-groups \
                    psql -X -A -t -q -v ON_ERROR_STOP=1 -h /var/lib/infratrack-collector/postgres/socket -U infratrack \
                    -d infratrack -c \"$1\"";
        let value = self
            .rig
            .exec(super::COLLECTOR, &["sh", "-c", psql, "sh", sql])?;
        Ok(value.trim().to_owned())
    }
}

/// The last lines of a playbook's run.
pub(crate) struct Recap {
    pub(crate) text: String,
    pub(crate) is_good: bool,
}

impl Recap {
    fn of(output: Output) -> anyhow::Result<Self> {
        Ok(Self {
            text: format!(
                "{}{}",
                String::from_utf8(output.stdout)?,
                String::from_utf8_lossy(&output.stderr)
            ),
            is_good: output.status.success(),
        })
    }

    /// The sum of a column over all hosts.
    pub(crate) fn sum(&self, column: &str) -> anyhow::Result<u32> {
        let recap = self.text.split("PLAY RECAP").nth(1).context("no recap")?;
        let words = recap.split_whitespace();
        let figures = words.filter_map(|word| word.strip_prefix(column)?.strip_prefix('='));
        let figures: Vec<u32> = figures.map(str::parse).collect::<Result<_, _>>()?;
        ensure!(!figures.is_empty(), "no {column} in the recap");
        Ok(figures.iter().sum())
    }

    pub(crate) fn good(self) -> anyhow::Result<Self> {
        ensure!(self.is_good, "the playbook failed:\n{}", self.text);
        Ok(self)
    }
}

/// Tries until it answers, for at most this long.
#[expect(
    clippy::disallowed_methods,
    reason = "the hosts are asked by command: nothing else tells"
)]
pub(crate) fn eventually<T>(
    within: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not within {within:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

pub(crate) fn repository() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_owned()
}

/// The code blocks of a section of the README, each with its language.
pub(crate) fn readme(section: &str) -> anyhow::Result<Vec<(String, String)>> {
    let text = fs::read_to_string(repository().join("README.md"))?;
    let Some((_, rest)) = text.split_once(&format!("\n## {section}\n")) else {
        bail!("the README has no section {section}");
    };
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let mut blocks = Vec::new();
    for (index, part) in section.split("```").enumerate() {
        if index % 2 == 1 {
            let (language, code) = part.split_once('\n').context("an empty block")?;
            blocks.push((language.to_owned(), code.to_owned()));
        }
    }
    Ok(blocks)
}
