//! Reads the whole log, its chain and its checkpoints, and names the first row that is not as it was sealed.
//!
//! One snapshot of the database, page by page: memory does not grow with the log.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::audit::chain::{self, GENESIS, Hash};
use crate::audit::checkpoint::{self, Checkpoint, CheckpointError};
use crate::blob::{BlobError, BlobStore, Key};
use crate::ca::Ca;
use crate::store::audit_chain::{self as store, Seal};
use crate::store::unix_millis;

/// Seals read at once.
const PAGE: i64 = 256;
/// Names of checkpoints read at once.
const NAMES: usize = 256;
/// Ids looked through at once for rows without a seal.
const IDS: i64 = 50_000;

/// Why nothing can be said.
#[derive(Debug, Error)]
pub enum VerifyError {
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("the checkpoints cannot be read")]
    Blob(#[from] BlobError),
}

/// How much of the log is read, from its end on.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// About as many: the reading begins at a checkpoint.
    pub rows: i64,
    pub time: Duration,
}

/// How far the log was read, and what is wrong with it first.
#[derive(Debug)]
pub struct Report {
    /// The seal of the checkpoint after which the reading began; 0: the whole log was to be read.
    pub after_seq: i64,
    /// There was no time for all of it.
    pub is_cut: bool,
    /// Rows whose seal is right, up to the first that is wrong.
    pub rows: i64,
    /// Checkpoints that agree.
    pub checkpoints: u64,
    pub last_checkpoint: Option<Checkpoint>,
    /// Rows that wait for their seal; in a log that works, those of the last second.
    pub pending: i64,
    pub finding: Option<Finding>,
}

/// What is wrong.
#[derive(Debug)]
pub enum Finding {
    /// The row of a seal is not the one that was sealed, or not where it was.
    Changed { seq: i64, audit_id: i64 },
    /// There is a seal, and no row.
    RowGone { seq: i64, audit_id: i64 },
    /// Seals are gone, and the rows they sealed with them or not.
    SealsGone { from_seq: i64, to_seq: i64 },
    /// The chain agrees with itself, and not with a checkpoint: it was made anew.
    Rewritten { from_seq: i64, to_seq: i64 },
    /// The chain ends before a checkpoint.
    TailGone { from_seq: i64, to_seq: i64 },
    /// A row that nobody sealed and that does not wait for it.
    Unsealed { audit_id: i64 },
    /// A row waited for its seal and is not there.
    PendingGone { audit_id: i64 },
    /// A checkpoint is not believed.
    Checkpoint { key: Key, error: CheckpointError },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { seq, audit_id } => write!(
                f,
                "row {audit_id} (seal {seq}) was changed, moved or forged: it is not what was sealed"
            ),
            Self::RowGone { seq, audit_id } => {
                write!(f, "row {audit_id} (seal {seq}) was deleted")
            }
            Self::SealsGone { from_seq, to_seq } => write!(
                f,
                "seals {from_seq} to {to_seq} were deleted, with their rows or without"
            ),
            Self::Rewritten { from_seq, to_seq } => write!(
                f,
                "the chain was made anew: of the rows with seals {from_seq} to {to_seq} at least one is not what the \
                 checkpoint at {to_seq} says"
            ),
            Self::TailGone { from_seq, to_seq } => write!(
                f,
                "rows and seals {from_seq} to {to_seq} were deleted: the checkpoint at {to_seq} has seen them"
            ),
            Self::Unsealed { audit_id } => write!(
                f,
                "row {audit_id} was forged, or its seal deleted: it has none and does not wait for one"
            ),
            Self::PendingGone { audit_id } => {
                write!(f, "row {audit_id} was deleted before it was sealed")
            }
            Self::Checkpoint { key, error } => {
                write!(f, "the checkpoint {key} is not believed: {error}")
            }
        }
    }
}

/// Verifies everything.
pub async fn verify(pool: &PgPool, blob: &BlobStore, ca: &Ca) -> Result<Report, VerifyError> {
    read(pool, blob, ca, None).await
}

