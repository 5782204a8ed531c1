//! Two machines that report as one host: a copied disk, both running. Over the real listeners; the machines
//! keep their records by the rules of the agent's spool.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration as StdDuration;

use http::StatusCode;
use infratrack_agent::clock::Clock;
use infratrack_agent::identity::Identity;
use infratrack_agent::reporter::{Report, Reporter};
use infratrack_agent::spool::{NewRecord, Spool};
use infratrack_agent::uplink::UplinkError;
use infratrack_collector::jobs::{rollup, run};
use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{BootId, InstanceId, StreamId};
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::{
    Batch, Body, Class, Lost, LostReason, Part, Record, StatePart,
};
use serde_json::Value;
use time::Duration;

use crate::harness::{Collector, Host, eventually, record, refusal};

/// A machine: an identity it may share with others, a stream, and what is not acknowledged of it.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) host: Host,
    /// The last number acknowledged.
    acked: u64,
    queue: Vec<Record>,
    emitted: u64,
    /// Tags of records that were acknowledged to this machine itself.
    pub(crate) acknowledged: Vec<String>,
    /// Numbers (`uptime_s`) of live heartbeats that were.
    pub(crate) beats: Vec<u64>,
}

/// Numbers every heartbeat of a test apart.
static UPTIME: Mutex<u64> = Mutex::new(1);

impl Machine {
    pub(crate) async fn new(collector: &Collector) -> Self {
        Self {
            name: "a",
            host: collector.host().await,
            acked: 0,
            queue: Vec::new(),
            emitted: 0,
            acknowledged: Vec::new(),
            beats: Vec::new(),
        }
    }

