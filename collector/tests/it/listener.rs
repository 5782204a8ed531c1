//! The one accept loop: what strangers may hold, whom PROXY headers are believed from, how it goes away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use infratrack_agent::tls;
use infratrack_collector::agents::enroll::TokenOptions;
use infratrack_collector::agents::tls::{FleetTls, server_only};
use infratrack_collector::ca::Ca;
use infratrack_collector::http::body::{self, MinRate};
use infratrack_collector::http::drain::{self, Drainer};
use infratrack_collector::http::{Handler, Limits, Listener, Peer, Stats, serve};
use infratrack_shared::ids::BootId;
use infratrack_shared::wire::answer::Frame;
use infratrack_shared::wire::enroll::EnrollRequest;
use infratrack_shared::wire::{PROTOCOL, path};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Collector, eventually, send};

/// Answers with what went wrong with the body, or nothing.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type Body = Full<Bytes>;

    async fn handle(&self, _peer: Arc<Peer>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let rate = MinRate {
            bytes_per_s: 1024,
            after: Duration::from_millis(300),
        };
        let text = match body::read(request.into_body(), 4096, rate).await {
            Ok(body) => format!("read {}", body.len()),
            Err(error) => error.to_string(),
        };
        Response::new(Full::new(Bytes::from(text)))
    }
}

struct Listening {
    address: SocketAddr,
    stats: Arc<Stats>,
    drainer: Drainer,
    root_pin: [u8; 32],
    _dir: tempfile::TempDir,
}

async fn listen(limits: Limits, with_tls: bool) -> Listening {
    let dir = tempfile::tempdir().unwrap();
    let now = infratrack_collector::clock::Clock::system().now();
    let ca = Ca::open_or_create(dir.path(), "example.org", now).unwrap();
    let certificate = FleetTls::of(&ca, now).unwrap();
    let stats = Arc::new(Stats::default());
    let listener = Listener {
        name: "test",
        tls: with_tls.then(|| Arc::new(server_only(certificate).unwrap())),
        proxy_from: Vec::new(),
        limits,
        stats: Arc::clone(&stats),
    };
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (drainer, drain) = drain::channel();
    tokio::spawn(serve(socket, listener, Echo, drain));
    Listening {
        address,
        stats,
        drainer,
        root_pin: ca.root_pin(now).unwrap(),
        _dir: dir,
    }
}

fn short() -> Limits {
    let moment = Duration::from_millis(300);
    Limits {
        handshake: moment,
        first_head: moment,
        idle: moment * 3,
        ..Limits::default()
    }
}

