//! A ledger against the tables: nothing acknowledged is missing, nothing is there twice or unasked.
//!
//! Only hosts of the ledger are looked at. A host that forked has new streams and numbers, so its records
//! are known by their unique numbers alone. Heartbeats older than the raw rows' retention are not there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use infratrack_shared::ids::{HostId, StreamId};
use serde::Serialize;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::{Key, Ledger};

/// How many offenders of a kind are named.
const NAMED: usize = 10;
/// Hosts asked for at once.
const HOSTS: usize = 500;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub records_offered: usize,
    pub records_acknowledged: usize,
    pub records_stored: usize,
    pub heartbeats_offered: usize,
    pub heartbeats_acknowledged: usize,
    pub heartbeats_stored: usize,
    /// Offered records that the table of gaps says are lost: no violation, but never silent.
    pub records_declared_lost: usize,
    /// Numbers of critical records in the table of gaps.
    pub numbers_declared_lost: u64,
    /// By kind; empty where all is well.
    pub violations: BTreeMap<&'static str, Offenders>,
}

/// Everything that broke one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offenders {
    pub count: usize,
    /// The first few.
    pub first: Vec<String>,
}

impl Verdict {
    /// Whether every rule held.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether every rule held and no critical record was given up either.
    pub fn is_whole(&self) -> bool {
        self.is_clean() && self.records_declared_lost == 0 && self.numbers_declared_lost == 0
    }

    fn blame(&mut self, rule: &'static str, who: impl FnOnce() -> String) {
        let offenders = self.violations.entry(rule).or_default();
        offenders.count += 1;
        if offenders.first.len() < NAMED {
            offenders.first.push(who());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "records     offered {} acknowledged {} stored {} declared lost {}",
            self.records_offered,
            self.records_acknowledged,
            self.records_stored,
            self.records_declared_lost
        )?;
        writeln!(
            f,
            "heartbeats  offered {} acknowledged {} stored {}",
            self.heartbeats_offered, self.heartbeats_acknowledged, self.heartbeats_stored
        )?;
        for (rule, offenders) in &self.violations {
            writeln!(f, "VIOLATION   {rule}: {}", offenders.count)?;
            for who in &offenders.first {
                writeln!(f, "            {who}")?;
            }
        }
        f.write_str(if self.is_clean() {
            "clean"
        } else {
            "NOT clean"
        })
    }
}

/// What has to be in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// What was acknowledged: the fleet may have more.
    Acknowledged,
    /// Every record that a spool took: each has drained. Heartbeats that were acknowledged, but for those
    /// that a failover lost: none is kept for that.
    Drained { failed_over: bool },
}

/// Compares the tables with `ledger`.
pub async fn verify(pool: &PgPool, ledger: &Ledger) -> anyhow::Result<Verdict> {
    verify_that(pool, ledger, Must::Acknowledged).await
}

/// Compares the tables with `ledger`, by what must be in them.
pub async fn verify_that(pool: &PgPool, ledger: &Ledger, must: Must) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict {
        records_offered: ledger.records.len(),
        records_acknowledged: ledger.acknowledged_records(),
        heartbeats_offered: ledger.heartbeats.len(),
        heartbeats_acknowledged: ledger.acknowledged_heartbeats(),
        ..Verdict::default()
    };
    let (mut events, mut beats, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for hosts in ledger.hosts().chunks(HOSTS) {
        let hosts: Vec<Uuid> = hosts.iter().map(|host| host.0).collect();
        events.extend(self::events(pool, &hosts).await?);
        beats.extend(heartbeats(pool, &hosts).await?);
        gaps.extend(self::gaps(pool, &hosts).await?);
    }
    verdict.records_stored = events.len();
    verdict.heartbeats_stored = beats.len();
    compare_events(&mut verdict, ledger, events, &gaps, must);
    compare_heartbeats(&mut verdict, ledger, beats, must);
    Ok(verdict)
}

