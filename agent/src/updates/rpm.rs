//! What rpm's database has, as rpm itself says: only it reads every format that the database had. Its answer is read by
//! `collect/packages.rs`; what dnf and zypper would upgrade is told with the versions from here.

use std::collections::BTreeMap;

use infratrack_shared::version::rpm::{sort_key, split};
use infratrack_shared::wire::packages::{Manager, Package};

use super::Reason;
use super::tool::{Check, Host, Output};
use crate::collect::Found;
use crate::packages::{Inventory, rpm};

/// What is installed, or why that is not known.
pub async fn installed(host: &Host) -> Found {
    match inventory(&Check::new(host)).await {
        Ok(inventory) => Found::Known(inventory),
        Err(unknown) => Found::Unknown {
            manager: Manager::Rpm,
            unknown: super::cut(&unknown),
        },
    }
}

pub(super) async fn inventory(check: &Check<'_>) -> Result<Inventory, Reason> {
    // Without them as fast again; what they would find is no reason to leave a package out.
    let args = ["-qa", "--nodigest", "--nosignature", "--qf", rpm::QUERY];
    let output = check.run("rpm", args).await?;
    if output.code != 0 {
        return Err(refusal("rpm", &output));
    }
    rpm::parse(output.text.as_bytes()).map_err(|error| format!("rpm: {error}"))
}

/// What a program of these complains of first.
pub(super) fn refusal(program: &str, output: &Output) -> Reason {
    let lines = output.complaint.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty());
    let is_error = |line: &&str| line.to_ascii_lowercase().starts_with("error");
    let error = lines.clone().find(is_error).or_else(|| lines.next());
    match error {
        Some(error) => format!("{program}: {error}"),
        None => format!("{program} ended with {}", output.code),
    }
}

/// The newest installed version of each package.
pub(super) struct Installed(BTreeMap<String, Vec<(Vec<u8>, Package)>>);

impl Installed {
    pub(super) async fn read(check: &Check<'_>) -> Result<Self, Reason> {
        let mut by_name: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for package in inventory(check).await?.packages {
            let key = order(&package.version);
            let versions = by_name.entry(package.name.clone()).or_default();
            versions.push((key, package));
        }
        for versions in by_name.values_mut() {
            versions.sort_by(|a, b| b.cmp(a));
        }
        Ok(Self(by_name))
    }

    /// That of the architecture, or of another where the package has changed it.
    pub(super) fn newest(&self, name: &str, arch: &str) -> Option<&Package> {
        let versions = self.0.get(name)?;
        let same = versions.iter().find(|(_, package)| package.arch == arch);
        same.or(versions.first()).map(|(_, package)| package)
    }
}

/// Bytes that sort as rpm orders versions.
pub(super) fn order(version: &str) -> Vec<u8> {
    let (epoch, version, release) = split(version);
    sort_key(epoch, version, release)
}