/// What the peer sends until it hangs up, which has to be soon.
async fn until_hung_up(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut read))
        .await
        .expect("the connection is cut")
        .ok();
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_a_head_and_an_idle_connection_that_take_too_long_are_cut() {
    let tls = listen(short(), true).await;
    let mut stream = TcpStream::connect(tls.address).await.unwrap();
    stream.write_all(&[0x16, 0x03]).await.unwrap();
    assert_eq!(until_hung_up(&mut stream).await, "");
    assert_eq!(tls.stats.failed_handshakes.load(Ordering::Relaxed), 1);
    let plain = listen(short(), false).await;
    let mut stream = TcpStream::connect(plain.address).await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(until_hung_up(&mut stream).await, "");
    let mut stream = TcpStream::connect(plain.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(until_hung_up(&mut stream).await.ends_with("read 0"));
    eventually("every connection to be gone", || async {
        (plain.stats.open.load(Ordering::Relaxed) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stand_still_keep_nobody_from_theirs() {
    let limits = Limits {
        handshakes: 1,
        // However slow this machine is, they are still there at the end.
        handshake: Duration::from_secs(300),
        ..Limits::default()
    };
    let listening = listen(limits, true).await;
    let mut silent = Vec::new();
    // Before the first word, within it, and after it.
    let client = Arc::new(tls::pinned(listening.root_pin).unwrap().0);
    let name = tls::server_name("example.org").unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(Arc::clone(&client), name.clone())
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    for sent in [&[][..], &hello[..20], &hello] {
        let mut stream = TcpStream::connect(listening.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        silent.push(stream);
    }
    eventually("all of them", || async {
        (listening.stats.open.load(Ordering::Relaxed) == 3).then_some(())
    })
    .await;
    let stream = TcpStream::connect(listening.address).await.unwrap();
    let connecting = tokio_rustls::TlsConnector::from(client).connect(name, stream);
    // Held: a connection that is dropped is soon no longer counted.
    let _connected = tokio::time::timeout(Duration::from_secs(60), connecting)
        .await
        .expect("its turn comes before the others' time is over")
        .unwrap();
    assert_eq!(listening.stats.open.load(Ordering::Relaxed), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_dribbles_is_given_up_and_one_that_is_too_long_is_refused() {
    let listening = listen(Limits::default(), false).await;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\na")
        .await
        .unwrap();
    assert!(
        until_hung_up(&mut stream)
            .await
            .contains("more slowly than 1024 bytes/s")
    );
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n1\r\na\r\n0\r\n\r\n", "a".repeat(0x1000));
    stream
        .write_all(format!("{head}{chunk}").as_bytes())
        .await
        .unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.contains("over the limit of 4096 bytes"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_body_that_dribbles_is_answered_with_408() {
    let collector = Collector::start().await;
    let mut stream = TcpStream::connect(collector.server.addresses.operators)
        .await
        .unwrap();
    let head = "POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\
                content-type: application/x-www-form-urlencoded\r\n\r\na";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Long after the 10 s that it has.
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer))
        .await
        .expect("the connection is cut")
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("body_too_slow"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_holds_only_its_share_of_handshakes_and_all_only_theirs_of_connections() {
    let limits = Limits {
        pending_per_address: 3,
        connections: 5,
        ..Limits::default()
    };
    let listening = listen(limits, true).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(TcpStream::connect(listening.address).await.unwrap());
    }
    let stats = &listening.stats;
    eventually("the refusals", || async {
        let pending = stats.refused_pending.load(Ordering::Relaxed);
        let full = stats.refused_full.load(Ordering::Relaxed);
        (pending + full == 7).then_some(())
    })
    .await;
    assert!(stats.refused_pending.load(Ordering::Relaxed) > 0);
    drop(held);
    eventually("the share to be free again", || async {
        (stats.open.load(Ordering::Relaxed) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_idle_connections_at_once_and_refuses_new_ones() {
    let listening = listen(Limits::default(), false).await;
    let mut idle = TcpStream::connect(listening.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    listening.drainer.begin();
    until_hung_up(&mut idle).await;
    assert!(listening.drainer.finish(Duration::from_secs(5)).await);
    assert!(TcpStream::connect(listening.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_collector_says_goodbye_on_held_answers_and_takes_the_last_batch() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.wait_ms = 60_000;
    let mut connection = host.connect(&collector).await;
    let (_, mut answer) = send(&mut connection, &batch).await.unwrap();
    let Collector { server, .. } = collector;
    let stopping = tokio::spawn(server.stop());
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(frame) = answer.next_frame().await.unwrap() {
        frames.push(frame);
    }
    assert_eq!(
        frames
            .last()
            .and_then(|frame| frame.goaway.as_ref())
            .map(|g| g.within_ms),
        Some(5000)
    );
    drop(connection);
    tokio::time::timeout(Duration::from_secs(10), stopping)
        .await
        .expect("stopped in time")
        .unwrap();
}

/// PROXY protocol version 2: TCP over IPv4 from `source`.
fn proxy_header(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([10, 0, 0, 1]);
    header.extend(40_000_u16.to_be_bytes());
    header.extend(8444_u16.to_be_bytes());
    header
}

/// Enrolls behind `header`; `None`: the connection was refused.
async fn enroll_behind(collector: &Collector, header: &[u8]) -> Option<StatusCode> {
    let cidr = Some("10.1.2.0/24".parse().unwrap());
    let token = collector
        .token(TokenOptions {
            cidr,
            ..TokenOptions::default()
        })
        .await;
    let dir = tempfile::tempdir().unwrap();
    let identity = infratrack_agent::identity::Identity::open(dir.path()).unwrap();
    let request = EnrollRequest {
        protocol: PROTOCOL,
        token: token.reveal(),
        csr: ByteBuf::from(identity.request().unwrap()),
        hostname: "behind".to_owned(),
        boot_id: BootId::random(),
        agent_version: "test".to_owned(),
        machine_id: None,
    };
    let mut stream = TcpStream::connect(collector.server.addresses.enroll)
        .await
        .unwrap();
    stream.write_all(header).await.unwrap();
    let (config, _) = tls::pinned(*token.pin()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(tls::server_name("infratrack").unwrap(), stream)
        .await
        .ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let body = infratrack_shared::codec::encode(&request).unwrap();
    let request = Request::post(path::ENROLL)
        .header("host", "c")
        .body(Full::new(Bytes::from(body)));
    let response = sender.send_request(request.unwrap()).await.ok()?;
    let status = response.status();
    response.into_body().collect().await.ok()?;
    Some(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_is_believed_from_a_configured_address_and_refused_from_others() {
    let behind = Collector::start_with(|config| {
        config.enroll.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert_eq!(
        enroll_behind(&behind, &proxy_header([10, 1, 2, 3])).await,
        Some(StatusCode::OK)
    );
    let outside = enroll_behind(&behind, &proxy_header([10, 9, 9, 9])).await;
    assert_eq!(outside, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(
        enroll_behind(&behind, b"").await,
        None,
        "a header is required from a proxy"
    );
    let open = Collector::start().await;
    assert_eq!(
        enroll_behind(&open, &proxy_header([10, 1, 2, 3])).await,
        None,
        "a forged header"
    );
    assert_eq!(
        enroll_behind(&open, b"").await,
        Some(StatusCode::UNAUTHORIZED)
    );
}