/// A row of `events` that an agent said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    key: Key,
    id: i64,
    unique: Option<u64>,
}

/// Host, stream, first and last number.
type Gap = (HostId, StreamId, u64, u64);

async fn events(pool: &PgPool, hosts: &[Uuid]) -> anyhow::Result<Vec<Event>> {
    let rows = sqlx::query(
        "select host_id, stream, seq, event_id,
             case jsonb_typeof(body -> 'unique') when 'number' then (body ->> 'unique')::int8 end
         from events where host_id = any($1) and stream is not null",
    )
    .bind(hosts)
    .fetch_all(pool)
    .await?;
    let event = |row: &sqlx::postgres::PgRow| -> anyhow::Result<Event> {
        let unique: Option<i64> = row.try_get(4)?;
        Ok(Event {
            key: key(row)?,
            id: row.try_get(3)?,
            unique: unique.and_then(|unique| u64::try_from(unique).ok()),
        })
    };
    rows.iter().map(event).collect()
}

async fn heartbeats(pool: &PgPool, hosts: &[Uuid]) -> anyhow::Result<Vec<Key>> {
    let rows = sqlx::query("select host_id, stream, n from heartbeats where host_id = any($1)")
        .bind(hosts)
        .fetch_all(pool)
        .await?;
    rows.iter().map(key).collect()
}

async fn gaps(pool: &PgPool, hosts: &[Uuid]) -> anyhow::Result<Vec<Gap>> {
    let rows = sqlx::query(
        "select host_id, stream, from_seq, to_seq from gaps
         where host_id = any($1) and class = 'critical'",
    )
    .bind(hosts)
    .fetch_all(pool)
    .await?;
    let gap = |row: &sqlx::postgres::PgRow| -> anyhow::Result<Gap> {
        let (host, stream, from) = key(row)?;
        let to: i64 = row.try_get(3)?;
        Ok((host, stream, from, u64::try_from(to)?))
    };
    rows.iter().map(gap).collect()
}

fn key(row: &sqlx::postgres::PgRow) -> anyhow::Result<Key> {
    let number: i64 = row.try_get(2)?;
    Ok((
        HostId(row.try_get(0)?),
        StreamId(row.try_get(1)?),
        u64::try_from(number)?,
    ))
}

fn compare_events(
    verdict: &mut Verdict,
    ledger: &Ledger,
    mut stored: Vec<Event>,
    gaps: &[Gap],
    must: Must,
) {
    stored.sort_unstable();
    compare_gaps(verdict, &stored, gaps);
    let uniques: HashMap<(HostId, u64), Key> = ledger
        .records
        .iter()
        .map(|(key, unique)| ((key.0, *unique), *key))
        .collect();
    // What each stored row is, by the key it was offered under.
    let mut found = HashSet::new();
    let mut found_intended = HashSet::new();
    let mut before: Option<Event> = None;
    for event in stored {
        let intended = event.unique.map(|unique| (event.key.0, unique));
        let intended = intended.filter(|intended| ledger.intended.contains(intended));
        let by_unique = event
            .unique
            .and_then(|unique| uniques.get(&(event.key.0, unique)));
        match by_unique {
            Some(offered) if *offered == event.key || ledger.forked.contains(&event.key.0) => {
                if !found.insert(*offered) {
                    verdict.blame("event stored twice", || name(&event.key, event.unique));
                }
            }
            Some(offered) => verdict.blame("event under another number than offered", || {
                format!(
                    "{}, offered as {}",
                    name(&event.key, event.unique),
                    name(offered, None)
                )
            }),
            None if intended.is_some_and(|intended| found_intended.insert(intended)) => {}
            None if intended.is_some() => {
                verdict.blame("event stored twice", || name(&event.key, event.unique));
            }
            None => verdict.blame("event never offered", || name(&event.key, event.unique)),
        }
        if let Some(before) = before.replace(event)
            && (before.key.0, before.key.1) == (event.key.0, event.key.1)
            && before.id >= event.id
        {
            verdict.blame("event ids out of order", || {
                let key = name(&event.key, event.unique);
                format!(
                    "{key} has event id {}, the one before {}",
                    event.id, before.id
                )
            });
        }
    }
    for (key, unique) in &ledger.records {
        let acknowledged = ledger.is_acknowledged(key);
        let required = acknowledged || must != Must::Acknowledged;
        if found.contains(key) || ledger.rejected.contains(key) || !required {
            continue;
        }
        if gaps.iter().any(|gap| covers(gap, key)) {
            verdict.records_declared_lost += 1;
        } else if acknowledged {
            verdict.blame("acknowledged event missing", || name(key, Some(*unique)));
        } else {
            verdict.blame("accepted event missing", || name(key, Some(*unique)));
        }
    }
}

