//! The data directory, keys and certificates.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::Finding;
use crate::ca::{Ca, Place};
use crate::config::Config;
use crate::secret::Source;
use crate::server;

/// Free space or inodes, in percent: less is a warning, or a failure.
const FREE: (u64, u64) = (15, 5);
/// The CA is to be rotated so long before it expires.
const CA_LEFT: Duration = Duration::days(90);
/// And a certificate renewed.
const TLS_LEFT: Duration = Duration::days(14);

/// Whether the data directory can be written to, and for how long.
pub(super) fn disk(dir: &Path) -> Vec<Finding> {
    let probe = dir.join(".doctor");
    let tried = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    let shown = dir.display();
    let written = match tried {
        Ok(()) => Finding::ok("data directory", format!("{shown} can be written to")),
        Err(error) => Finding::fail(
            "data directory",
            format!("{shown} can't be written to: {error}"),
            "make it, and give it to the user that runs the collector",
        ),
    };
    let Ok(stat) = statvfs(dir) else {
        return vec![written];
    };
    let share = |free: u64, all: u64| (free * 100).checked_div(all);
    let space = share(stat.blocks_available(), stat.blocks());
    let inodes = share(stat.files_available(), stat.files());
    let free = |name, what: &str, percent: Option<u64>| {
        // Some file systems count no inodes.
        let percent = percent?;
        let detail = format!("{percent} % of the {what} are free");
        let advice = "make room, or let less be kept: [retention]";
        Some(match percent {
            less if less < FREE.1 => Finding::fail(name, detail, advice),
            less if less < FREE.0 => Finding::warn(name, detail, advice),
            _ => Finding::ok(name, detail),
        })
    };
    let mut findings = vec![written];
    findings.extend(free("disk space", "disk's bytes", space));
    findings.extend(free("inodes", "disk's inodes", inodes));
    findings
}

/// Whether nobody else can read keys and passwords.
pub(super) fn permissions(config: &Config) -> Vec<Finding> {
    let mut secrets = keys_below(&config.data_dir.join("ca"));
    let operators = &config.operators;
    for source in [
        &operators.tls_key_file,
        &operators.admin_token_file,
        &operators.backup_token_file,
        &operators.read_token_file,
        &operators.users_from_secret_file,
        &config.database.url_file,
        &config.oidc.client_secret_file,
    ] {
        if let Some(Source::File(path)) = source {
            secrets.push(path.clone());
        }
    }
    let owner = std::fs::metadata(&config.data_dir).map(|data| data.uid());
    let wrong: Vec<_> = secrets
        .iter()
        .filter_map(|path| permission(path, owner.as_ref().ok().copied()))
        .collect();
    if wrong.is_empty() {
        let detail = format!("{} secret files are their owner's alone", secrets.len());
        return vec![Finding::ok("permissions", detail)];
    }
    wrong
}

fn permission(path: &Path, owner: Option<u32>) -> Option<Finding> {
    let shown = path.display();
    let file = match std::fs::metadata(path) {
        Ok(file) => file,
        Err(error) => {
            let detail = format!("{shown}: {error}");
            return Some(Finding::fail("permissions", detail, "check the path"));
        }
    };
    let mode = file.mode() & 0o777;
    if mode & 0o077 != 0 {
        let detail = format!("{shown} has mode {mode:04o}: others can read it");
        let advice = format!("chmod 600 {shown}");
        return Some(Finding::fail("permissions", detail, advice));
    }
    // root may have laid it there and hand it over at the start.
    let is_foreign = owner.is_some_and(|owner| file.uid() != owner && file.uid() != 0);
    is_foreign.then(|| {
        let detail = format!("{shown} belongs to user {}", file.uid());
        let advice = "give it to the user that runs the collector";
        Finding::warn("permissions", detail, advice)
    })
}

/// The `.key` files of the CA, of every generation.
fn keys_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            keys.extend(keys_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "key") {
            keys.push(path);
        }
    }
    keys.sort();
    keys
}

/// The CA: whether its keys belong to its certificates, and how long these last.
pub(super) async fn authority(config: &Config, now: OffsetDateTime) -> Vec<Finding> {
    const NAME: &str = "certificate authority";
    let opened = match Place::of(config).await {
        Ok(place) => Ca::open_at(&place).map_err(anyhow::Error::from),
        Err(error) => Err(error.into()),
    };
    let ca = match opened {
        Ok(ca) => ca,
        Err(error) => {
            let detail = format!("{error:#}");
            let advice =
                "`serve` makes one where there is none; several collectors share the files";
            return vec![Finding::fail(NAME, detail, advice)];
        }
    };
    let expires = ca
        .accepted()
        .flat_map(|one| [&one.root, &one.issuing])
        .filter_map(not_after)
        .min();
    let advice = "run infratrack-collector ca rotate";
    let what = format!("trust domain {}", ca.trust_domain());
    vec![lasting(NAME, &what, expires, (now, CA_LEFT), advice)]
}

/// The certificate that browsers see.
pub(super) async fn operators_tls(config: &Config, now: OffsetDateTime) -> Option<Finding> {
    const NAME: &str = "operators' TLS";
    let path = config.operators.tls_certificate_file.as_ref()?;
    // This reads both, and refuses a key of another certificate.
    if let Err(error) = server::operators_tls(config).await {
        let advice =
            "operators.tls_certificate_file and operators.tls_key_file must be a pair, in PEM";
        return Some(Finding::fail(NAME, format!("{error:#}"), advice));
    }
    let leaf = CertificateDer::from_pem_file(path).ok();
    let expires = leaf.as_ref().and_then(not_after);
    let what = path.display().to_string();
    let advice = "renew the certificate and restart the collector";
    Some(lasting(NAME, &what, expires, (now, TLS_LEFT), advice))
}

fn lasting(
    name: &'static str,
    what: &str,
    expires: Option<OffsetDateTime>,
    (now, enough): (OffsetDateTime, Duration),
    advice: &str,
) -> Finding {
    let Some(expires) = expires else {
        return Finding::fail(name, format!("{what}: no certificate can be read"), advice);
    };
    let left = expires - now;
    let detail = format!("{what}, {} days left", left.whole_days());
    if left <= Duration::ZERO {
        Finding::fail(name, format!("{what}: expired at {expires}"), advice)
    } else if left < enough {
        Finding::warn(name, detail, advice)
    } else {
        Finding::ok(name, detail)
    }
}

fn not_after(certificate: &CertificateDer<'static>) -> Option<OffsetDateTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    OffsetDateTime::from_unix_timestamp(parsed.validity().not_after.timestamp()).ok()
}
