//! The collector's side of the conversation over real TLS with certificates of both sides, which keeps what it is sent in memory and
//! reads it by the formats.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use infratrack_shared::backup::{ChunkId, Head, PackHash, Refs, Table, ids};
use infratrack_shared::codec::{Limits, decode, encode};
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::backup::{
    Beaten, BeginRun, Begun, EndRun, Ended, Missing, MissingAsked, Order, PackStored, Place,
    Places, PlacesAsked, Snapshot, SnapshotStored, Volume,
};
use infratrack_shared::wire::path;
use infratrack_shared::{compress, spiffe};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde::Serialize;
use serde_bytes::ByteBuf;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::identity::{Collectors, Identity};

const DOMAIN: &str = "example.org";

/// What it has.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) volume: Option<Volume>,
    pub(super) last_ok: Option<Snapshot>,
    pub(super) order: Order,
    pub(super) begun: Vec<BeginRun>,
    pub(super) beats: usize,
    pub(super) ended: Vec<EndRun>,
    pub(super) packs: HashMap<PackHash, Bytes>,
    pub(super) places: BTreeMap<ChunkId, Place>,
    pub(super) snapshots: Vec<Bytes>,
}

/// Ends when it is dropped.
pub(super) struct Server {
    pub(super) host: HostId,
    kept: Arc<Mutex<Kept>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// With a host that is enrolled below `state_dir`.
    pub(super) fn start(state_dir: &Path) -> Self {
        let host = HostId::random();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = ca.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(ca, key);
        let (ready, address) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        let kept = Arc::<Mutex<Kept>>::default();
        let acceptor = acceptor(&issuer, &root);
        let served = Arc::clone(&kept);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    _ = ended => {}
                    () = serve(listener, acceptor, served) => {}
                }
            });
        });
        enroll(state_dir, host, &issuer, &root, address.recv().unwrap());
        Self {
            host,
            kept,
            end: Some(end),
            thread: Some(thread),
        }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end = None;
        self.thread.take().unwrap().join().unwrap();
    }
}

fn acceptor(issuer: &Issuer<'_, KeyPair>, root: &CertificateDer<'static>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let name = spiffe::collector_server_name(DOMAIN);
    let params = CertificateParams::new(vec![name]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![certificate],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn enroll(
    state_dir: &Path,
    host: HostId,
    issuer: &Issuer<'_, KeyPair>,
    root: &CertificateDer<'static>,
    address: SocketAddr,
) {
    let identity = Identity::open(state_dir).unwrap();
    let request = CertificateSigningRequestDer::from(identity.request().unwrap());
    let request = CertificateSigningRequestParams::from_der(&request).unwrap();
    let mut params = CertificateParams::default();
    let uri = spiffe::host_uri(DOMAIN, host).try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = params.signed_by(&request.public_key, issuer).unwrap();
    let collectors = Collectors {
        trust_domain: DOMAIN.to_owned(),
        endpoints: vec![address.to_string()],
        enroll_endpoint: None,
    };
    let chain = [certificate.der().to_vec()];
    identity
        .store_enrollment(&chain, &[root.to_vec()], &collectors)
        .unwrap();
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, kept: Arc<Mutex<Kept>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request| answer(request, Arc::clone(&kept)));
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            served.await.ok();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Kept>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let body = if head.headers.contains_key("content-encoding") {
        Bytes::from(compress::decompress(&body, 1 << 20).unwrap())
    } else {
        body
    };
    let mut kept = kept.lock().unwrap();
    let range = head.headers.get("range").map(|range| {
        let text = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = text.split_once('-').unwrap();
        first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
    });
    let path = head.uri.path();
    Ok(if head.method == Method::PUT {
        kept.put(path, body)
    } else if head.method == Method::GET {
        kept.get(path, range)
    } else {
        kept.post(path, &body)
    })
}

fn document<T: Serialize>(status: StatusCode, body: &T) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(encode(body).unwrap())));
    *response.status_mut() = status;
    response
}