/// Verifies the end of the log: what was added after one of its last checkpoints, which is believed by its signature.
pub async fn verify_end(
    pool: &PgPool,
    blob: &BlobStore,
    ca: &Ca,
    bounds: Bounds,
) -> Result<Report, VerifyError> {
    read(pool, blob, ca, Some(bounds)).await
}

async fn read(
    pool: &PgPool,
    blob: &BlobStore,
    ca: &Ca,
    bounds: Option<Bounds>,
) -> Result<Report, VerifyError> {
    let until = bounds.map(|bounds| Instant::now() + bounds.time);
    // Before the snapshot: what is signed after it is about rows that it does not have.
    let last = last_name(blob).await?;
    let mut transaction = pool.begin().await?;
    store::set_snapshot(&mut transaction).await?;
    let mut reader = Reader {
        blob,
        ca,
        last,
        names: Names::default(),
        until,
        seq: 0,
        hash: GENESIS,
        report: Report {
            after_seq: 0,
            is_cut: false,
            rows: 0,
            checkpoints: 0,
            last_checkpoint: None,
            pending: store::count_pending(&mut transaction).await?,
            finding: None,
        },
    };
    let mut finding = None;
    if let Some(bounds) = bounds {
        finding = reader.skip(&mut transaction, bounds.rows).await?;
    }
    if finding.is_none() {
        finding = reader.find(&mut transaction).await?;
    }
    reader.report.finding = finding;
    transaction.rollback().await?;
    Ok(reader.report)
}

/// The end of the log for people: when the last checkpoint was made.
pub fn age(checkpoint: &Checkpoint, now: OffsetDateTime) -> time::Duration {
    time::Duration::milliseconds(unix_millis(now).0 - checkpoint.at.0)
}

async fn last_name(blob: &BlobStore) -> Result<Option<Key>, BlobError> {
    let mut names = Names::default();
    let mut last = None;
    while let Some(name) = names.next(blob).await? {
        last = Some(name);
    }
    Ok(last)
}

/// The names of the checkpoints in order, a page at a time.
#[derive(Default)]
struct Names {
    page: std::collections::VecDeque<Key>,
    after: Option<Key>,
    is_over: bool,
}

impl Names {
    async fn next(&mut self, blob: &BlobStore) -> Result<Option<Key>, BlobError> {
        if self.page.is_empty() && !self.is_over {
            let prefix = Key::new(checkpoint::PREFIX)?;
            let page = blob.list(&prefix, self.after.as_ref(), NAMES).await?;
            self.is_over = page.len() < NAMES;
            self.page = page.into_iter().map(|entry| entry.key).collect();
        }
        let next = self.page.pop_front();
        if next.is_some() {
            self.after.clone_from(&next);
        }
        Ok(next)
    }
}

struct Reader<'a> {
    blob: &'a BlobStore,
    ca: &'a Ca,
    last: Option<Key>,
    names: Names,
    until: Option<Instant>,
    /// The last seal that is right.
    seq: i64,
    hash: Hash,
    report: Report,
}

