//! Brings back what the log knows and the tables lack: certificates, their hosts, revocations.
//!
//! For a database that was restored from a backup, but run at every start and every few minutes, because
//! nobody remembers to say that a database was restored. Names alone say what is missing, so that a log that
//! agrees with the tables is listed and not read. An object that is not believed is reported and skipped.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt, stream};
use infratrack_shared::ids::HostId;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::{Entry, Issued, Kind, LogError, OBJECT_BYTES, PREFIX, Revoked};
use crate::blob::{self, BlobStore, Key};
use crate::ca::{self, Ca};
use crate::store::{agent_certs, ca_log, storable, timestamp};

/// Names looked at in one turn; at least 2.
const PAGE: usize = 1000;
/// Objects read at once.
const READS: usize = 16;

/// What a replay found.
#[derive(Debug, Default)]
pub struct Report {
    /// Objects in the log.
    pub listed: u64,
    pub hosts_restored: u64,
    pub certificates_restored: u64,
    pub revocations_restored: u64,
    /// Objects that were not believed, and why.
    pub refused: Vec<(Key, LogError)>,
}

impl Report {
    /// Whether the tables lacked nothing and every object that was read was believed.
    pub fn is_quiet(&self) -> bool {
        self.certificates_restored + self.revocations_restored == 0 && self.refused.is_empty()
    }
}

/// What the log has on one certificate.
#[derive(Default)]
struct Logged {
    issued: Option<Key>,
    revoked: Option<Key>,
}

/// Compares the whole log with the tables, and adds to the tables what they lack.
pub async fn replay(
    pool: &PgPool,
    blob: &BlobStore,
    ca: &Ca,
    now: OffsetDateTime,
) -> anyhow::Result<Report> {
    let prefix = Key::new(PREFIX)?;
    let mut after = super::key_before_kept(now)?;
    let mut report = Report::default();
    loop {
        let mut page = blob.list(&prefix, Some(&after), PAGE).await?;
        let last = page.len() < PAGE;
        // What is known of a certificate is looked at together: its revocation's name is the next one.
        let split = |entry: &blob::Entry| {
            super::parse_key(&entry.key).is_some_and(|(_, kind)| kind == Kind::Issued)
        };
        if !last && page.last().is_some_and(split) {
            page.pop();
        }
        if let Some(entry) = page.last() {
            after = entry.key.clone();
        }
        report.listed += page.len() as u64;
        let logged = by_serial(page, &mut report);
        replay_page(pool, blob, ca, now, logged, &mut report).await?;
        if last {
            return Ok(report);
        }
    }
}

fn by_serial(page: Vec<blob::Entry>, report: &mut Report) -> BTreeMap<Vec<u8>, Logged> {
    let mut all: BTreeMap<_, Logged> = BTreeMap::new();
    for entry in page {
        match super::parse_key(&entry.key) {
            Some((serial, Kind::Issued)) => {
                all.entry(serial).or_default().issued = Some(entry.key);
            }
            Some((serial, Kind::Revoked)) => {
                all.entry(serial).or_default().revoked = Some(entry.key);
            }
            None => report.refused.push((entry.key, LogError::Name)),
        }
    }
    all
}

async fn replay_page(
    pool: &PgPool,
    blob: &BlobStore,
    ca: &Ca,
    now: OffsetDateTime,
    logged: BTreeMap<Vec<u8>, Logged>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let serials: Vec<Vec<u8>> = logged.keys().cloned().collect();
    let mut connection = pool.acquire().await?;
    let known = ca_log::list_known(&mut connection, &serials).await?;
    drop(connection);
    let known: HashMap<Vec<u8>, bool> = known.into_iter().collect();
    let mut wanted = Vec::new();
    for (serial, logged) in logged {
        let known = known.get(&serial).copied();
        wanted.extend(logged.issued.filter(|_| known.is_none()));
        wanted.extend(logged.revoked.filter(|_| known != Some(true)));
    }
    let entries = read(blob, ca, wanted, report).await;
    if entries.is_empty() {
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    let revoked_before = report.revocations_restored;
    for (issued, revoked) in entries.into_values() {
        if let Some(issued) = issued {
            restore(&mut transaction, &issued, revoked.is_some(), now, report).await?;
        }
        if let Some(revoked) = revoked {
            revoke(&mut transaction, &revoked, now, report).await?;
        }
    }
    if report.revocations_restored > revoked_before {
        agent_certs::notify_revoked(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// What the log says of each certificate, by serial.
type Entries = BTreeMap<Vec<u8>, (Option<Issued>, Option<Revoked>)>;

async fn read(blob: &BlobStore, ca: &Ca, wanted: Vec<Key>, report: &mut Report) -> Entries {
    let mut reading = stream::iter(wanted)
        .map(|key| async move {
            let entry = read_one(blob, ca, &key).await;
            (key, entry)
        })
        .buffer_unordered(READS);
    let mut entries = Entries::new();
    while let Some((key, entry)) = reading.next().await {
        match entry {
            Ok(Entry::Issued(issued)) => {
                let of_one = entries.entry(issued.serial.to_vec()).or_default();
                of_one.0 = Some(issued);
            }
            Ok(Entry::Revoked(revoked)) => {
                let of_one = entries.entry(revoked.serial.to_vec()).or_default();
                of_one.1 = Some(revoked);
            }
            Err(error) => report.refused.push((key, error)),
        }
    }
    entries
}

async fn read_one(blob: &BlobStore, ca: &Ca, key: &Key) -> Result<Entry, LogError> {
    let bytes = blob.find_bytes(key, OBJECT_BYTES).await?;
    super::unseal(ca, key, &bytes.ok_or(LogError::Gone)?)
}

/// Enters a certificate again, and its host. A revoked one of a host that is gone is left out: hosts are
/// deleted only after they were revoked, and the log must not bring them back.
async fn restore(
    connection: &mut PgConnection,
    issued: &Issued,
    revoked: bool,
    now: OffsetDateTime,
    report: &mut Report,
) -> sqlx::Result<()> {
    let host = &issued.host;
    let id = host.host_id;
    if !ca_log::host_exists(connection, id).await? {
        if revoked {
            return Ok(());
        }
        report.hosts_restored += ca_log::insert_host(
            connection,
            id,
            &storable(&host.name),
            host.machine_id.as_deref(),
            &host.tags,
            timestamp(host.created_at),
        )
        .await?;
    }
    let certificate = CertificateDer::from(issued.certificate.as_slice());
    let spki_sha256 = Sha256::digest(ca::spki_of(&certificate).unwrap_or_default());
    let cert = agent_certs::NewCert {
        serial: &issued.serial,
        host: HostId(id.0),
        spki_sha256: &spki_sha256,
        certificate: &certificate,
        issued_at: timestamp(issued.issued_at),
        not_after: timestamp(issued.not_after),
        token_id: issued.token_id.as_deref(),
    };
    report.certificates_restored += ca_log::insert_certificate(connection, &cert, now).await?;
    Ok(())
}

async fn revoke(
    connection: &mut PgConnection,
    revoked: &Revoked,
    now: OffsetDateTime,
    report: &mut Report,
) -> sqlx::Result<()> {
    let revocation = ca_log::Revocation {
        serial: &revoked.serial,
        revoked_at: timestamp(revoked.revoked_at),
        by: &revoked.by,
        reason: &revoked.reason,
    };
    report.revocations_restored += ca_log::update_revoked(connection, revocation, now).await?;
    Ok(())
}
