//! Agent and collector, ended at every named point of their code under load: nothing is lost or doubled.
//!
//! The points need the feature `failpoints`, in the binaries too; `make soak` builds both.

use std::time::Duration;

use infratrack_agent::failpoint;
use infratrack_testkit::nemesis::{Campaign, Fault, World};
use serde_json::json;
use tokio::time::Instant;

/// The daemon has done what it was asked to within this.
const DEADLINE: Duration = Duration::from_secs(90);

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

/// 14 points of the agent and 3 of the collector: with 80 ends each has its turn more than once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes; make soak"]
async fn an_end_at_any_point_under_load_loses_and_doubles_nothing() {
    let campaign = Campaign {
        seed: number("INFRATRACK_SEED", 5),
        faults: usize::try_from(number("INFRATRACK_FAULTS", 80)).unwrap(),
        kinds: Fault::AT_POINTS.to_vec(),
        agents: 3,
        // So that the spools' files grow until they are rotated.
        event_bytes: 60_000,
    };
    let outcome = campaign.run().await.unwrap();
    assert!(outcome.verdict.is_whole(), "{}", outcome.verdict);
    let missed = outcome.points.iter().filter(|(_, times)| **times == 0);
    assert_eq!(missed.count(), 0, "{:?}", outcome.points);
}

/// How a command ended, as the collector has it.
async fn outcome(world: &World, command: &str) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let sql = "select outcome from commands where command_id = $1::uuid";
        let outcome: Option<String> = sqlx::query_scalar(sql)
            .bind(command)
            .fetch_one(world.pool())
            .await
            .expect("the tables can be read");
        if let Some(outcome) = outcome {
            return outcome;
        }
        assert!(Instant::now() < deadline, "command {command} has no end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_ended_at_any_step_of_a_renewal_says_so_and_stays_the_host_it_was() {
    let world = World::start(0, 1).await.unwrap();
    let mut daemon = world.daemon().await.unwrap();
    let path = format!("/api/v1/hosts/{}/commands", daemon.host);
    let api = world.operators_api().unwrap();
    let of_commands =
        |name: &&&str| name.starts_with("command::") || name.starts_with("identity::");
    let mut ends = 0;
    for point in failpoint::NAMES.iter().filter(of_commands) {
        daemon.start(Some(point)).unwrap();
        let command = api.create(&path, &json!({ "action": "renew" })).await;
        let command = command.unwrap()["id"].as_str().unwrap().to_owned();
        assert!(daemon.ended_at_point().await.unwrap(), "{point}");
        ends += 1;
        daemon.start(None).unwrap();
        let outcome = outcome(&world, &command).await;
        let is_done = ["command::recorded", "identity::promoted"].contains(point);
        let expected = if is_done { "done" } else { "interrupted" };
        assert_eq!(outcome, expected, "{point}");
        daemon.ended_in_order().await.unwrap();
    }
    assert_eq!(ends, 7);
    // Whatever pair it was left with works.
    daemon.start(None).unwrap();
    let command = api.create(&path, &json!({ "action": "renew" })).await;
    let command = command.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(outcome(&world, &command).await, "done");
    daemon.ended_in_order().await.unwrap();
    let sql = "select (select count(*) from hosts), (select count(*) from gaps),
            (select count(*) - count(distinct (stream, seq)) from events where seq is not null)";
    let counts: (i64, i64, i64) = sqlx::query_as(sql).fetch_one(world.pool()).await.unwrap();
    assert_eq!(counts, (1, 0, 0), "hosts, gaps, doubles");
    world.stop().await;
}
