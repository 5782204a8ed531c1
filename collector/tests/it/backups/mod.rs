//! Backups as hosts bring them: a small client that makes real packs and snapshots, over real TLS.

mod ends;
mod garbage;
mod refused;
mod stored;
mod verified;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use infratrack_collector::store::volumes::{self, NewVolume};
use infratrack_shared::backup::{
    Algorithm, ChunkId, Compressor, Content, Head, Manifest, PackBuilder, PackHash, PackKind, Refs,
    Salt, SnapshotKind, SnapshotState, VolumeKey,
};
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{BackupRunId, SnapshotId, VolumeId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::{
    BeginRun, Begun, EndRun, Ended, Outcome, Program, Progress, SnapshotStored, Source, Trigger,
    Volume, WrappedKey,
};
use infratrack_shared::wire::problem::Problem;
use infratrack_shared::wire::{PROTOCOL, path};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Collector, Host};

/// A refusal: status and stable word.
type Refused = (StatusCode, String);

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn document<R: DeserializeOwned>(&self) -> R {
        codec::decode(&self.body, &Limits::default()).unwrap()
    }

    fn refused(&self) -> Refused {
        let problem: Problem = self.document();
        assert_eq!(problem.status, self.status.as_u16());
        (self.status, problem.code)
    }
}

/// A host that makes backups, at one collector.
struct Client<'a> {
    host: &'a Host,
    address: SocketAddr,
}

