//! `infratrack-collector ca …`.

use anyhow::{Context, bail};
use infratrack_collector::audit::{Actor, Change, record};
use infratrack_collector::blob::BlobStore;
use infratrack_collector::ca::dependents::Dependents;
use infratrack_collector::ca::{Ca, CaError, Place, rotation};
use infratrack_collector::ca_log::replay::replay;
use infratrack_collector::cli::CaAction;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use serde_json::json;

/// Does it; where nothing is asked for, shows the CA.
pub(crate) async fn run(config: &Config, action: Option<CaAction>) -> anyhow::Result<()> {
    match action.unwrap_or(CaAction::Show) {
        CaAction::Show => show(config).await,
        CaAction::Replay => replay_log(config).await,
        CaAction::Rotate { after_minutes } => rotate(config, after_minutes).await,
        CaAction::Retire { days, force } => retire(config, days, force).await,
    }
}

async fn show(config: &Config) -> anyhow::Result<()> {
    let (place, now) = (Place::of(config).await?, Clock::system().now());
    let ca = Ca::open_at(&place)?;
    let pin = hex::encode(ca.root_pin(now)?);
    super::print(&format!("directory:    {}", place.dir.display()));
    super::print(&format!("trust domain: {}", ca.trust_domain()));
    super::print(&format!("root key pin: sha256:{pin}"));
    if let [_] = ca.generations() {
        return Ok(());
    }
    let signing = ca.signing(now)?.root_pin();
    for (number, one) in (1..).zip(ca.generations()) {
        let state = match one.retired_at {
            Some(at) => format!("retired at {at}"),
            None if one.root_pin() == signing => "signs".to_owned(),
            None if one.signs_from > now => format!("signs from {}", one.signs_from),
            None => "accepted".to_owned(),
        };
        super::print(&format!("generation {number}: {state}"));
    }
    Ok(())
}

async fn rotate(config: &Config, after_minutes: u32) -> anyhow::Result<()> {
    let after = time::Duration::minutes(after_minutes.into());
    let place = Place::of(config).await?;
    let change = Change::new("ca.rotate", "ca", "ca");
    let change = change.after(json!({ "after_minutes": after_minutes }));
    let made = on_record(config, change, || {
        rotation::rotate_at(&place, Clock::system().now(), after)
    })
    .await?;
    super::print(&format!(
        "made {}; it signs from {}. Collectors that share the files notice by themselves, and agents are \
         told to trust both generations. `ca retire` ends the rotation.",
        made.dir.display(),
        made.signs_from
    ));
    if place.has_given_keys() {
        super::print(&format!(
            "Add issuing.key and root.key of {} to the secret of ca.key_file, then restart the collectors and delete \
             the two files. The certificates and rotation.json there belong into every collector's directory.",
            place.dir.join(&made.dir).display()
        ));
    }
    Ok(())
}

async fn retire(config: &Config, days: u32, force: bool) -> anyhow::Result<()> {
    let (place, now) = (Place::of(config).await?, Clock::system().now());
    let ca = Ca::open_at(&place)?;
    let mut accepted = ca.accepted();
    if let (false, Some(old), Some(next)) = (force, accepted.next(), accepted.next()) {
        let pool = super::connect(config).await?;
        let seen_since = now - time::Duration::days(days.into());
        let left = Dependents::find(&pool, old, next.signs_from, seen_since, now).await?;
        if let Some(host) = left.hosts.first() {
            bail!(
                "{} hosts seen in the last {days} days have no certificate of the next generation yet, {host} \
                 among them; they get one when they renew",
                left.hosts.len()
            );
        }
        if left.tokens > 0 {
            bail!(
                "{} enrollment tokens that were made before the rotation can still be used",
                left.tokens
            );
        }
    }
    let change = Change::new("ca.retire", "ca", "ca").after(json!({ "force": force }));
    let retired = on_record(config, change, || rotation::retire(&place.dir, now)).await?;
    super::print(&format!("retired {}", retired.dir.display()));
    Ok(())
}

/// Changes files and says so in the audit log: what cannot be recorded is not done.
async fn on_record<T>(
    config: &Config,
    change: Change<'_>,
    work: impl FnOnce() -> Result<T, CaError>,
) -> anyhow::Result<T> {
    let pool = super::connect(config).await?;
    let mut transaction = pool.begin().await?;
    let now = Clock::system().now();
    record(&mut transaction, &Actor::command_line(), change, now).await?;
    let done = work()?;
    let committed = transaction.commit().await;
    committed.context("it is done, but the audit log does not say so")?;
    Ok(done)
}

async fn replay_log(config: &Config) -> anyhow::Result<()> {
    let ca = Ca::open_at(&Place::of(config).await?)?;
    let blob = BlobStore::open(config).await?;
    let pool = super::connect(config).await?;
    let report = replay(&pool, &blob, &ca, Clock::system().now()).await?;
    super::print(&format!(
        "the log has {} objects; restored {} certificates of {} lost hosts, {} revocations",
        report.listed,
        report.certificates_restored,
        report.hosts_restored,
        report.revocations_restored
    ));
    for (key, error) in &report.refused {
        super::print(&format!("not believed: {key}: {error}"));
    }
    if !report.refused.is_empty() {
        bail!(
            "{} objects of the log are not believed",
            report.refused.len()
        );
    }
    Ok(())
}
