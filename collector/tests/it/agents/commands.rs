//! Commands: pushed on the held answer, sent again until confirmed, ended by a record.

use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_agent::uplink::Answer;
use infratrack_shared::ids::CommandId;
use infratrack_shared::wire::answer::{Action, Command};
use infratrack_shared::wire::batch::{Body, Part};
use infratrack_shared::wire::event::{CommandOutcome, CommandResult, Event};

use crate::harness::{Collector, Host, part, send};

async fn queue(collector: &Collector, host: &Host) -> CommandId {
    let path = format!("/api/v1/hosts/{}/commands", host.id);
    let (status, created) = collector
        .api(Method::POST, &path, r#"{"action": "refresh_facts"}"#)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    created["id"].as_str().unwrap().parse().unwrap()
}

async fn next_command(answer: &mut Answer) -> Command {
    let read = async {
        loop {
            let frame = answer
                .next_frame()
                .await
                .unwrap()
                .expect("the answer is held");
            if let Some(command) = frame.command {
                return command;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .expect("a command within 5 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_pushed_by_any_collector_and_sent_again_until_it_is_confirmed() {
    let first = Collector::start().await;
    let second = first.second().await;
    let host = first.host().await;
    let mut batch = host.batch(&first);
    batch.wait_ms = 20_000;
    let mut connection = host.connect(&first).await;
    let (_, mut answer) = send(&mut connection, &batch).await.unwrap();
    let id = queue(&second, &host).await;
    let command = next_command(&mut answer).await;
    assert_eq!((command.id, command.action), (id, Action::RefreshFacts));
    // The agent died before it was durable: the next answer has it again.
    drop((answer, connection));
    let mut connection = host.connect(&first).await;
    let (_, mut answer) = send(&mut connection, &batch).await.unwrap();
    assert_eq!(next_command(&mut answer).await.id, id);
    drop((answer, connection));
    batch.commands_seen = vec![id];
    batch.wait_ms = 0;
    host.send(&first, &batch).await.unwrap();
    batch.commands_seen.clear();
    let mut connection = host.connect(&first).await;
    let (_, mut answer) = send(&mut connection, &batch).await.unwrap();
    assert_eq!(answer.next_frame().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_is_shown_as_that_and_another_host_cannot_end_it() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let id = queue(&collector, &host).await;
    let mut ends = Vec::new();
    for (sender, outcome) in [
        (&other, CommandOutcome::Done),
        (&host, CommandOutcome::Interrupted),
    ] {
        let event = Event::CommandResult(CommandResult {
            id,
            outcome,
            detail: None,
        });
        let mut records = part(&collector, &[1]).records;
        records[0].kind = event.kind().unwrap().to_owned();
        records[0].body = Body::Event(event.to_body().unwrap());
        let mut batch = sender.batch(&collector);
        batch.parts = vec![Part {
            records,
            ..part(&collector, &[1])
        }];
        sender.send(&collector, &batch).await.unwrap();
        let commands = collector
            .get(&format!("/api/v1/hosts/{}/commands", host.id))
            .await;
        ends.push(commands["items"][0]["outcome"].clone());
    }
    assert_eq!(ends, [serde_json::Value::Null, "interrupted".into()]);
}
