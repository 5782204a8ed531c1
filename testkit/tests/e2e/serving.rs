//! A collector's other ways: a database in the host's Postgres, pages over TLS from files and behind Caddy, and a
//! version that does not start.

use std::fs;

use anyhow::{Context, ensure};

use crate::SPARE;
use crate::control::{Control, Recap};

/// Of what the spare machine is called in `spare.ini`.
const NAME: &str = "spare.example";
const CERTIFICATE: &str = "/etc/ssl/infratrack.crt";
const KEY: &str = "/etc/ssl/infratrack.key";
/// Where Caddy keeps the CA that it made.
const CADDY_ROOT: &str = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt";

/// All of them, on the spare machine.
pub(crate) fn all_ways(control: &Control<'_>) -> anyhow::Result<()> {
    let inventory = format!(
        "[infratrack_collectors]\n{NAME}\n\n[infratrack_collectors:vars]\ncollector_source=file\n\
         collector_file=infratrack-collector_0.1.0-1_amd64.deb\ncollector_database=local\n"
    );
    fs::write(control.dir().join("spare.ini"), inventory)?;
    // Debian's package makes one as it is installed; the image has the package and no cluster.
    let cluster = "pg_createcluster $(ls /usr/lib/postgresql) main";
    control.rig.exec(SPARE, &["sh", "-ec", cluster])?;
    // Before the package there is no user who may read the key, and no need for TLS.
    site(control, "")?.good()?;
    let make = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={NAME} \
         -addext subjectAltName=DNS:{NAME} -keyout {KEY} -out {CERTIFICATE} 2>&1 && chgrp infratrack-collector {KEY} && chmod 640 {KEY}"
    );
    control.rig.exec(SPARE, &["sh", "-ec", &make])?;
    let files = format!(
        "-e collector_tls=files -e collector_tls_certificate_file={CERTIFICATE} -e collector_tls_key_file={KEY}"
    );
    site(control, &files)?.good()?;
    asked_over_tls(control, CERTIFICATE, 8445)?;
    let again = site(control, &files)?.good()?;
    ensure!(
        again.sum("changed")? == 0,
        "something changed:\n{}",
        again.text
    );
    let caddy = "-e collector_tls=caddy -e collector_caddy_tls=internal";
    site(control, caddy)?.good()?;
    asked_over_tls(control, CADDY_ROOT, 443)?;
    let again = site(control, caddy)?.good()?;
    ensure!(
        again.sum("changed")? == 0,
        "something changed:\n{}",
        again.text
    );
    broken_version(control, caddy)?;
    asked_over_tls(control, CADDY_ROOT, 443)
}

fn site(control: &Control<'_>, arguments: &str) -> anyhow::Result<Recap> {
    control.playbook_with("spare.ini", "site", arguments)
}

/// From the operator's machine, by name, trusting this certificate alone.
fn asked_over_tls(control: &Control<'_>, trusted: &str, port: u16) -> anyhow::Result<()> {
    let root = control.rig.exec(SPARE, &["cat", trusted])?;
    fs::write(control.dir().join("root.crt"), root)?;
    let ask = format!(
        "import ssl, urllib.request as r\n\
         context = ssl.create_default_context(cafile='root.crt')\n\
         print(r.urlopen('https://{NAME}:{port}/health', timeout=10, context=context).status)"
    );
    let asked = control.run(&format!("python3 -c \"{ask}\""));
    let status = asked.with_context(|| format!("port {port}"))?;
    ensure!(status.trim() == "200", "{status}");
    Ok(())
}

/// The version before is back in place, and the run says so.
fn broken_version(control: &Control<'_>, arguments: &str) -> anyhow::Result<()> {
    let broken = control.broken_package("infratrack-collector", "serve")?;
    let arguments =
        format!("{arguments} -e collector_file={broken} -e collector_verify_seconds=10");
    let recap = site(control, &arguments)?;
    ensure!(!recap.is_good, "a broken version was taken");
    ensure!(
        recap.text.contains("Version 0.1.0-1 is back in place"),
        "{}",
        recap.text
    );
    control.has_version(SPARE, "infratrack-collector", "0.1.0-1")
}
