//! Delivery: exactly once in the tables, in order, or a gap that says why.

use http::StatusCode;
use infratrack_shared::ids::StreamId;
use infratrack_shared::wire::batch::{Body, Class, Lost, LostReason, Part, Record};
use infratrack_shared::wire::heartbeat::Heartbeat;
use time::Duration;

use crate::harness::{Collector, Host, part, record, refusal};

const EVENTS: &str = "select count(*) from events where host_id = $1 and seq is not null";
const HEARTBEATS: &str = "select count(*) from heartbeats where host_id = $1";

async fn seqs(collector: &Collector, host: &Host) -> Vec<i64> {
    let sql = "select seq from events where host_id = $1 and seq is not null order by event_id";
    sqlx::query_scalar(sql)
        .bind(host.id.0)
        .fetch_all(&collector.pool)
        .await
        .unwrap()
}

async fn gaps(collector: &Collector, host: &Host) -> Vec<(i64, i64, String)> {
    let sql = "select from_seq, to_seq, reason from gaps where host_id = $1 order by from_seq";
    sqlx::query_as(sql)
        .bind(host.id.0)
        .fetch_all(&collector.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_twice_is_stored_once() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    batch.parts = vec![part(&collector, &[1, 2, 3])];
    for _ in 0..2 {
        let ack = host.send(&collector, &batch).await.unwrap();
        assert_eq!(ack.cursors[0].acked_seq, 3);
    }
    assert_eq!(seqs(&collector, &host).await, [1, 2, 3]);
    assert_eq!(collector.count(HEARTBEATS, &host).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_kept_whole_and_an_unknown_field_is_ignored() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let body = rmpv::Value::Map(vec![
        ("answer".into(), 42.into()),
        ("list".into(), vec![1.into(), rmpv::Value::Nil].into()),
    ]);
    let at = collector.clock.clock().unix_millis();
    let mut batch = host.batch(&collector);
    batch.parts = vec![Part {
        records: vec![record(1, "from_the_future", body, at)],
        ..part(&collector, &[1])
    }];
    let mut value = infratrack_shared::codec::to_value(&batch).unwrap();
    if let rmpv::Value::Map(fields) = &mut value {
        fields.push((
            "new_field".into(),
            rmpv::Value::Map(vec![("a".into(), 1.into())]),
        ));
    }
    let bytes = infratrack_shared::codec::encode(&value).unwrap();
    let (status, _) = host
        .post(collector.server.addresses.agents, &[], bytes)
        .await;
    assert_eq!(status, StatusCode::OK);
    let events = collector
        .get(&format!("/api/v1/hosts/{}/events", host.id))
        .await;
    let event = &events["items"][0];
    assert_eq!(event["kind"], "from_the_future");
    assert_eq!(
        event["body"],
        serde_json::json!({"answer": 42, "list": [1, null]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_is_set_aside_and_the_rest_of_every_batch_is_stored() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let at = collector.clock.clock().unix_millis();
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    let mut good = part(&collector, &[1, 2, 3, 4, 5]);
    // A kind that no Postgres text can hold, and a known kind with a wrong body.
    good.records[1] = record(2, "ki\0nd", "poison".into(), at);
    good.records[3] = record(4, "agent_stop", "not a map".into(), at);
    batch.parts = vec![good];
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.cursors[0].acked_seq, 5);
    let mut rejected: Vec<_> = ack
        .rejected
        .iter()
        .map(|r| (r.seq.unwrap(), r.code.as_str()))
        .collect();
    rejected.sort_unstable();
    assert_eq!(rejected, [(2, "not_storable"), (4, "body_invalid")]);
    assert_eq!(seqs(&collector, &host).await, [1, 3, 5]);
    let dead: Vec<(i64, String)> =
        sqlx::query_as("select seq, kind from dead_letters where host_id = $1 order by seq")
            .bind(host.id.0)
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    assert_eq!(
        dead,
        [(2, "ki\u{fffd}nd".to_owned()), (4, "agent_stop".to_owned())]
    );
    batch.parts = vec![part(&collector, &[6])];
    assert_eq!(
        host.send(&collector, &batch).await.unwrap().cursors[0].acked_seq,
        6
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_is_expected_back_and_a_covered_one_becomes_a_gap() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.parts = vec![part(&collector, &[1, 2])];
    host.send(&collector, &batch).await.unwrap();
    batch.parts = vec![part(&collector, &[5])];
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.expected[0].seq, 3);
    assert!(ack.cursors.is_empty());
    assert_eq!(collector.count(EVENTS, &host).await, 2);
    let lost = vec![Lost {
        from: 3,
        to: 4,
        reason: LostReason::Quota,
    }];
    batch.parts = vec![Part {
        first_seq: 3,
        lost,
        ..part(&collector, &[5])
    }];
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.cursors[0].acked_seq, 5);
    assert_eq!(gaps(&collector, &host).await, [(3, 4, "quota".to_owned())]);
    assert_eq!(seqs(&collector, &host).await, [1, 2, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_that_lost_commits_the_collector_asks_for_them_again() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.parts = vec![part(&collector, &[1, 2, 3, 4])];
    host.send(&collector, &batch).await.unwrap();
    // What a replica that missed the last commit has.
    for sql in [
        "delete from events where host_id = $1 and seq > 2",
        "update agent_streams set critical_seq = 2, critical_hash = null where host_id = $1",
    ] {
        sqlx::query(sql)
            .bind(host.id.0)
            .execute(&collector.pool)
            .await
            .unwrap();
    }
    batch.parts = vec![part(&collector, &[5])];
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.expected[0].seq, 3);
    let lost = vec![Lost {
        from: 3,
        to: 3,
        reason: LostReason::AckedNotKept,
    }];
    batch.parts = vec![Part {
        first_seq: 3,
        lost,
        ..part(&collector, &[4, 5])
    }];
    assert_eq!(
        host.send(&collector, &batch).await.unwrap().cursors[0].acked_seq,
        5
    );
    assert_eq!(seqs(&collector, &host).await, [1, 2, 4, 5]);
    assert_eq!(
        gaps(&collector, &host).await,
        [(3, 3, "acked_not_kept".to_owned())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_record_at_the_same_number_forks_the_stream_and_stores_nothing() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.parts = vec![part(&collector, &[1, 2])];
    host.send(&collector, &batch).await.unwrap();
    let at = collector.clock.clock().unix_millis();
    let other = record(2, "test", "another history".into(), at);
    batch.heartbeat = Some(host.heartbeat(&collector));
    batch.parts = vec![Part {
        first_seq: 2,
        records: vec![other, record(3, "test", 3.into(), at)],
        ..part(&collector, &[])
    }];
    let refused = refusal(host.send(&collector, &batch).await);
    assert_eq!(refused, (StatusCode::CONFLICT, "stream_forked".to_owned()));
    assert_eq!(seqs(&collector, &host).await, [1, 2]);
    assert_eq!(collector.count(HEARTBEATS, &host).await, 0);
    // In a stream of its own it all goes on.
    batch.stream = StreamId::random();
    batch.parts = vec![part(&collector, &[1])];
    host.send(&collector, &batch).await.unwrap();
    assert_eq!(seqs(&collector, &host).await, [1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_resent_after_an_unknown_outcome_counts_once() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let heartbeat = host.heartbeat(&collector);
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(heartbeat.clone());
    host.send(&collector, &batch).await.unwrap();
    batch.heartbeat = None;
    batch.parts = vec![beats(1, vec![heartbeat])];
    host.send(&collector, &batch).await.unwrap();
    assert_eq!(collector.count(HEARTBEATS, &host).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_from_the_future_are_clamped_and_still_count_once() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut heartbeat = host.heartbeat(&collector);
    heartbeat.at = heartbeat.at.plus_millis(10 * 365 * 86_400_000);
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(heartbeat);
    for _ in 0..2 {
        host.send(&collector, &batch).await.unwrap();
        collector.clock.advance(Duration::seconds(7));
        batch.sent_at = collector.clock.clock().unix_millis();
    }
    assert_eq!(collector.count(HEARTBEATS, &host).await, 1);
    let beats = collector
        .get(&format!("/api/v1/hosts/{}/heartbeats", host.id))
        .await;
    let at: String = beats["items"][0]["at"].as_str().unwrap().to_owned();
    let at =
        time::OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339).unwrap();
    assert!(at <= collector.clock.now() + Duration::minutes(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_comes_twice_before_either_is_stored_counts_once() {
    // Both wait for the same transaction, as they do where a database stands still.
    let linger = std::time::Duration::from_millis(500);
    let collector = Collector::start_with(|config| config.ingest.linger = linger).await;
    let host = collector.host().await;
    let mut live = host.batch(&collector);
    host.send(&collector, &live).await.unwrap();
    let mut heartbeat = host.heartbeat(&collector);
    heartbeat.at = heartbeat.at.plus_millis(-8 * 3_600_000);
    live.sent_at = heartbeat.at;
    // Two seconds later by a clock that is hours behind: it is filed under another time.
    let mut again = host.batch_at(heartbeat.at.plus_millis(2000));
    again.parts = vec![beats(1, vec![heartbeat.clone()])];
    live.heartbeat = Some(heartbeat);
    let (first, second) = tokio::join!(host.send(&collector, &live), host.send(&collector, &again));
    first.unwrap();
    second.unwrap();
    assert_eq!(collector.count(HEARTBEATS, &host).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_older_than_raw_retention_are_added_to_the_sums() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut old = host.heartbeat(&collector);
    old.at = old.at.plus_millis(-10 * 86_400_000);
    let mut batch = host.batch(&collector);
    batch.parts = vec![beats(1, vec![old.clone(), Heartbeat { n: 2, ..old }])];
    for _ in 0..2 {
        host.send(&collector, &batch).await.unwrap();
    }
    assert_eq!(collector.count(HEARTBEATS, &host).await, 0);
    for table in [
        "select coalesce(sum(samples), 0)::int8 from heartbeats_5m where host_id = $1",
        "select coalesce(sum(cpu_samples), 0)::int8 from heartbeats_1h where host_id = $1",
    ] {
        assert_eq!(collector.count(table, &host).await, 2);
    }
}

fn beats(first_seq: u64, heartbeats: Vec<Heartbeat>) -> Part {
    let records = heartbeats
        .into_iter()
        .zip(first_seq..)
        .map(|(heartbeat, seq)| Record {
            seq,
            at: heartbeat.at,
            mono_ms: heartbeat.mono_ms,
            boot_id: None,
            kind: Heartbeat::KIND.to_owned(),
            body: Body::Heartbeat(Box::new(heartbeat)),
        });
    Part {
        class: Class::Beat,
        first_seq,
        lost: Vec::new(),
        records: records.collect(),
    }
}
