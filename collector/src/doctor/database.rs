//! The database: what it is, how it is set, whether it is at this release's migrations, and what its clock says.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::{Instant, timeout};

use super::Finding;
use crate::clock::Clock;
use crate::config::Config;
use crate::store::failure;
use crate::store::schema::{self, ServerFacts};

/// All of it is asked within this.
const LIMIT: Duration = Duration::from_secs(10);
const OLDEST: i32 = 150_000;
/// A round trip: every batch of agents waits for some.
const SLOW: Duration = Duration::from_millis(20);
/// Clocks apart: a warning, or a failure, for rows and certificates are judged by them.
const APART: (time::Duration, time::Duration) =
    (time::Duration::seconds(2), time::Duration::seconds(30));

pub(super) async fn examine(config: &Config, pool: &PgPool, clock: &Clock) -> Vec<Finding> {
    let looked = async {
        let mut connection = pool.acquire().await?;
        look(config, &mut connection, clock).await
    };
    let looked = timeout(LIMIT, looked).await;
    let looked = looked.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())));
    looked.unwrap_or_else(|error| vec![unreachable_database(&error)])
}

pub(super) fn unreachable_database(error: &sqlx::Error) -> Finding {
    let advice = "check that Postgres runs, and database.url_file or DATABASE_URL";
    Finding::fail("database", failure::words(error), advice)
}

async fn look(
    config: &Config,
    connection: &mut PgConnection,
    clock: &Clock,
) -> sqlx::Result<Vec<Finding>> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let asked = Instant::now();
        connection.ping().await?;
        best = best.min(asked.elapsed());
    }
    let before = clock.now();
    let facts = schema::find_server_facts(connection).await?;
    let ours = before + (clock.now() - before) / 2;
    let mut findings = vec![version(&facts), latency(best), settings(config, &facts)];
    findings.push(skew(facts.now - ours));
    findings.push(match schema::list_applied(connection).await {
        Ok(applied) => migrations(&applied),
        Err(error) => Finding::fail("migrations", failure::words(&error), MIGRATE),
    });
    Ok(findings)
}

fn version(facts: &ServerFacts) -> Finding {
    let said = format!(
        "Postgres {}.{}",
        facts.version / 10_000,
        facts.version % 10_000
    );
    if facts.version < OLDEST {
        return Finding::fail("database", said, "Postgres 15 or newer is needed");
    }
    if facts.is_standby {
        let advice = "connect to the primary";
        return Finding::fail("database", format!("{said}, a standby"), advice);
    }
    Finding::ok("database", said)
}

fn latency(best: Duration) -> Finding {
    let detail = format!("a round trip takes {:.1} ms", best.as_secs_f64() * 1000.0);
    if best > SLOW {
        let advice = "put collector and Postgres into one network; agents' batches wait for it";
        return Finding::warn("database latency", detail, advice);
    }
    Finding::ok("database latency", detail)
}

/// What is acknowledged must survive power loss, and every connection must be had.
fn settings(config: &Config, facts: &ServerFacts) -> Finding {
    const NAME: &str = "database settings";
    let off: Vec<_> = [
        ("fsync", &facts.fsync),
        ("full_page_writes", &facts.full_page_writes),
        ("synchronous_commit", &facts.synchronous_commit),
    ]
    .into_iter()
    .filter(|(_, value)| *value == "off")
    .map(|(name, _)| name)
    .collect();
    if !off.is_empty() {
        let detail = format!("{} off", off.join(", "));
        let advice = "turn on: power loss would cost what agents were told is stored";
        return Finding::fail(NAME, detail, advice);
    }
    let writers = u32::try_from(config.ingest.writers).unwrap_or(u32::MAX);
    // And one each for notifications, for who leads, and to try.
    let needed = config.database.max_connections + writers + 3;
    let max = u32::try_from(facts.max_connections).unwrap_or(0);
    let detail = format!("{max} connections, of which a collector takes up to {needed}");
    if max < needed {
        let advice = "raise max_connections of Postgres, or lower database.max_connections";
        return Finding::warn(NAME, detail, advice);
    }
    Finding::ok(NAME, detail)
}