impl Reader<'_> {
    /// Goes to the first checkpoint among the last `rows`; without one there the log is read from its beginning.
    async fn skip(
        &mut self,
        connection: &mut PgConnection,
        rows: i64,
    ) -> Result<Option<Finding>, VerifyError> {
        let head = store::find_head(connection).await?;
        let before = head.map_or(0, |head| head.seq) - rows;
        if before < 1 {
            return Ok(None);
        }
        self.names.after = Some(checkpoint::key(before)?);
        let checkpoint = match self.next_checkpoint().await? {
            Ok(Some(checkpoint)) => checkpoint,
            Ok(None) => {
                self.names = Names::default();
                return Ok(None);
            }
            Err(finding) => return Ok(Some(finding)),
        };
        let seal = store::find_seal(connection, checkpoint.seq).await?;
        let hash = seal.and_then(|seal| Hash::try_from(seal.hash).ok());
        let Some(hash) = hash.filter(|hash| checkpoint.hash.as_slice() == hash) else {
            return Ok(Some(self.rewritten(&checkpoint)));
        };
        (self.seq, self.hash) = (checkpoint.seq, hash);
        self.report.after_seq = checkpoint.seq;
        self.report.checkpoints += 1;
        self.report.last_checkpoint = Some(checkpoint);
        Ok(None)
    }

    fn is_late(&mut self) -> bool {
        self.report.is_cut = self.until.is_some_and(|until| Instant::now() >= until);
        self.report.is_cut
    }

    async fn find(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<Finding>, VerifyError> {
        let mut next = match self.next_checkpoint().await? {
            Ok(next) => next,
            Err(finding) => return Ok(Some(finding)),
        };
        loop {
            if self.is_late() {
                return Ok(None);
            }
            let seals = store::list_seals(connection, self.seq, PAGE).await?;
            if seals.is_empty() {
                break;
            }
            let ids: Vec<_> = seals.iter().map(|seal| seal.audit_id).collect();
            let rows = store::list_rows(connection, &ids).await?;
            let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.audit_id, row)).collect();
            for seal in &seals {
                if let Some(finding) = self.step(seal, rows.get(&seal.audit_id)) {
                    return Ok(Some(finding));
                }
                while let Some(checkpoint) = next.take_if(|next| next.seq == self.seq) {
                    if checkpoint.hash.as_slice() != self.hash {
                        return Ok(Some(self.rewritten(&checkpoint)));
                    }
                    self.report.checkpoints += 1;
                    self.report.last_checkpoint = Some(checkpoint);
                    next = match self.next_checkpoint().await? {
                        Ok(next) => next,
                        Err(finding) => return Ok(Some(finding)),
                    };
                }
            }
        }
        if let Some(checkpoint) = next {
            return Ok(Some(Finding::TailGone {
                from_seq: self.seq + 1,
                to_seq: checkpoint.seq,
            }));
        }
        self.unsealed(connection).await
    }

    /// Rows that no seal speaks of.
    async fn unsealed(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<Finding>, VerifyError> {
        if let Some((first, last)) = store::find_id_range(connection).await? {
            let mut after = first - 1;
            while after < last {
                if self.is_late() {
                    return Ok(None);
                }
                let to = last.min(after + IDS);
                if let Some(audit_id) = store::find_unsealed(connection, after, to).await? {
                    return Ok(Some(Finding::Unsealed { audit_id }));
                }
                after = to;
            }
        }
        let gone = store::find_pending_without_row(connection).await?;
        Ok(gone.map(|audit_id| Finding::PendingGone { audit_id }))
    }

    /// Takes one seal; answers what is wrong with it or its row.
    fn step(&mut self, seal: &Seal, row: Option<&store::LogRow>) -> Option<Finding> {
        let (seq, audit_id) = (seal.seq, seal.audit_id);
        if seq != self.seq + 1 {
            return Some(Finding::SealsGone {
                from_seq: self.seq + 1,
                to_seq: seq - 1,
            });
        }
        let Some(row) = row else {
            return Some(Finding::RowGone { seq, audit_id });
        };
        let hash = chain::hash(&self.hash, row);
        if seal.hash != hash {
            return Some(Finding::Changed { seq, audit_id });
        }
        (self.seq, self.hash) = (seq, hash);
        self.report.rows += 1;
        None
    }

    fn rewritten(&self, checkpoint: &Checkpoint) -> Finding {
        let before = self.report.last_checkpoint.as_ref();
        Finding::Rewritten {
            from_seq: before.map_or(1, |before| before.seq + 1),
            to_seq: checkpoint.seq,
        }
    }

    async fn next_checkpoint(
        &mut self,
    ) -> Result<Result<Option<Checkpoint>, Finding>, VerifyError> {
        let Some(key) = self.names.next(self.blob).await? else {
            return Ok(Ok(None));
        };
        if self.last.as_ref().is_none_or(|last| key > *last) {
            return Ok(Ok(None));
        }
        let found = self.blob.find_bytes(&key, checkpoint::OBJECT_BYTES).await;
        let checkpoint = match found {
            Ok(Some(bytes)) => checkpoint::unseal(self.ca, &key, &bytes),
            Ok(None) => Err(CheckpointError::Gone),
            Err(error @ BlobError::TooLarge { .. }) => Err(error.into()),
            Err(error) => return Err(error.into()),
        };
        Ok(match checkpoint {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) => Err(Finding::Checkpoint { key, error }),
        })
    }
}