    /// Another machine with a copy of this one's disk, started.
    pub(crate) fn copy(&self, name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("identity");
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(self.host.dir.path().join("identity")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        let mut host = Host::of(Identity::open(dir.path()).unwrap(), dir);
        host.stream = self.host.stream;
        Self {
            name,
            host,
            acked: self.acked,
            queue: self.queue.clone(),
            emitted: 0,
            acknowledged: Vec::new(),
            beats: Vec::new(),
        }
    }

    /// The process ends and starts again; the spool is as it was.
    pub(crate) fn restart(&mut self) {
        self.host.instance = InstanceId::random();
        self.host.boot_id = BootId::random();
    }

    /// Something happens on the machine.
    pub(crate) fn emit(&mut self, collector: &Collector) {
        self.emitted += 1;
        let tag = format!("{}-{}", self.name, self.emitted);
        let seq = self.acked + self.queue.len() as u64 + 1;
        let at = collector.clock.clock().unix_millis();
        self.queue.push(record(seq, "test", tag.into(), at));
    }

    fn batch(&self, collector: &Collector, live: bool) -> Batch {
        let mut batch = self.host.batch(collector);
        if !self.queue.is_empty() {
            batch.parts = vec![Part {
                class: Class::Critical,
                first_seq: self.acked + 1,
                lost: Vec::new(),
                records: self.queue.clone(),
            }];
        }
        if live {
            let mut uptime = UPTIME.lock().unwrap();
            *uptime += 1;
            let mut heartbeat = self.host.heartbeat(collector);
            heartbeat.uptime_s = Some(*uptime);
            batch.heartbeat = Some(heartbeat);
        }
        batch
    }

    /// Sends what there is, and does what is answered. `heard` is whether the answer arrives.
    pub(crate) async fn report(
        &mut self,
        collector: &Collector,
        live: bool,
        heard: bool,
    ) -> Result<Ack, UplinkError> {
        let batch = self.batch(collector, live);
        let answer = self.host.send(collector, &batch).await;
        if heard {
            self.answered(&batch, &answer);
        }
        answer
    }

    /// A second later: a heartbeat with one more record, which is acknowledged.
    pub(crate) async fn goes_on(&mut self, collector: &Collector) {
        collector.clock.advance(Duration::seconds(1));
        self.emit(collector);
        self.report(collector, true, true).await.unwrap();
        assert!(self.queue.is_empty(), "{}: {:?}", self.name, self.queue);
    }

    /// As [`Machine::goes_on`], but it is told to use another stream first.
    pub(crate) async fn is_told(&mut self, collector: &Collector, code: &str) {
        collector.clock.advance(Duration::seconds(1));
        self.emit(collector);
        let refused = refusal(self.report(collector, true, true).await);
        assert_eq!(refused, (StatusCode::CONFLICT, code.to_owned()));
        self.goes_on(collector).await;
    }

    fn answered(&mut self, batch: &Batch, answer: &Result<Ack, UplinkError>) {
        match answer {
            Ok(ack) => {
                assert!(ack.expected.is_empty(), "{}: {ack:?}", self.name);
                for cursor in &ack.cursors {
                    let rest = self.queue.split_off(
                        self.queue
                            .partition_point(|record| record.seq <= cursor.acked_seq),
                    );
                    let stored = std::mem::replace(&mut self.queue, rest);
                    self.acknowledged.extend(stored.iter().map(tag));
                    self.acked = cursor.acked_seq;
                }
                let live = batch.heartbeat.iter();
                self.beats.extend(live.filter_map(|live| live.uptime_s));
            }
            Err(UplinkError::Refused {
                status: StatusCode::CONFLICT,
                ..
            }) => {
                self.host.stream = StreamId::random();
                self.acked = 0;
                for (record, seq) in self.queue.iter_mut().zip(1..) {
                    record.seq = seq;
                }
            }
            Err(UplinkError::Refused {
                status: StatusCode::SERVICE_UNAVAILABLE | StatusCode::FORBIDDEN,
                ..
            }) => {}
            Err(other) => panic!("{}: {other:?}", self.name),
        }
    }

    pub(crate) fn has_unacknowledged(&self) -> bool {
        !self.queue.is_empty()
    }
}

fn tag(record: &Record) -> String {
    match &record.body {
        Body::Event(body) => body.as_str().unwrap().to_owned(),
        Body::Heartbeat(_) => panic!("machines emit events"),
    }
}

/// The tags stored under each host, in order.
pub(crate) async fn stored(collector: &Collector) -> BTreeMap<uuid::Uuid, Vec<String>> {
    let sql =
        "select host_id, body #>> '{}' from events where kind = 'test' order by host_id, event_id";
    let rows: Vec<(uuid::Uuid, String)> = sqlx::query_as(sql)
        .fetch_all(&collector.pool)
        .await
        .unwrap();
    let mut stored = BTreeMap::<_, Vec<_>>::new();
    for (host, tag) in rows {
        stored.entry(host).or_default().push(tag);
    }
    stored
}

pub(crate) async fn beats(collector: &Collector, host: uuid::Uuid) -> Vec<u64> {
    let sql = "select uptime_s from heartbeats where host_id = $1 order by uptime_s";
    let rows: Vec<i64> = sqlx::query_scalar(sql)
        .bind(host)
        .fetch_all(&collector.pool)
        .await
        .unwrap();
    rows.into_iter().map(i64::cast_unsigned).collect()
}

pub(crate) async fn conflicts(collector: &Collector, host: &Host) -> Vec<Value> {
    let page = collector
        .get(&format!("/api/v1/hosts/{}/conflicts", host.id))
        .await;
    page["items"].as_array().unwrap().clone()
}

pub(crate) fn hidden(conflict: &Value) -> uuid::Uuid {
    conflict["hidden_host_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// Both have reported, the first has come back, and the second knows it.
pub(crate) async fn set_apart(collector: &Collector) -> (Machine, Machine, Value) {
    let mut a = Machine::new(collector).await;
    a.goes_on(collector).await;
    let mut b = a.copy("b");
    b.goes_on(collector).await;
    a.goes_on(collector).await;
    b.is_told(collector, "clone_set_apart").await;
    let found = conflicts(collector, &a.host).await.remove(0);
    (a, b, found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_no_clone() {
    let collector = Collector::start().await;
    let mut machine = Machine::new(&collector).await;
    for _ in 0..4 {
        machine.goes_on(&collector).await;
        machine.goes_on(&collector).await;
        machine.restart();
    }
    assert_eq!(
        conflicts(&collector, &machine.host).await,
        Vec::<Value>::new()
    );
    assert_eq!(
        stored(&collector).await[&machine.host.id.0],
        machine.acknowledged
    );
    let host = collector
        .get(&format!("/api/v1/hosts/{}", machine.host.id))
        .await;
    assert_eq!(host["status"], "healthy", "{host}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_between_moves_to_a_hidden_host_and_both_go_on() {
    let collector = Collector::start().await;
    let mut a = Machine::new(&collector).await;
    a.goes_on(&collector).await;
    let mut b = a.copy("b");
    for _ in 0..3 {
        b.goes_on(&collector).await;
    }
    a.goes_on(&collector).await;
    b.is_told(&collector, "clone_set_apart").await;
    for _ in 0..2 {
        a.goes_on(&collector).await;
        b.goes_on(&collector).await;
    }
    let found = conflicts(&collector, &a.host).await;
    let [conflict] = found.as_slice() else {
        panic!("one conflict: {found:?}")
    };
    let stored = stored(&collector).await;
    assert_eq!(stored[&a.host.id.0], ["a-1", "a-2", "a-3", "a-4"]);
    let of_b: Vec<String> = (1..=7)
        .filter(|n| *n != 4)
        .map(|n| format!("b-{n}"))
        .collect();
    let mut under = stored[&hidden(conflict)].clone();
    // Told while it had the fourth: that one came in the new stream, before the fifth.
    under.retain(|tag| tag != "b-4");
    assert_eq!(under, of_b);
    assert_eq!(stored[&hidden(conflict)], b.acknowledged);
    assert_eq!(beats(&collector, a.host.id.0).await, a.beats);
    assert_eq!(beats(&collector, hidden(conflict)).await, b.beats);
    for (of, machine) in [("kept", &a), ("clone", &b)] {
        let says = |what: &str| {
            conflict[format!("{of}_{what}")]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(says("instance"), machine.host.instance.to_string());
        assert_eq!(says("boot_id"), machine.host.boot_id.to_string());
        assert_eq!(says("address"), "127.0.0.1");
        assert!(says("first_seen_at") < says("last_seen_at"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_an_event_and_a_reason_and_the_clone_is_in_no_list() {
    let collector = Collector::start().await;
    let (a, b, conflict) = set_apart(&collector).await;
    let events = collector
        .get(&format!("/api/v1/hosts/{}/events", a.host.id))
        .await;
    let events = events["items"].as_array().unwrap();
    let event = events.iter().find(|e| e["kind"] == "identity_conflict");
    let body = &event.unwrap()["body"];
    assert_eq!(body["conflict"], conflict["id"]);
    assert_eq!(body["instance"], a.host.instance.to_string());
    assert_eq!(body["other_instance"], b.host.instance.to_string());
    assert_eq!(body["other_boot_id"], b.host.boot_id.to_string());
    assert!(body["first_seen_at"].as_i64() < body["other_first_seen_at"].as_i64());
    let list = collector.get("/api/v1/hosts").await;
    assert_eq!(
        (&list["total"], list["items"].as_array().unwrap().len()),
        (&1.into(), 1)
    );
    let host = &list["items"][0];
    assert_eq!(
        (&host["id"], &host["status"]),
        (&a.host.id.to_string().into(), &"unhealthy".into())
    );
    // It stays so for as long as nobody decides.
    collector.clock.advance(Duration::days(2));
    let host = collector.get(&format!("/api/v1/hosts/{}", a.host.id)).await;
    let reasons = host["reasons"].as_array().unwrap();
    let words = "two machines report as this host (cloned disk?)";
    assert!(reasons.contains(&words.into()), "{host}");
    // What the clone reported is within reach.
    for (what, least) in [("events", 2), ("heartbeats", 2), ("facts", 0), ("gaps", 0)] {
        let path = format!("/api/v1/hosts/{}/{what}", hidden(&conflict));
        assert!(
            collector.get(&path).await["total"].as_i64() >= Some(least),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_of_a_clone_do_not_move_when_the_host_was_seen_last() {
    let collector = Collector::start().await;
    let (mut a, mut b, conflict) = set_apart(&collector).await;
    a.goes_on(&collector).await;
    let seen = |id: uuid::Uuid| {
        let collector = &collector;
        async move { collector.get(&format!("/api/v1/hosts/{id}")).await["last_seen_at"].clone() }
    };
    let before = seen(a.host.id.0).await;
    for _ in 0..3 {
        b.goes_on(&collector).await;
    }
    assert_eq!(seen(a.host.id.0).await, before);
    assert!(seen(hidden(&conflict)).await.as_str() > before.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_its_successor_was_stored_is_no_return() {
    let first = Collector::start().await;
    let second = first.second().await;
    let mut a = Machine::new(&first).await;
    a.goes_on(&first).await;
    let mut b = a.copy("b");
    // The first one's clock has gone on already.
    second.clock.advance(Duration::seconds(1));
    for (machine, collector) in [(&mut a, &first), (&mut b, &second)] {
        collector.clock.advance(Duration::seconds(1));
        machine.emit(collector);
    }
    // The host's row is held until both wait for it, B before A.
    let mut holder = first.pool.begin().await.unwrap();
    sqlx::query("select from host_liveness where host_id = $1 for update")
        .bind(a.host.id.0)
        .execute(&mut *holder)
        .await
        .unwrap();
    let waiting = |count: i64| {
        let pool = first.pool.clone();
        async move {
            let sql = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
            eventually("batches to wait", || async {
                let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
                (waiting == count).then_some(())
            })
            .await;
        }
    };
    let (taken_over, under_way, ()) = tokio::join!(
        b.report(&second, true, true),
        async {
            waiting(1).await;
            a.report(&first, true, true).await
        },
        async {
            waiting(2).await;
            holder.rollback().await.unwrap();
        }
    );
    taken_over.unwrap();
    let refused = refusal(under_way);
    assert_eq!(
        refused,
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned())
    );
    assert_eq!(conflicts(&first, &a.host).await, Vec::<Value>::new());
    assert_eq!(stored(&first).await[&a.host.id.0], ["a-1", "b-1"]);
    // Had it been a restart, that was all. It lives, and sends again: that is a return.
    a.goes_on(&first).await;
    let found = conflicts(&first, &a.host).await;
    assert_eq!(found.len(), 1);
    let stored = stored(&first).await;
    assert_eq!(stored[&a.host.id.0], ["a-1", "a-2", "a-3"]);
    assert_eq!(stored[&hidden(&found[0])], ["b-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn within_10_minutes_it_is_a_return_and_after_that_it_is_none() {
    for (away, clones) in [(Duration::seconds(598), 1), (Duration::seconds(601), 0)] {
        let collector = Collector::start().await;
        let mut a = Machine::new(&collector).await;
        a.goes_on(&collector).await;
        let mut b = a.copy("b");
        b.goes_on(&collector).await;
        collector.clock.advance(away - Duration::seconds(1));
        if clones == 0 {
            // Its numbers are taken, so it is not believed to know how far they are.
            a.is_told(&collector, "stream_forked").await;
        } else {
            a.goes_on(&collector).await;
        }
        assert_eq!(conflicts(&collector, &a.host).await.len(), clones, "{away}");
        let all: usize = stored(&collector).await.values().map(Vec::len).sum();
        assert_eq!(all, a.acknowledged.len() + b.acknowledged.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_that_were_made_of_both_are_made_anew() {
    let collector = Collector::start().await;
    // At ten past, so that all of it is in one hour.
    let past = i64::from(collector.clock.now().minute());
    collector.clock.advance(Duration::minutes((70 - past) % 60));
    let mut a = Machine::new(&collector).await;
    a.goes_on(&collector).await;
    let mut b = a.copy("b");
    b.goes_on(&collector).await;
    let summed = async |host: uuid::Uuid| -> Vec<(i64, i64)> {
        let app = std::sync::Arc::clone(&collector.server.app);
        // The leader may be at it just now.
        eventually("the heartbeats to be summed", || async {
            run::once(&app, "rollup", rollup::run).await.unwrap()
        })
        .await;
        let mut sums = Vec::new();
        for table in ["heartbeats_5m", "heartbeats_1h"] {
            let sql = format!(
                "select coalesce(sum(samples), 0)::int8, count(*) from {table} where host_id = $1"
            );
            let sum = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(host);
            sums.push(sum.fetch_one(&collector.pool).await.unwrap());
        }
        sums
    };
    // Whatever bucket the first two are in, it is sealed by now; A's next one is in another.
    collector.clock.advance(Duration::seconds(9 * 60 + 30));
    let both = summed(a.host.id.0).await;
    assert_eq!((both[0].0, both[1].0), (2, 2));
    a.goes_on(&collector).await;
    let found = conflicts(&collector, &a.host).await;
    for host in [a.host.id.0, hidden(&found[0])] {
        let own = summed(host).await;
        assert_eq!(own, [(1, 1), (1, 1)], "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_become_three_hosts() {
    let collector = Collector::start().await;
    let mut a = Machine::new(&collector).await;
    a.goes_on(&collector).await;
    let (mut b, mut c) = (a.copy("b"), a.copy("c"));
    b.goes_on(&collector).await;
    // It has B's numbers against it.
    c.is_told(&collector, "stream_forked").await;
    a.goes_on(&collector).await;
    b.is_told(&collector, "clone_set_apart").await;
    c.goes_on(&collector).await;
    for _ in 0..2 {
        a.goes_on(&collector).await;
        b.goes_on(&collector).await;
        c.goes_on(&collector).await;
    }
    let found = conflicts(&collector, &a.host).await;
    assert_eq!(found.len(), 2);
    let stored = stored(&collector).await;
    assert_eq!(stored[&a.host.id.0], a.acknowledged);
    for machine in [&b, &c] {
        let instance = machine.host.instance.to_string();
        let of = found
            .iter()
            .find(|found| found["clone_instance"] == instance);
        assert_eq!(stored[&hidden(of.unwrap())], machine.acknowledged);
        assert_eq!(beats(&collector, hidden(of.unwrap())).await, machine.beats);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_makes_no_difference_which_collector_each_of_them_talks_to() {
    let first = Collector::start().await;
    let second = first.second().await;
    let mut a = Machine::new(&first).await;
    a.goes_on(&first).await;
    let mut b = a.copy("b");
    second.clock.advance(Duration::seconds(2));
    b.goes_on(&second).await;
    first.clock.advance(Duration::seconds(3));
    a.goes_on(&first).await;
    b.is_told(&second, "clone_set_apart").await;
    a.goes_on(&second).await;
    b.goes_on(&first).await;
    let found = conflicts(&second, &a.host).await;
    assert_eq!(found.len(), 1);
    let stored = stored(&first).await;
    assert_eq!(stored[&a.host.id.0], a.acknowledged);
    assert_eq!(stored[&hidden(&found[0])], b.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_whose_numbers_are_all_taken_loses_nothing() {
    let collector = Collector::start().await;
    let mut a = Machine::new(&collector).await;
    a.goes_on(&collector).await;
    let mut b = a.copy("b");
    for _ in 0..5 {
        a.goes_on(&collector).await;
    }
    // Its second record is the host's, by its number.
    b.is_told(&collector, "stream_forked").await;
    a.goes_on(&collector).await;
    b.goes_on(&collector).await;
    let found = conflicts(&collector, &a.host).await;
    let stored = stored(&collector).await;
    assert_eq!(stored[&a.host.id.0], a.acknowledged);
    assert_eq!(stored[&hidden(&found[0])], b.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_restarts_before_it_was_told_sends_nothing_twice() {
    let collector = Collector::start().await;
    let mut a = Machine::new(&collector).await;
    a.goes_on(&collector).await;
    let mut b = a.copy("b");
    for _ in 0..3 {
        b.goes_on(&collector).await;
    }
    a.goes_on(&collector).await;
    b.restart();
    // The host's cursor is far below; to go back there would repeat what is with the hidden host.
    b.is_told(&collector, "stream_forked").await;
    a.goes_on(&collector).await;
    b.goes_on(&collector).await;
    assert_eq!(conflicts(&collector, &a.host).await.len(), 2);
    let mut stored = stored(&collector).await;
    assert_eq!(stored.remove(&a.host.id.0), Some(a.acknowledged));
    let mut of_b: Vec<_> = stored.into_values().flatten().collect();
    of_b.sort();
    assert_eq!(of_b, b.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clone_declared_lost_is_not_the_hosts_that_comes_back_late() {
    let collector = Collector::start().await;
    let mut a = Machine::new(&collector).await;
    a.goes_on(&collector).await;
    let b = a.copy("b");
    collector.clock.advance(Duration::seconds(1));
    let mut batch = b.host.batch(&collector);
    let lost = Lost {
        from: 2,
        to: 2,
        reason: LostReason::Quota,
    };
    batch.parts = vec![Part {
        class: Class::Critical,
        first_seq: 2,
        lost: vec![lost],
        records: Vec::new(),
    }];
    b.host.send(&collector, &batch).await.unwrap();
    collector.clock.advance(Duration::minutes(11));
    a.is_told(&collector, "stream_forked").await;
    assert_eq!(stored(&collector).await[&a.host.id.0], a.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_spool_sends_everything_again_in_a_new_stream() {
    let collector = Collector::start().await;
    let mut a = Machine::new(&collector).await;
    let clock = collector.clock.clock();
    let clock = Clock::from_fn(move || clock.unix_millis());
    let spool = Spool::in_memory(clock.now());
    a.host.stream = spool.stream();
    let b = a.copy("b");
    let mut agent = Reporter::new(spool, clock.clone(), b.host.instance, b.host.boot_id);
    a.report(&collector, true, true).await.unwrap();
    let append = async |agent: &Reporter, tag: &str| {
        let record = NewRecord {
            at: clock.now(),
            mono_ms: 0,
            boot_id: b.host.boot_id,
            kind: "test".to_owned(),
            body: Body::Event(tag.into()),
        };
        agent
            .spool
            .append(Class::Critical, vec![record])
            .await
            .unwrap();
    };
    let report = async |agent: &mut Reporter| {
        collector.clock.advance(Duration::seconds(1));
        let report = Report {
            heartbeat: Some(b.host.heartbeat(&collector)),
            wait: StdDuration::ZERO,
            ..Report::default()
        };
        let mut connection = b.host.connect(&collector).await;
        agent.report(&mut connection, report).await
    };
    for tag in ["b-1", "b-2"] {
        append(&agent, tag).await;
        report(&mut agent).await.unwrap();
    }
    a.goes_on(&collector).await;
    for tag in ["b-3", "b-4"] {
        append(&agent, tag).await;
    }
    let stream = agent.spool.stream();
    report(&mut agent).await.unwrap_err();
    assert_ne!(agent.spool.stream(), stream);
    report(&mut agent).await.unwrap();
    assert_eq!(agent.spool.usage().critical_records, 0);
    let found = conflicts(&collector, &a.host).await;
    let stored = stored(&collector).await;
    assert_eq!(stored[&hidden(&found[0])], ["b-1", "b-2", "b-3", "b-4"]);
    assert_eq!(stored[&a.host.id.0], a.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_a_clone_said_become_its_own_and_the_hosts_are_put_back() {
    let collector = Collector::start().await;
    let a = Machine::new(&collector).await;
    let b = a.copy("b");
    let state = |key: &str, version, hostname: &str| {
        let body = rmpv::Value::Map(vec![("hostname".into(), hostname.into())]);
        StatePart {
            key: format!("facts.{key}"),
            version,
            base_hash: None,
            new_hash: Digest::of(hostname.as_bytes()),
            part: 0,
            parts: 1,
            body,
        }
    };
    let say = async |machine: &Machine, state: Vec<StatePart>| {
        collector.clock.advance(Duration::seconds(1));
        let mut batch = machine.batch(&collector, true);
        batch.heartbeat.as_mut().unwrap().facts_hash = Some(Digest::of(b"all"));
        batch.state = state;
        machine.host.send(&collector, &batch).await.unwrap()
    };
    let both = vec![state("identity", 1, "original"), state("os", 1, "same")];
    say(&a, both.clone()).await;
    let of_the_clone = ["copy", "same", "own"];
    let keys = ["identity", "os", "cloud"];
    let said = keys
        .iter()
        .zip(of_the_clone)
        .map(|(key, name)| state(key, 5, name));
    say(&b, said.collect()).await;
    let ack = say(&a, Vec::new()).await;
    assert_eq!(
        ack.want_whole[0].key, "facts",
        "it is asked for all of them"
    );
    let found = conflicts(&collector, &a.host).await;
    let facts = |id: uuid::Uuid| {
        let collector = &collector;
        async move {
            let facts = collector.get(&format!("/api/v1/hosts/{id}/facts")).await;
            let facts = facts["items"].as_array().unwrap().clone();
            let name = |fact: &Value| fact["body"]["hostname"].as_str().unwrap().to_owned();
            facts.iter().map(name).collect::<Vec<_>>()
        }
    };
    assert_eq!(facts(a.host.id.0).await, ["original", "same"]);
    assert_eq!(facts(hidden(&found[0])).await, ["own", "copy", "same"]);
    let host = collector.get(&format!("/api/v1/hosts/{}", a.host.id)).await;
    assert_eq!(host["name"], "original");
    // The host's own versions go on below the clone's.
    say(
        &a,
        vec![state("identity", 2, "renamed"), state("os", 1, "same")],
    )
    .await;
    assert_eq!(facts(a.host.id.0).await, ["renamed", "same"]);
    let changes = "select count(*) from fact_changes where host_id = $1";
    // Both first ones, and the renaming; nothing of the clone's, and none for what only came back.
    assert_eq!(collector.count(changes, &a.host).await, 3);
}