/// What is said to be lost is not in the table as well. `stored` is sorted.
fn compare_gaps(verdict: &mut Verdict, stored: &[Event], gaps: &[Gap]) {
    for gap in gaps {
        verdict.numbers_declared_lost += gap.3 + 1 - gap.2;
        let first = stored.partition_point(|event| event.key < (gap.0, gap.1, gap.2));
        if let Some(event) = stored.get(first).filter(|event| covers(gap, &event.key)) {
            verdict.blame("gap over a stored event", || name(&event.key, event.unique));
        }
    }
}

fn covers(gap: &Gap, key: &Key) -> bool {
    (gap.0, gap.1) == (key.0, key.1) && (gap.2..=gap.3).contains(&key.2)
}

fn compare_heartbeats(verdict: &mut Verdict, ledger: &Ledger, stored: Vec<Key>, must: Must) {
    let mut found = HashSet::new();
    for key in stored {
        if !ledger.heartbeats.contains_key(&key) {
            verdict.blame("heartbeat never offered", || name(&key, None));
        }
        if !found.insert(key) {
            verdict.blame("heartbeat stored twice", || name(&key, None));
        }
    }
    if must == (Must::Drained { failed_over: true }) {
        return;
    }
    for (key, acknowledged) in &ledger.heartbeats {
        if *acknowledged && !found.contains(key) {
            verdict.blame("acknowledged heartbeat missing", || name(key, None));
        }
    }
}

