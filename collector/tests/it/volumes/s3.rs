//! Backups come back straight from a bucket when collector and database are gone: servers of S3's protocol that check signatures,
//! behind TLS of either version, and with the faults that stores have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use infratrack_agent::backup::keys::Recovery;
use infratrack_agent::backup::restore::s3::{self, Location};
use infratrack_agent::backup::restore::{Bucket, Objects};
use infratrack_agent::clock::Clock;
use infratrack_agent::identity::Identity;
use infratrack_shared::ids::VolumeId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::backup::Outcome;
use infratrack_testkit::operators::Operators;
use infratrack_testkit::postgres::TestDatabase;
use infratrack_testkit::s3::S3;
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::agent::{backups, noise, restored, run_of, tree};
use crate::harness::enroll_at;
use crate::program::{Program, url};
use crate::secrets::aws;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(3);
const NOT_NOW: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 38\r\nconnection: close\r\n\r\n\
    <Error><Code>SlowDown</Code></Error>  ";

/// What is left of a host and a collector: its files, a bucket and who can recover.
struct Left {
    dir: TempDir,
    volume: VolumeId,
}

impl Left {
    /// Backs some files up to a collector that keeps objects where the environment says, and removes it with its database.
    async fn of(environment: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let database = TestDatabase::create().await.unwrap();
        let mut program = Program::new("");
        let path = program.file("url", &url(&database, "none"));
        let token = program.file("token", TOKEN);
        program.configure(&format!(
            "\n[s3]\nbucket = \"fleet\"\nprefix = \"prod\"\n[database]\nurl_file = {path:?}\n\
             [operators]\nadmin_token_file = {token:?}\n"
        ));
        program.environment.extend(environment);
        let _running = program.serve();
        let listening = program.listening().await;
        let made = program.run(&["token", "enroll"]).stdout;
        let token: EnrollToken = String::from_utf8(made).unwrap().trim().parse().unwrap();
        let state = tempfile::tempdir().unwrap();
        let identity = Identity::open(state.path()).unwrap();
        enroll_at(listening.enroll, &identity, &token)
            .await
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let www = www(dir.path());
        let operators = Operators {
            address: listening.operators,
            token: TOKEN.to_owned(),
        };
        let host = identity.current().unwrap().host;
        let source = json!({"files": {"paths": [www]}});
        let volume = json!({"host_id": host, "name": "www", "source": source, "rpo_s": 3600});
        let made = operators.create("/api/v1/volumes", &volume).await.unwrap();
        let backups = backups(dir.path(), "", (state.path(), listening.agents));
        let ended = run_of(&backups).await;
        assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
        fs::remove_dir_all(&backups.state_dir).unwrap();
        let volume = made["id"].as_str().unwrap().parse().unwrap();
        Self { dir, volume }
    }

    /// Restores from a bucket, and compares.
    fn comes_back_from(&self, from: s3::S3, name: &str) {
        assert_eq!(Bucket::volumes(&from).unwrap(), [self.volume]);
        let bucket = Bucket::of(Box::new(from), self.volume).unwrap();
        let to = self.dir.path().join(name);
        let recovery = Recovery::of_file(&self.dir.path().join("identity")).unwrap();
        restored(&bucket, recovery, &to);
        let www = self.dir.path().join("www");
        let back = to.join(www.strip_prefix("/").unwrap());
        assert_eq!(tree(&back), tree(&www));
    }
}

fn www(dir: &Path) -> PathBuf {
    let www = dir.join("www");
    fs::create_dir_all(www.join("a/b")).unwrap();
    fs::write(www.join("a/large"), noise(1, 5_000_000)).unwrap();
    for number in 0..50_u8 {
        fs::write(www.join(format!("a/b/{number}")), noise(number, 1000)).unwrap();
    }
    www
}

fn location(endpoint: &str) -> Location {
    Location {
        url: "s3://fleet/prod".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: "eu-central-1".to_owned(),
        is_path_style: true,
        is_insecure: false,
        authorities: None,
    }
}

/// A bucket for these credentials, `KEY=secret` and so on.
fn bucket_as(location: &Location, credentials: &str, clock: Clock) -> s3::S3 {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), credentials).unwrap();
    let credentials = s3::credentials_of_file(file.path()).unwrap();
    s3::S3::new(location, credentials, clock, PATIENCE).unwrap()
}

const GOOD: &str = "AWS_ACCESS_KEY_ID=testing\nAWS_SECRET_ACCESS_KEY=testing\n";

fn bucket(location: &Location) -> s3::S3 {
    bucket_as(location, GOOD, Clock::system())
}

/// Restoring blocks its thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Why a bucket says no.
fn refused(from: &s3::S3) -> String {
    let error = Bucket::volumes(from).unwrap_err();
    format!("{error:#}")
}

