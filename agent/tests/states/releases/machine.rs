//! Where this machine has its packages from, as its apt says: no mirror is named in this repository.

use std::process::Command;

use crate::state::run;

/// Of Debian's archive and of its fixes.
#[derive(Debug)]
pub(super) struct Mirrors {
    pub(super) main: String,
    security: Option<String>,
    /// By which apt reaches them, where there is one.
    proxy: Option<String>,
}

impl Mirrors {
    pub(super) fn of_this_machine() -> Self {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", format]);
        let targets = String::from_utf8(run(&mut targets, &[]).stdout).unwrap();
        let of = |label: &str| {
            let begin = format!("Debian|{label}|");
            let mut lines = targets.lines();
            let uri = lines.find_map(|line| line.strip_prefix(begin.as_str()))?;
            Some(uri.to_owned())
        };
        let mut shell = Command::new("apt-config");
        shell.args(["shell", "PROXY", "Acquire::http::Proxy"]);
        let proxy = String::from_utf8(run(&mut shell, &[]).stdout).unwrap();
        let proxy = proxy.trim().trim_start_matches("PROXY=").trim_matches('\'');
        Self {
            main: of("Debian").expect("this machine has lists of Debian's archive"),
            security: of("Debian-Security"),
            proxy: (!proxy.is_empty()).then(|| proxy.to_owned()),
        }
    }

    /// Lets a program reach them as this machine's apt does.
    pub(super) fn reach(&self, command: &mut Command) {
        if let Some(proxy) = &self.proxy {
            command.env("http_proxy", proxy);
        }
    }

    /// What brings newer versions than the release has: its updates and fixes, and for those that have few of them, the next one.
    pub(super) fn archives(&self, release: &str) -> Vec<(&str, String)> {
        let main = self.main.as_str();
        let mut archives = Vec::new();
        if release == "sid" {
            archives.push((main, "experimental".to_owned()));
            return archives;
        }
        archives.push((main, format!("{release}-updates")));
        if let Some(security) = &self.security {
            let suite = match release {
                "stretch" | "buster" => format!("{release}/updates"),
                _ => format!("{release}-security"),
            };
            archives.push((security, suite));
        }
        if release == "forky" {
            archives.push((main, "sid".to_owned()));
        }
        archives
    }
}
