//! Which of the lists that apt is configured to have are there, since when, and what they say of themselves.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::os::unix::fs::MetadataExt;

use infratrack_shared::time::UnixMillis;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::policy::Release;
use super::simulation;
use crate::updates::Reason;
use crate::updates::tool::Check;

const LISTS: &str = "var/lib/apt/lists";
/// Touched when all lists were brought without an error, by apt's timer and by Ubuntu's hook.
const STAMPS: [&str; 2] = [
    "var/lib/apt/periodic/update-success-stamp",
    "var/lib/apt/periodic/update-stamp",
];
/// A Release file lists hashes of thousands of files after what is wanted.
const RELEASE_BYTES: u64 = 64 * 1024 * 1024;
const LINES: usize = 100;

/// What is known of the lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// When the oldest of them came, Unix time in seconds.
    pub(super) brought_at_s: Option<u64>,
    pub(super) warnings: Vec<String>,
    /// Archives whose versions are installed only on request: backports, experimental.
    pub(super) on_request: BTreeSet<Archive>,
    /// Who keeps fixes in an archive of their own, also where that has nothing yet.
    pub(super) secured: BTreeSet<String>,
}

/// Origin, label, suite and codename.
pub(super) type Archive = [String; 4];

impl Lists {
    pub(super) fn is_on_request(&self, release: &Release) -> bool {
        let archive = [
            release.origin.clone(),
            release.label.clone(),
            release.archive.clone(),
            release.codename.clone(),
        ];
        self.on_request.contains(&archive)
    }
}

/// Compares apt's sources with what is there. Without lists apt says that there is nothing to do, which nobody knows then.
pub(super) async fn read(check: &Check<'_>) -> Result<Lists, Reason> {
    // Says what it would bring, and as which file.
    let output = check.run("apt-get", ["update", "--print-uris"]).await?;
    if output.code != 0 {
        return Err(simulation::refusal(&output));
    }
    let mut lists = Lists::default();
    let (mut is_any, mut is_configured) = (false, false);
    for line in output.text.lines() {
        let Some((uri, file)) = release_of(line) else {
            continue;
        };
        is_configured = true;
        let root = &check.host.root;
        let names = [
            format!("{LISTS}/{file}_InRelease"),
            format!("{LISTS}/{file}_Release"),
        ];
        match names
            .iter()
            .find(|name| root.path(name).symlink_metadata().is_ok())
        {
            Some(path) => {
                is_any = true;
                lists.add(check, path, &uri)?;
            }
            None => lists.warnings.push(format!("no lists of {uri}")),
        }
    }
    if !is_any {
        let why = if is_configured {
            "apt-get update has not run"
        } else {
            "no source is configured"
        };
        return Err(format!("no package lists: {why}"));
    }
    for stamp in STAMPS {
        let touched = check.host.root.path(stamp).metadata().ok();
        let touched = touched.and_then(|stamp| u64::try_from(stamp.mtime()).ok());
        lists.brought_at_s = lists.brought_at_s.max(touched);
    }
    Ok(lists)
}

impl Lists {
    fn add(&mut self, check: &Check<'_>, path: &str, uri: &str) -> Result<(), Reason> {
        let said = |error: std::io::Error| format!("/{path}: {error}");
        let file = check.host.root.open(path, RELEASE_BYTES).map_err(said)?;
        let found = check.host.root.path(path).metadata().map_err(said)?;
        // Its time of change is that of the server's file.
        let brought = found.mtime().max(found.ctime());
        let brought = u64::try_from(brought).unwrap_or_default();
        let oldest = self.brought_at_s.unwrap_or(brought);
        self.brought_at_s = Some(oldest.min(brought));
        let header = Header::read(file).map_err(said)?;
        let [origin, label, archive, codename] = header.archive.clone();
        let release = Release {
            origin,
            label,
            archive,
            codename,
            ..Release::default()
        };
        if release.is_security() {
            self.secured.insert(release.vendor().to_owned());
        }
        if header.is_on_request {
            self.on_request.insert(header.archive);
        }
        let valid_until = header.valid_until.as_deref();
        if let Some(until) = valid_until.and_then(unix_millis)
            && until < check.host.clock.now()
        {
            let until = valid_until.unwrap_or_default();
            self.warnings
                .push(format!("the lists of {uri} were valid until {until}"));
        }
        Ok(())
    }
}

/// `'URI/InRelease' FILE_InRelease SIZE HASH`: the source without secrets, and how its files begin.
fn release_of(line: &str) -> Option<(String, &str)> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let file = rest.split(' ').next()?.strip_suffix("_InRelease")?;
    let uri = uri.strip_suffix("InRelease")?.trim_end_matches('/');
    let uri = match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => uri.to_owned(),
    };
    Some((uri, file))
}

/// The fields that are wanted of a Release file.
#[derive(Default)]
struct Header {
    archive: Archive,
    is_on_request: bool,
    valid_until: Option<String>,
}

impl Header {
    fn read(file: impl BufRead) -> std::io::Result<Self> {
        let mut header = Self::default();
        for line in file.split(b'\n').take(LINES) {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim().to_owned();
            match name {
                "Origin" => header.archive[0] = value,
                "Label" => header.archive[1] = value,
                "Suite" => header.archive[2] = value,
                "Codename" => header.archive[3] = value,
                "NotAutomatic" => header.is_on_request = value.eq_ignore_ascii_case("yes"),
                "Valid-Until" => header.valid_until = Some(value),
                "MD5Sum" | "SHA1" | "SHA256" => break,
                _ => {}
            }
        }
        Ok(header)
    }
}

fn unix_millis(date: &str) -> Option<UnixMillis> {
    // The standard knows no `UTC`, and one digit of a day is written with a space before it.
    let date = date.replace("UTC", "+0000").replace("  ", " ");
    let date = OffsetDateTime::parse(&date, &Rfc2822).ok()?;
    Some(UnixMillis(date.unix_timestamp() * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_told_without_its_password() {
        let line = "'https://me:secret@esm.example/ubuntu/dists/jammy/InRelease' esm.example_ubuntu_dists_jammy_InRelease 0 ";
        assert_eq!(
            release_of(line),
            Some((
                "https://esm.example/ubuntu/dists/jammy".to_owned(),
                "esm.example_ubuntu_dists_jammy"
            ))
        );
        assert_eq!(release_of("'file:/r/./Packages.xz' _r_._Packages 0 "), None);
    }

    #[test]
    fn dates_of_release_files_are_read() {
        let dates = [
            "Sat, 07 Jun 2025 09:05:18 UTC",
            "Sat,  7 Jun 2025 09:05:18 +0000",
        ];
        for date in dates {
            assert_eq!(
                unix_millis(date),
                Some(UnixMillis(1_749_287_118_000)),
                "{date}"
            );
        }
    }
}