/// Passes connections on to a server, after TLS where it has some, unless it is busy.
struct Front {
    address: String,
    /// So many more are told to come back.
    busy: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Front {
    async fn start(to: std::net::SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let busy = Arc::<AtomicU64>::default();
        let left = Arc::clone(&busy);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, left) = (tls.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    match tls {
                        None => pass(stream, to, &left).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => pass(stream, to, &left).await,
                            Err(_) => Ok(()),
                        },
                    }
                });
            }
        });
        Self {
            address,
            busy,
            serving,
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to: std::net::SocketAddr,
    busy: &AtomicU64,
) -> std::io::Result<()> {
    let order = Ordering::SeqCst;
    if busy
        .try_update(order, order, |left| left.checked_sub(1))
        .is_ok()
    {
        let mut head = [0; 8192];
        if stream.read(&mut head).await? == 0 {
            return Ok(());
        }
        stream.write_all(NOT_NOW).await?;
        return stream.shutdown().await;
    }
    let mut server = TcpStream::connect(to).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// A server's side of TLS, and the file of who vouches for it.
fn tls(dir: &Path, version: &'static SupportedProtocolVersion) -> (TlsAcceptor, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let path = dir.join("ca.pem");
    fs::write(&path, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    (TlsAcceptor::from(Arc::new(config.unwrap())), path)
}

/// A server with a bucket.
async fn server() -> S3 {
    let server = S3::start().await.unwrap();
    server.bucket("fleet").unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_and_an_identity_are_enough_by_path_by_name_with_a_session_and_over_tls() {
    let server = server().await;
    let left = Left::of(server.environment()).await;
    let plain = location(&format!("http://{}", server.address()));
    let named = Location {
        is_path_style: false,
        ..location(&format!("http://localhost:{}", server.address().port()))
    };
    let session = format!("{GOOD}AWS_SESSION_TOKEN=a/b+c==\n");
    let mut fronts = Vec::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let dir = tempfile::tempdir().unwrap();
        let (acceptor, ca) = tls(dir.path(), version);
        let front = Front::start(server.address(), Some(acceptor)).await;
        let location = Location {
            authorities: Some(ca),
            ..location(&format!("https://{}", front.address))
        };
        fronts.push((front, location, dir));
    }
    blocking(move || {
        left.comes_back_from(bucket(&plain), "path");
        left.comes_back_from(bucket(&named), "name");
        let with_session = bucket_as(&plain, &session, Clock::system());
        left.comes_back_from(with_session, "session");
        for (number, (_front, location, _dir)) in fronts.iter().enumerate() {
            left.comes_back_from(bucket(location), &format!("tls{number}"));
            let stranger = Location {
                authorities: None,
                ..location.clone()
            };
            let error = refused(&bucket(&stranger));
            assert!(error.contains("the TLS handshake with"), "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moto_keeps_comes_back_too() {
    let aws = aws().await;
    aws.bucket("fleet").await.unwrap();
    let left = Left::of(aws.environment()).await;
    let location = location(&format!("http://{}", aws.address().unwrap()));
    blocking(move || {
        left.comes_back_from(bucket(&location), "back");
        let nowhere = Location {
            url: "s3://nowhere/prod".to_owned(),
            ..location.clone()
        };
        let error = refused(&bucket(&nowhere));
        let words = "cannot read s3://nowhere/prod/backups/: S3 answered 404 Not Found NoSuchBucket: there is no such bucket";
        assert_eq!(error, words);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_is_asked_again_for_so_long_and_a_wrong_clock_is_corrected() {
    let server = server().await;
    let key = "prod/backups/x/packs/aa/bb";
    server.object("fleet", key, "what").unwrap();
    let front = Front::start(server.address(), None).await;
    let location = location(&format!("http://{}", front.address));
    blocking(move || {
        let get = |from: &s3::S3| from.get("backups/x/packs/aa/bb", 100);
        front.busy.store(2, Ordering::SeqCst);
        assert_eq!(get(&bucket(&location)).unwrap(), b"what");
        assert_eq!(front.busy.load(Ordering::SeqCst), 0);
        front.busy.store(u64::MAX, Ordering::SeqCst);
        let error = anyhow::Error::from(get(&bucket(&location)).unwrap_err());
        let error = format!("{error:#}");
        assert!(
            error.contains("503 Service Unavailable SlowDown"),
            "{error}"
        );
        let asked = u64::MAX - front.busy.load(Ordering::SeqCst);
        assert!((2..100).contains(&asked), "{asked}");
        front.busy.store(0, Ordering::SeqCst);

        for off_ms in [-3_600_000, 3_600_000] {
            let clock = Clock::from_fn(move || UnixMillis(Clock::system().now().0 + off_ms));
            let bucket = bucket_as(&location, GOOD, clock);
            assert_eq!(get(&bucket).unwrap(), b"what", "{off_ms}");
        }
        for wrong in [
            GOOD.replace("KEY_ID=t", "KEY_ID=x"),
            GOOD.replace("KEY=t", "KEY=x"),
        ] {
            let error = get(&bucket_as(&location, &wrong, Clock::system())).unwrap_err();
            let error = format!("{:#}", anyhow::Error::from(error));
            assert!(error.ends_with("the credentials are wrong"), "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_page_by_page() {
    let server = server().await;
    for number in 0..1_100 {
        let key = format!("prod/backups/{number:04}/packs/ä b{number}");
        server.object("fleet", &key, "x").unwrap();
    }
    let location = location(&format!("http://{}", server.address()));
    blocking(move || {
        let bucket = bucket(&location);
        let listed = bucket.list("backups/").unwrap();
        assert_eq!(listed.len(), 1_100);
        assert_eq!(listed[7], ("backups/0007/packs/ä b7".to_owned(), 1));
        let folders = bucket.folders("backups/").unwrap();
        assert_eq!(folders.len(), 1_100);
        assert_eq!(folders[1_099], "1099");
        let one = bucket.get("backups/0007/packs/ä b7", 10).unwrap();
        assert_eq!(one, b"x");
    })
    .await;
}
