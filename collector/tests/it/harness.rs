//! A collector on free ports over a database of its own, and hosts that talk to it with the agent's code.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use infratrack_agent::enroll::{self, EnrollError};
use infratrack_agent::identity::Identity;
use infratrack_agent::tls;
use infratrack_agent::uplink::{Answer, Connection, Endpoint, UplinkError};
use infratrack_collector::agents::enroll::{TokenOptions, create_token};
use infratrack_collector::audit::Actor;
use infratrack_collector::config::Config;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use infratrack_collector::server::{self, Server};
use infratrack_shared::codec;
use infratrack_shared::ids::{BootId, HostId, InstanceId, StreamId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::{Batch, Body, Class, Part, Record};
use infratrack_shared::wire::heartbeat::Heartbeat;
use infratrack_shared::wire::problem::Problem;
use infratrack_shared::wire::{PROTOCOL, path};
use infratrack_testkit::clock::TestClock;
use infratrack_testkit::postgres::TestDatabase;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

/// Anything that is to happen happens within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running collector.
pub(crate) struct Collector {
    pub(crate) server: Server,
    pub(crate) clock: TestClock,
    /// Not the collector's own.
    pub(crate) pool: PgPool,
    pub(crate) admin_token: String,
    pub(crate) data_dir: Arc<TempDir>,
    pub(crate) database: Option<Arc<TestDatabase>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With changed settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let database = Arc::new(TestDatabase::create().await.unwrap());
        let data_dir = Arc::new(tempfile::tempdir().unwrap());
        let options = database.connect_options();
        let clock = TestClock::default();
        Self::start_over(options, Some(database), data_dir, clock, change).await
    }

    /// Over a migrated database that is the test's own to break.
    pub(crate) async fn over(options: PgConnectOptions) -> Self {
        let data_dir = Arc::new(tempfile::tempdir().unwrap());
        Self::start_over(options, None, data_dir, TestClock::default(), |_| {}).await
    }

    /// Another collector over the same database, CA and clock.
    pub(crate) async fn second(&self) -> Self {
        let database = self.database.clone();
        let options = database.as_ref().unwrap().connect_options();
        let (data_dir, clock) = (Arc::clone(&self.data_dir), self.clock.clone());
        Self::start_over(options, database, data_dir, clock, |_| {}).await
    }

    /// Stopped, `meanwhile` carried out, and started again.
    pub(crate) async fn restarted(self, meanwhile: impl AsyncFnOnce(&PgPool)) -> Self {
        let (database, data_dir) = (self.database.clone(), Arc::clone(&self.data_dir));
        self.server.stop().await;
        meanwhile(&self.pool).await;
        let options = database.as_ref().unwrap().connect_options();
        Self::start_over(options, database, data_dir, self.clock, |_| {}).await
    }

    async fn start_over(
        options: PgConnectOptions,
        database: Option<Arc<TestDatabase>>,
        data_dir: Arc<TempDir>,
        clock: TestClock,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config {
            data_dir: data_dir.path().to_owned(),
            ..Config::default()
        };
        for listen in [
            &mut config.agents.listen,
            &mut config.enroll.listen,
            &mut config.operators.listen,
        ] {
            *listen = ([127, 0, 0, 1], 0).into();
        }
        config.ingest.host_batches_per_second = 1000;
        config.ingest.host_batches_burst = 1000;
        change(&mut config);
        let pool = server::connect(options.clone(), &config).await.unwrap();
        let own = server::connect(options.clone(), &config).await.unwrap();
        let server = Server::start(config, clock.clock(), own).await.unwrap();
        // One that is renewed after a test has moved the clock is not valid yet for agents, whose time is real.
        eventually("the server's certificate to be looked at", || async {
            let metrics = server.app.metrics.encode(&server.app).unwrap();
            let run = "job=\"server_certificate\",outcome=\"ok\"";
            metrics.contains(run).then_some(())
        })
        .await;
        let mut connection = pool.acquire().await.unwrap();
        let admin_token = token::create(
            &mut connection,
            &NewToken::of_role("test", Role::Admin, "test"),
            clock.now(),
        )
        .await
        .unwrap()
        .1;
        drop(connection);
        Self {
            server,
            clock,
            pool,
            admin_token,
            data_dir,
            database,
        }
    }

    pub(crate) async fn token(&self, options: TokenOptions) -> EnrollToken {
        create_token(
            &self.pool,
            self.pin(),
            &options,
            &Actor::job("test"),
            self.clock.now(),
        )
        .await
        .unwrap()
    }

    /// What a token made at this moment pins.
    pub(crate) fn pin(&self) -> [u8; 32] {
        let ca = self.server.app.ca.load();
        ca.root_pin(self.clock.now()).unwrap()
    }

    /// A new host.
    pub(crate) async fn host(&self) -> Host {
        let token = self.token(TokenOptions::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        self.enroll(&identity, &token).await.unwrap();
        Host::of(identity, dir)
    }

    pub(crate) async fn enroll(
        &self,
        identity: &Identity,
        token: &EnrollToken,
    ) -> Result<HostId, EnrollError> {
        enroll_at(self.server.addresses.enroll, identity, token).await
    }

    /// A request to the operators' listener.
    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let stream = tokio::net::TcpStream::connect(self.server.addresses.operators)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        // A stream has no end to wait for.
        let content_type = head.headers.get("content-type");
        if content_type.is_some_and(|kind| kind == "text/event-stream") {
            return Response::from_parts(head, Bytes::new());
        }
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// A call of the API as the administrator; answers status and document.
    pub(crate) async fn api(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> (StatusCode, serde_json::Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.admin_token))
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = self.request(request).await;
        let document = serde_json::from_slice(response.body()).unwrap_or_default();
        (response.status(), document)
    }

    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let (status, document) = self.api(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {document}");
        document
    }

    /// How many rows a query counts.
    pub(crate) async fn count(&self, sql: &'static str, host: &Host) -> i64 {
        sqlx::query_scalar(sql)
            .bind(host.id.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until the leader has run the job: what the start begins is over.
    pub(crate) async fn job_has_run(&self, name: &str) {
        eventually("the job's first run", || async {
            let has_run = "select exists (select from jobs where name = $1)";
            let has_run = sqlx::query_scalar(has_run).bind(name).fetch_one(&self.pool);
            let has_run: bool = has_run.await.unwrap();
            has_run.then_some(())
        })
        .await;
    }
}

/// Enrolls a test's host.
pub(crate) async fn enroll_at(
    address: SocketAddr,
    identity: &Identity,
    token: &EnrollToken,
) -> Result<HostId, EnrollError> {
    let host = enroll::Host {
        hostname: "test-host".to_owned(),
        boot_id: BootId::random(),
        machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
    };
    enroll::enroll(identity, &address.to_string(), token, &host).await
}

/// A host as a collector sees it: certificate, stream, counters.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) identity: Identity,
    pub(crate) stream: StreamId,
    pub(crate) instance: InstanceId,
    pub(crate) boot_id: BootId,
    next_heartbeat: AtomicU64,
    pub(crate) dir: TempDir,
}

impl Host {
    pub(crate) fn of(identity: Identity, dir: TempDir) -> Self {
        Self {
            id: identity.current().unwrap().host,
            identity,
            stream: StreamId::random(),
            instance: InstanceId::random(),
            boot_id: BootId::random(),
            next_heartbeat: AtomicU64::new(1),
            dir,
        }
    }

    pub(crate) fn endpoint(&self, collector: &Collector) -> Endpoint {
        self.endpoint_at(collector.server.addresses.agents)
    }

    /// The agents' listener of a collector, or of what stands before it.
    pub(crate) fn endpoint_at(&self, address: SocketAddr) -> Endpoint {
        let collectors = self.identity.collectors().unwrap();
        let pair = self.identity.current().unwrap();
        let tls = tls::mutual(&self.identity.roots().unwrap(), pair).unwrap();
        Endpoint {
            address: address.to_string(),
            name: tls::server_name(&collectors.trust_domain).unwrap(),
            tls: Arc::new(tls),
        }
    }

    pub(crate) async fn connect(&self, collector: &Collector) -> Connection {
        Connection::open(&self.endpoint(collector)).await.unwrap()
    }

    /// A batch with nothing in it.
    pub(crate) fn batch(&self, collector: &Collector) -> Batch {
        self.batch_at(collector.clock.clock().unix_millis())
    }

    pub(crate) fn batch_at(&self, sent_at: UnixMillis) -> Batch {
        Batch {
            protocol: PROTOCOL,
            stream: self.stream,
            instance: self.instance,
            boot_id: self.boot_id,
            sent_at,
            mono_ms: None,
            policy_version: 1,
            wait_ms: 0,
            commands_seen: Vec::new(),
            heartbeat: None,
            parts: Vec::new(),
            state: Vec::new(),
        }
    }

    pub(crate) fn heartbeat(&self, collector: &Collector) -> Heartbeat {
        Heartbeat {
            stream: self.stream,
            n: self.next_heartbeat.fetch_add(1, Ordering::Relaxed),
            at: collector.clock.clock().unix_millis(),
            mono_ms: 1000,
            cpu_ratio: Some(0.25),
            ..Heartbeat::default()
        }
    }

    /// Sends a batch over a connection of its own.
    pub(crate) async fn send(
        &self,
        collector: &Collector,
        batch: &Batch,
    ) -> Result<Ack, UplinkError> {
        let mut connection = Connection::open(&self.endpoint(collector)).await?;
        send(&mut connection, batch).await.map(|(ack, _)| ack)
    }

    /// Sends bytes as they are; answers status and problem.
    pub(crate) async fn post(
        &self,
        address: SocketAddr,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, Problem) {
        let endpoint = self.endpoint_at(address);
        let stream = tokio::net::TcpStream::connect(&endpoint.address)
            .await
            .unwrap();
        let connector = tokio_rustls::TlsConnector::from(endpoint.tls);
        let stream = connector.connect(endpoint.name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path::BATCH)
            .header("host", "c");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response: Response<Incoming> = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            codec::decode(&body, &codec::Limits::default()).unwrap_or_default(),
        )
    }
}