impl<'a> Client<'a> {
    fn of(host: &'a Host, collector: &Collector) -> Self {
        let address = collector.server.addresses.agents;
        Self { host, address }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let endpoint = self.host.endpoint_at(self.address);
        let stream = TcpStream::connect(&endpoint.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(endpoint.tls);
        connector.connect(endpoint.name, stream).await.unwrap()
    }

    /// A request over a connection of its own.
    async fn send(&self, method: Method, path: &str, range: Option<&str>, body: Bytes) -> Answer {
        let stream = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", "c");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let request = request.body(Full::new(body)).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// A head as it stands and the beginning of a body; the connection stays.
    async fn raw(&self, text: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn raw_status(&self, text: &str) -> u16 {
        let mut stream = self.raw(text).await;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        String::from_utf8_lossy(&head[9..]).parse().unwrap()
    }

    /// A document for a document.
    async fn call<R: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<R, Refused> {
        let body = Bytes::from(codec::encode(body).unwrap());
        let answer = self.send(Method::POST, path, None, body).await;
        if answer.status == StatusCode::OK {
            Ok(answer.document())
        } else {
            Err(answer.refused())
        }
    }

    async fn put_pack(&self, run: BackupRunId, hash: PackHash, pack: &Bytes) -> Answer {
        let path = format!("{}{hash}?run={run}", path::PACKS);
        self.send(Method::PUT, &path, None, pack.clone()).await
    }

    async fn put_snapshot(&self, run: BackupRunId, id: SnapshotId, snapshot: &Bytes) -> Answer {
        let path = format!("{}{id}?run={run}", path::SNAPSHOTS);
        self.send(Method::PUT, &path, None, snapshot.clone()).await
    }

    async fn get(&self, path: &str, range: Option<&str>) -> Answer {
        self.send(Method::GET, path, range, Bytes::new()).await
    }
}

/// A pack by its name, and what is in it.
struct Pack {
    hash: PackHash,
    bytes: Bytes,
    salt: Salt,
    ids: Vec<ChunkId>,
}

/// A volume as its host sees it.
struct Protected {
    id: VolumeId,
    key: VolumeKey,
    next_salt: AtomicU32,
}

impl Protected {
    /// A volume of a host, of a command's output.
    async fn of(collector: &Collector, host: &Host, name: &str) -> Self {
        let now = collector.clock.now();
        Self::insert(&collector.pool, host, name, program(), now).await
    }

    async fn insert(
        pool: &PgPool,
        host: &Host,
        name: &str,
        source: Source,
        now: time::OffsetDateTime,
    ) -> Self {
        let id = VolumeId::random();
        let new = NewVolume {
            volume: Volume {
                id,
                name: name.to_owned(),
                source,
                is_database: true,
                schedule: Some("0 3 * * *".to_owned()),
                jitter_s: 60,
                closed_windows: vec![(480, 1080)],
                bandwidth: Some(1_000_000),
                pre_hook: None,
                post_hook: None,
                is_catalog_visible: false,
                is_paused: false,
                is_drill_due: false,
            },
            host: host.id,
            rpo_s: None,
            retention: serde_json::json!({}),
            owner: None,
            created_at: now,
            created_by: "test".to_owned(),
        };
        let mut connection = pool.acquire().await.unwrap();
        volumes::insert(&mut connection, &new).await.unwrap();
        let secret = *blake3::hash(id.0.as_bytes()).as_bytes();
        Self {
            id,
            key: VolumeKey::new(secret),
            next_salt: AtomicU32::new(1),
        }
    }

    fn wrapped(&self) -> WrappedKey {
        WrappedKey {
            id: self.key.id(),
            age: ByteBuf::from(b"age-encryption.org/v1\n-> X25519 sealed".to_vec()),
            recipients: vec!["age1one".to_owned(), "age1two".to_owned()],
        }
    }

    fn begin(&self, run: BackupRunId, started_at: UnixMillis) -> BeginRun {
        BeginRun {
            protocol: PROTOCOL,
            run,
            volume: self.id,
            trigger: Trigger::Schedule,
            started_at,
            agent: "0.1.0".to_owned(),
            key: Some(self.wrapped()),
            parent: None,
            has_lock: false,
        }
    }

    /// A run under way.
    async fn run(&self, client: &Client<'_>, at: UnixMillis) -> BackupRunId {
        let run = BackupRunId::random();
        let begin = self.begin(run, at);
        let _: Begun = client.call(path::BACKUP_RUNS, &begin).await.unwrap();
        run
    }

    fn pack(&self, chunks: &[&[u8]]) -> Pack {
        let number = self.next_salt.fetch_add(1, Ordering::Relaxed);
        let mut salt = [0; 16];
        salt[..4].copy_from_slice(&number.to_be_bytes());
        let salt = Salt::new(salt);
        let mut builder = PackBuilder::new(self.id, self.key.id(), PackKind::Content);
        let mut compressor = Compressor::new().unwrap();
        let ids = chunks.iter().map(|chunk| {
            let id = self.key.chunk_id(chunk);
            let origin = (salt, Algorithm::Aes256Gcm);
            let packed = compressor.pack(chunk);
            builder.push(&self.key, origin, id, packed).unwrap();
            id
        });
        let ids = ids.collect();
        let (hash, bytes) = builder.finish();
        Pack {
            hash,
            bytes: bytes.into(),
            salt,
            ids,
        }
    }

    /// A snapshot that needs all of these packs.
    fn head(&self, host: &Host, id: SnapshotId, at: UnixMillis, packs: &[&Pack]) -> Head {
        let mut refs = Refs::default();
        for pack in packs {
            for counter in 0..pack.ids.len() {
                refs.insert(pack.salt, counter.try_into().unwrap());
            }
        }
        Head {
            volume_id: self.id,
            snapshot_id: id,
            host_id: host.id,
            key_id: self.key.id(),
            salt: Salt::new(*SnapshotId::random().0.as_bytes()),
            algorithm: Algorithm::ChaCha20Poly1305,
            started_at_ms: at.0,
            ended_at_ms: at.0 + 1000,
            state: SnapshotState::Ok,
            kind: SnapshotKind::Command,
            files: 1,
            bytes: 1234,
            refs,
        }
    }

    fn sealed(&self, head: &Head) -> Bytes {
        let manifest = Manifest {
            root: Content::default(),
            hostname: "db1".to_owned(),
            source: vec!["pg_dump".to_owned()],
            agent: "0.1.0".to_owned(),
            errors: Vec::new(),
            errors_total: 0,
            counted: None,
        };
        head.seal(&manifest, &self.key).unwrap().into()
    }

    fn end(&self, run: BackupRunId, at: UnixMillis, outcome: Outcome) -> EndRun {
        EndRun {
            run,
            volume: self.id,
            trigger: Trigger::Schedule,
            started_at: at,
            ended_at: UnixMillis(at.0 + 1000),
            outcome,
            reason: None,
            detail: None,
            errors: Vec::new(),
            errors_total: 0,
            progress: Progress {
                files: 1,
                bytes: 1234,
                ..Progress::default()
            },
            new_bytes: 7,
            snapshot: None,
            cpu_ms: 5,
        }
    }

    /// A whole run with one pack. Answers its snapshot.
    async fn backed_up(&self, client: &Client<'_>, at: UnixMillis, pack: &Pack) -> SnapshotId {
        let (run, id) = (self.run(client, at).await, SnapshotId::random());
        let put = client.put_pack(run, pack.hash, &pack.bytes).await;
        assert!(put.status.is_success(), "{:?}", put.status);
        let snapshot = self.sealed(&self.head(client.host, id, at, &[pack]));
        let put = client.put_snapshot(run, id, &snapshot).await;
        assert_eq!(put.status, StatusCode::CREATED);
        let end = self.end(run, at, Outcome::Ok);
        let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
        id
    }
}

/// The source of most.
fn program() -> Source {
    Source {
        command: Some(Program {
            program: "pg_dump".to_owned(),
        }),
        ..Source::default()
    }
}

fn now(collector: &Collector) -> UnixMillis {
    collector.clock.clock().unix_millis()
}

/// State and reason of a run.
async fn state(collector: &Collector, run: BackupRunId) -> (String, Option<String>) {
    sqlx::query_as("select state, reason from backup_runs where run_id = $1")
        .bind(run.0)
        .fetch_one(&collector.pool)
        .await
        .unwrap()
}

fn ended(state: &str, reason: &str) -> (String, Option<String>) {
    let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
    (state.to_owned(), reason)
}

fn missing(answer: &Answer) -> Refs {
    answer.document::<SnapshotStored>().missing
}

fn not_found() -> Refused {
    (StatusCode::NOT_FOUND, "not_found".to_owned())
}

fn invalid() -> Refused {
    (StatusCode::BAD_REQUEST, "body_invalid".to_owned())
}
