//! Two thousand connections that send a byte a second: agents don't feel them, and they are cut.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use infratrack_testkit::fleet::{Fleet, FleetConfig, Stats};
use infratrack_testkit::nemesis::World;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const DRIBBLERS: usize = 2000;
/// As many addresses, so that no limit per address keeps them out.
const ADDRESSES: usize = 250;
/// Header and handshake may take 10 s.
const CUT: Duration = Duration::from_secs(35);
const LOAD: Duration = Duration::from_secs(20);
/// Below this a percentile says more of the scheduler than of the collector, in milliseconds.
const FLOOR_MS: f64 = 50.0;

/// What they send, a byte a second: a record header and the start of a `ClientHello` to the TLS listeners, a
/// head or a body to the plain one.
const HELLO: &[u8] = b"\x16\x03\x01\x01\xfc\x01\x00\x01\xf8\x03\x03 and so on and so on and so on";
const HEAD: &[u8] =
    b"GET /health HTTP/1.1\r\nhost: a\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BODY: &[u8] =
    b"POST /login HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 4000\r\n\r\n";

async fn connect(index: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let last = u8::try_from(index % ADDRESSES).unwrap_or(0);
    let from = IpAddr::V4(Ipv4Addr::new(127, 9, 0, last + 1));
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Sends a byte a second until it is cut; answers after how long that was.
async fn dribble(index: usize, to: SocketAddr, at_once: &[u8], bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let Ok(mut stream) = connect(index, to).await else {
        return started.elapsed();
    };
    stream.write_all(at_once).await.ok();
    let (mut read, mut write) = stream.split();
    let writing = async {
        for byte in bytes.iter().cycle() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = writing => {}
        _ = read.read_to_end(&mut answer) => {}
    }
    started.elapsed()
}

async fn load(config: FleetConfig) -> Stats {
    let fleet = Fleet::start(config).await.expect("a fleet");
    tokio::time::sleep(LOAD).await;
    fleet.stop().await.expect("stopped").stats
}

/// How many are running, in the middle of many looks: they come, are cut and come again nearly in step.
async fn usual(running: &AtomicU64) -> u64 {
    let mut seen = Vec::new();
    let end = Instant::now() + LOAD;
    while Instant::now() < end {
        seen.push(running.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    seen.sort_unstable();
    seen[seen.len() / 2]
}

#[expect(clippy::print_stderr, reason = "what was measured")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and both cores; make soak"]
async fn two_thousand_dribblers_disturb_no_agent_and_are_cut() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let world = World::start(0, 1).await.unwrap();
    let config = FleetConfig {
        count: 100,
        ..world.fleet_config().unwrap()
    };
    let calm = load(config.clone()).await;
    let (longest_ms, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut dribblers = JoinSet::new();
    let targets = [
        (config.agents, &b""[..], HELLO),
        (config.enroll, &b""[..], HELLO),
        (world.operators(), &b""[..], HEAD),
        (world.operators(), BODY, &b"a"[..]),
    ];
    for index in 0..DRIBBLERS {
        let (to, at_once, bytes) = targets[index % targets.len()];
        let (longest_ms, running) = (Arc::clone(&longest_ms), Arc::clone(&running));
        dribblers.spawn(async move {
            loop {
                running.fetch_add(1, Ordering::Relaxed);
                let lasted = dribble(index, to, at_once, bytes).await;
                running.fetch_sub(1, Ordering::Relaxed);
                let lasted = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                longest_ms.fetch_max(lasted, Ordering::Relaxed);
                // Refused at once or cut after a while: it comes again.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    let (loaded, usual) = tokio::join!(load(config), usual(&running));
    tokio::time::sleep(CUT.saturating_sub(LOAD)).await;
    dribblers.shutdown().await;
    let longest = Duration::from_millis(longest_ms.load(Ordering::Relaxed));
    world.stop().await;
    eprintln!("calm: {calm}\nwith {usual} dribblers: {loaded}\nlongest connection {longest:?}");
    assert!(
        usual >= DRIBBLERS as u64 / 10 * 9,
        "only {usual} were there"
    );
    assert!(!longest.is_zero() && longest <= CUT, "{longest:?}");
    assert!(loaded.errors.is_empty(), "{loaded}");
    assert_eq!(loaded.heartbeats_offered, loaded.heartbeats_acknowledged);
    // Connecting is part of it: who can't connect has no slow requests.
    let (had, has) = (calm.requests as f64, loaded.requests as f64);
    assert!(has >= had * 0.9, "{has} requests, calm {had}");
    let most = (calm.p99_ms * 2.0).max(FLOOR_MS);
    assert!(
        loaded.p99_ms <= most,
        "p99 {} ms, calm {} ms",
        loaded.p99_ms,
        calm.p99_ms
    );
}