fn decoded<T: serde::de::DeserializeOwned>(body: &[u8]) -> T {
    decode(body, &Limits::bytes(1 << 20)).unwrap()
}

impl Kept {
    fn post(&mut self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let ok = StatusCode::OK;
        match path {
            path::BACKUP_RUNS => {
                let begin: BeginRun = decoded(body);
                let has_parent = begin.parent.is_some();
                self.begun.push(begin);
                let begun = Begun {
                    volume: self.volume.clone().unwrap(),
                    lease_ms: 60_000,
                    server_time: infratrack_shared::time::UnixMillis(0),
                    last_ok: self.last_ok,
                    has_parent,
                    lost: Refs::default(),
                };
                document(ok, &begun)
            }
            path::BACKUP_BEAT => {
                self.beats += 1;
                let order = self.order;
                document(ok, &Beaten { order })
            }
            path::BACKUP_MISSING => {
                let asked: MissingAsked = decoded(body);
                let mut held = Vec::new();
                for id in ids(&asked.ids).unwrap() {
                    match self.places.get(&id) {
                        Some(place) => {
                            held.push(1);
                            held.extend_from_slice(place.salt.as_bytes());
                            held.extend_from_slice(&place.counter.to_be_bytes());
                        }
                        None => held.extend_from_slice(&[0; 19]),
                    }
                }
                let held = ByteBuf::from(held);
                document(ok, &Missing { held })
            }
            path::BACKUP_PLACES => {
                let asked: PlacesAsked = decoded(body);
                let asked = ids(&asked.ids).unwrap();
                let found = asked.iter().filter_map(|id| self.places.get(id).copied());
                let places = found.collect();
                document(ok, &Places { places })
            }
            path::BACKUP_END => {
                self.ended.push(decoded(body));
                document(ok, &Ended {})
            }
            other => panic!("nobody asks {other}"),
        }
    }

    fn put(&mut self, path: &str, body: Bytes) -> Response<Full<Bytes>> {
        if let Some(hash) = path.strip_prefix(path::PACKS) {
            let hash: PackHash = hash.parse().unwrap();
            assert_eq!(PackHash::of(&body), hash);
            for entry in Table::of_pack(&body).unwrap().entries {
                let place = Place {
                    id: entry.id,
                    pack: hash,
                    offset: entry.range.start,
                    length: entry.range.end - entry.range.start,
                    salt: entry.sealed.salt,
                    algorithm: entry.sealed.algorithm,
                    counter: entry.sealed.counter,
                };
                self.places.insert(entry.id, place);
            }
            self.packs.insert(hash, body);
            return document(StatusCode::CREATED, &PackStored { hash });
        }
        assert!(path.starts_with(path::SNAPSHOTS), "{path}");
        let head = Head::of_snapshot(&body).unwrap();
        let is_there = |salt, counter| {
            let mut places = self.places.values();
            places.any(|place| (place.salt, place.counter) == (salt, counter))
        };
        let mut missing = Refs::default();
        for (salt, ranges) in head.refs.origins() {
            for counter in ranges.iter().flat_map(|(first, last)| *first..=*last) {
                if !is_there(*salt, counter) {
                    missing.insert(*salt, counter);
                }
            }
        }
        let status = if missing.is_empty() {
            self.snapshots.push(body);
            StatusCode::CREATED
        } else {
            StatusCode::CONFLICT
        };
        document(status, &SnapshotStored { missing })
    }

    fn get(&self, path: &str, range: Option<std::ops::Range<usize>>) -> Response<Full<Bytes>> {
        let (_, name) = path.rsplit_once('/').unwrap();
        let Some(range) = range else {
            let is_it = |snapshot: &&Bytes| {
                Head::of_snapshot(snapshot).unwrap().snapshot_id.to_string() == name
            };
            let found = self.snapshots.iter().find(is_it).unwrap();
            return Response::new(Full::new(found.clone()));
        };
        let pack = &self.packs[&name.parse().unwrap()];
        let mut response = Response::new(Full::new(pack.slice(range)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
    }
}