/// Sends a batch and reads its Ack.
pub(crate) async fn send(
    connection: &mut Connection,
    batch: &Batch,
) -> Result<(Ack, Answer), UplinkError> {
    let wait = Duration::from_millis(u64::from(batch.wait_ms));
    let mut answer = connection.stream(path::BATCH, batch, wait).await?;
    let frame = answer
        .next_frame()
        .await?
        .expect("an answer begins with a frame");
    Ok((frame.ack.expect("the first frame is the Ack"), answer))
}

/// A critical record.
pub(crate) fn record(seq: u64, kind: &str, body: rmpv::Value, at: UnixMillis) -> Record {
    Record {
        seq,
        at,
        mono_ms: seq,
        boot_id: None,
        kind: kind.to_owned(),
        body: Body::Event(body),
    }
}

/// A part with records of a kind nobody knows, with these numbers.
pub(crate) fn part(collector: &Collector, seqs: &[u64]) -> Part {
    part_at(collector.clock.clock().unix_millis(), seqs)
}

pub(crate) fn part_at(at: UnixMillis, seqs: &[u64]) -> Part {
    Part {
        class: Class::Critical,
        first_seq: seqs.first().copied().unwrap_or(1),
        lost: Vec::new(),
        records: seqs
            .iter()
            .map(|seq| record(*seq, "test", rmpv::Value::from(*seq), at))
            .collect(),
    }
}

/// The refusal that a send ended in.
pub(crate) fn refusal(result: Result<Ack, UplinkError>) -> (StatusCode, String) {
    match result {
        Err(UplinkError::Refused {
            status, problem, ..
        }) => (status, problem.code),
        other => panic!("must be refused: {other:?}"),
    }
}

/// Looks until `found` is some.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    look: impl Fn() -> F,
) -> T {
    eventually_within(DEADLINE, what, look).await
}

/// Likewise where more time than usual may pass before.
pub(crate) async fn eventually_within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    look: impl Fn() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: not within {limit:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