fn skew(ahead: time::Duration) -> Finding {
    let way = if ahead.is_negative() {
        "behind"
    } else {
        "ahead"
    };
    let detail = format!(
        "the database's is {:.1} s {way}",
        ahead.abs().as_seconds_f64()
    );
    let advice = "synchronise both machines' clocks (chrony, systemd-timesyncd)";
    if ahead.abs() > APART.1 {
        Finding::fail("clock", detail, advice)
    } else if ahead.abs() > APART.0 {
        Finding::warn("clock", detail, advice)
    } else {
        Finding::ok("clock", detail)
    }
}

const MIGRATE: &str = "run infratrack-collector migrate";

fn migrations(applied: &[(i64, Vec<u8>)]) -> Finding {
    const NAME: &str = "migrations";
    let find = |version: i64| applied.iter().find(|(applied, _)| *applied == version);
    let ours = || schema::MIGRATIONS.iter();
    let changed = ours()
        .find(|ours| find(ours.version).is_some_and(|(_, checksum)| *checksum != *ours.checksum));
    if let Some(changed) = changed {
        let detail = format!("{} in the database is another one", changed.version);
        let advice = "the database was migrated by something else than a release; restore a backup";
        return Finding::fail(NAME, detail, advice);
    }
    let missing = ours().filter(|ours| find(ours.version).is_none()).count();
    if missing > 0 {
        return Finding::fail(NAME, format!("{missing} are not applied"), MIGRATE);
    }
    let future = applied
        .iter()
        .find(|(version, _)| ours().all(|ours| ours.version != *version));
    if let Some((version, _)) = future {
        let detail = format!("{version} is of a newer release");
        let advice = "upgrade this collector; a release works beside the next one, not longer";
        return Finding::warn(NAME, detail, advice);
    }
    Finding::ok(NAME, format!("all {} are applied", applied.len()))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn facts() -> ServerFacts {
        ServerFacts {
            version: 150_004,
            now: time::macros::datetime!(2026-11-21 12:00 UTC),
            is_standby: false,
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            max_connections: 100,
        }
    }

    #[test]
    fn a_server_that_is_old_or_a_standby_is_none_to_work_with() {
        assert_eq!(version(&facts()).status, Status::Ok);
        let old = ServerFacts {
            version: 140_020,
            ..facts()
        };
        assert_eq!(version(&old).status, Status::Fail);
        let standby = ServerFacts {
            is_standby: true,
            ..facts()
        };
        assert_eq!(version(&standby).status, Status::Fail);
    }

    #[test]
    fn settings_that_lose_what_was_acknowledged_fail_and_few_connections_warn() {
        let config = Config::default();
        assert_eq!(settings(&config, &facts()).status, Status::Ok);
        let lossy = ServerFacts {
            synchronous_commit: "off".to_owned(),
            ..facts()
        };
        assert_eq!(settings(&config, &lossy).status, Status::Fail);
        let few = ServerFacts {
            max_connections: 20,
            ..facts()
        };
        assert_eq!(settings(&config, &few).status, Status::Warn);
    }

    #[test]
    fn latency_and_skew_have_their_bounds() {
        assert_eq!(latency(Duration::from_millis(5)).status, Status::Ok);
        assert_eq!(latency(Duration::from_millis(50)).status, Status::Warn);
        let of = |seconds| skew(time::Duration::seconds(seconds)).status;
        assert_eq!(
            [1, -3, 31].map(of),
            [Status::Ok, Status::Warn, Status::Fail]
        );
    }

    #[test]
    fn migrations_must_be_all_of_this_release_and_no_others() {
        let mut applied: Vec<_> = schema::MIGRATIONS
            .iter()
            .map(|one| (one.version, one.checksum.to_vec()))
            .collect();
        assert_eq!(migrations(&applied).status, Status::Ok);
        applied.push((9999, vec![1]));
        assert_eq!(migrations(&applied).status, Status::Warn);
        applied.remove(1);
        assert_eq!(migrations(&applied).status, Status::Fail);
        applied[0].1 = vec![2];
        let changed = migrations(&applied);
        assert_eq!(changed.status, Status::Fail);
        assert!(changed.detail.contains("another one"), "{changed:?}");
    }
}