fn name(key: &Key, unique: Option<u64>) -> String {
    let unique = unique
        .map(|unique| format!(" (unique {unique})"))
        .unwrap_or_default();
    format!("host {} stream {} number {}{unique}", key.0, key.1, key.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Item;
    use infratrack_shared::wire::batch::Class;

    fn ledger(host: HostId, stream: StreamId, offered: u64, acknowledged: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for seq in 1..=offered {
            ledger.add(&Item::RecordOffered {
                host,
                stream,
                class: Class::Critical,
                seq,
                unique: 1000 + seq,
            });
        }
        ledger.add(&Item::RecordsAcknowledged {
            host,
            stream,
            class: Class::Critical,
            to: acknowledged,
        });
        ledger
    }

    fn found(
        ledger: &Ledger,
        stored: &[(Key, i64, u64)],
        gaps: &[Gap],
    ) -> Vec<(&'static str, usize)> {
        let mut verdict = Verdict::default();
        let stored = stored.iter().map(|&(key, id, unique)| Event {
            key,
            id,
            unique: Some(unique),
        });
        compare_events(
            &mut verdict,
            ledger,
            stored.collect(),
            gaps,
            Must::Acknowledged,
        );
        let counts = verdict.violations.iter();
        counts
            .map(|(rule, offenders)| (*rule, offenders.count))
            .collect()
    }

    #[test]
    fn each_broken_rule_about_events_is_named() {
        let (host, stream) = (HostId::random(), StreamId::random());
        let ledger = ledger(host, stream, 3, 2);
        let at = |seq| (host, stream, seq);
        let stored = [(at(1), 5, 1001), (at(2), 6, 1002)];
        assert_eq!(found(&ledger, &stored, &[]), []);
        // Offered, not acknowledged: may be there.
        let more = [stored[0], stored[1], (at(3), 7, 1003)];
        assert_eq!(found(&ledger, &more, &[]), []);
        assert_eq!(
            found(&ledger, &stored[..1], &[]),
            [("acknowledged event missing", 1)]
        );
        assert_eq!(found(&ledger, &stored[..1], &[(host, stream, 2, 2)]), []);
        let twice = [stored[0], stored[1], (at(2), 9, 1002)];
        assert_eq!(found(&ledger, &twice, &[]), [("event stored twice", 1)]);
        let unasked = [stored[0], stored[1], (at(9), 9, 1009)];
        assert_eq!(found(&ledger, &unasked, &[]), [("event never offered", 1)]);
        let swapped = [(at(1), 6, 1001), (at(2), 5, 1002)];
        assert_eq!(
            found(&ledger, &swapped, &[]),
            [("event ids out of order", 1)]
        );
    }

    #[test]
    fn a_drained_spool_owes_what_it_took_and_may_owe_what_it_was_about_to_take() {
        let (host, stream) = (HostId::random(), StreamId::random());
        let mut ledger = ledger(host, stream, 3, 2);
        ledger.add(&Item::RecordsIntended {
            host,
            first: 1004,
            count: 1,
        });
        let event = |seq: u64| Event {
            key: (host, stream, seq),
            id: seq.cast_signed(),
            unique: Some(1000 + seq),
        };
        let judge = |seqs: &[u64], gaps: &[Gap]| {
            let mut verdict = Verdict::default();
            let stored = seqs.iter().map(|seq| event(*seq)).collect();
            let must = Must::Drained { failed_over: false };
            compare_events(&mut verdict, &ledger, stored, gaps, must);
            verdict.violations.into_keys().collect::<Vec<_>>()
        };
        assert!(judge(&[1, 2, 3], &[]).is_empty());
        assert!(judge(&[1, 2, 3, 4], &[]).is_empty());
        assert_eq!(judge(&[1, 2], &[]), ["accepted event missing"]);
        assert!(judge(&[1, 2], &[(host, stream, 3, 3)]).is_empty());
        let gap = (host, stream, 2, 3);
        assert_eq!(judge(&[1, 2, 3], &[gap]), ["gap over a stored event"]);
    }

    #[test]
    fn a_forked_host_is_known_by_its_unique_numbers() {
        let (host, stream) = (HostId::random(), StreamId::random());
        let mut ledger = ledger(host, stream, 2, 2);
        let other = StreamId::random();
        let stored = [((host, stream, 1), 5, 1001), ((host, other, 1), 6, 1002)];
        assert!(!found(&ledger, &stored, &[]).is_empty());
        ledger.add(&Item::Forked { host });
        assert_eq!(found(&ledger, &stored, &[]), []);
    }

    #[test]
    fn each_broken_rule_about_heartbeats_is_named() {
        let (host, stream) = (HostId::random(), StreamId::random());
        let mut ledger = Ledger::default();
        for n in 1..=3 {
            ledger.add(&Item::HeartbeatOffered { host, stream, n });
        }
        for n in 1..=2 {
            ledger.add(&Item::HeartbeatAcknowledged { host, stream, n });
        }
        let mut verdict = Verdict::default();
        let at = |n| (host, stream, n);
        let must = Must::Acknowledged;
        compare_heartbeats(&mut verdict, &ledger, vec![at(1), at(2), at(3)], must);
        assert!(verdict.is_clean());
        compare_heartbeats(&mut verdict, &ledger, vec![at(2), at(2), at(7)], must);
        let rules: Vec<_> = verdict.violations.keys().copied().collect();
        let expected = [
            "acknowledged heartbeat missing",
            "heartbeat never offered",
            "heartbeat stored twice",
        ];
        assert_eq!(rules, expected);
    }
}
