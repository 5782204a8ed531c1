//! The pipeline over a store in memory that keeps what the real one does: packs as they are, read by their tables.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use infratrack_shared::backup::{Entry, PackHash, Table};
use infratrack_shared::wire::backup::{Missing, Order, Progress};
use infratrack_shared::wire::problem::Problem;
use serde_bytes::ByteBuf;

use super::*;
use crate::backup::remote::Beats;
use crate::uplink::UplinkError;

const DEADLINE: Duration = Duration::from_secs(20);

/// A collector's side.
#[derive(Clone, Default)]
struct Store(Arc<Inside>);

#[derive(Default)]
struct Inside {
    packs: Mutex<HashMap<PackHash, Bytes>>,
    held: Mutex<HashMap<ChunkId, Place>>,
    puts: AtomicUsize,
    sending: AtomicUsize,
    most_sending: AtomicUsize,
    /// So many attempts fail.
    fails: AtomicUsize,
    refuses: AtomicBool,
    hangs: AtomicBool,
}

impl Store {
    fn failure(status: StatusCode) -> UplinkError {
        UplinkError::Refused {
            status,
            problem: Problem::default(),
            retry_after: None,
        }
    }

    fn entries(&self) -> Vec<(Table, Entry, Bytes)> {
        let packs = self.0.packs.lock().unwrap();
        let mut all = Vec::new();
        for pack in packs.values() {
            let table = Table::of_pack(pack).unwrap();
            for entry in &table.entries {
                let sealed = pack.slice(entry.bytes());
                all.push((table.clone(), entry.clone(), sealed));
            }
        }
        all
    }
}

impl Lane for Store {
    async fn missing(&mut self, ids: &[ChunkId]) -> Result<Missing, UplinkError> {
        let known = self.0.held.lock().unwrap();
        let mut held = Vec::new();
        for id in ids {
            match known.get(id) {
                Some((salt, counter)) => {
                    held.push(1);
                    held.extend_from_slice(salt.as_bytes());
                    held.extend_from_slice(&counter.to_be_bytes());
                }
                None => held.extend_from_slice(&[0; 19]),
            }
        }
        let held = ByteBuf::from(held);
        Ok(Missing { held })
    }

    async fn put_pack(
        &mut self,
        hash: PackHash,
        pack: Bytes,
        pace: &Pace,
    ) -> Result<(), UplinkError> {
        let inside = &self.0;
        inside.puts.fetch_add(1, Ordering::Relaxed);
        if inside.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let sending = inside.sending.fetch_add(1, Ordering::Relaxed) + 1;
        inside.most_sending.fetch_max(sending, Ordering::Relaxed);
        let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
        let length = pack.len();
        let (received, ()) = tokio::join!(
            async {
                let mut received = Vec::with_capacity(length);
                while let Some(piece) = pieces.recv().await {
                    received.extend_from_slice(&piece);
                }
                received
            },
            pace.feed(pack, sender)
        );
        inside.sending.fetch_sub(1, Ordering::Relaxed);
        if inside.refuses.load(Ordering::Relaxed) {
            return Err(Self::failure(StatusCode::FORBIDDEN));
        }
        let fails = &inside.fails;
        let is_failing = |left: usize| left.checked_sub(1);
        if fails
            .try_update(Ordering::Relaxed, Ordering::Relaxed, is_failing)
            .is_ok()
        {
            return Err(Self::failure(StatusCode::SERVICE_UNAVAILABLE));
        }
        assert_eq!(PackHash::of(&received), hash);
        let received = Bytes::from(received);
        let mut held = inside.held.lock().unwrap();
        for entry in Table::of_pack(&received).unwrap().entries {
            held.insert(entry.id, (entry.sealed.salt, entry.sealed.counter));
        }
        inside.packs.lock().unwrap().insert(hash, received);
        Ok(())
    }
}

impl Beats for Store {
    async fn beat(&mut self, _: Progress) -> Result<Order, UplinkError> {
        Ok(Order::GoOn)
    }
}

struct Run {
    settings: Settings,
    control: Arc<Control>,
    meter: Arc<Meter>,
    pipeline: Pipeline,
}

fn key() -> VolumeKey {
    VolumeKey::new([3; 32])
}

fn run_with(store: &Store, change: impl FnOnce(&mut Settings)) -> Run {
    let mut settings = Settings::new(VolumeId::default(), key(), false, None);
    settings.pack_bytes = 1 << 20;
    change(&mut settings);
    let control = Pipeline::control(settings.patience);
    let meter = Arc::<Meter>::default();
    let pipeline = Pipeline::start(
        settings.clone(),
        Arc::clone(&control),
        Arc::clone(&meter),
        store.clone(),
    );
    Run {
        settings,
        control,
        meter,
        pipeline: pipeline.unwrap(),
    }
}

fn run(store: &Store) -> Run {
    run_with(store, |_| {})
}

/// Chunks that do not compress.
fn noise(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Fails the test where something takes for ever.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || done.send(work()).ok());
    let result = result.recv_timeout(DEADLINE).expect("it ends in time");
    thread.join().unwrap();
    result
}

#[test]
fn what_is_stored_comes_out_again_each_chunk_once_and_by_kind() {
    let store = Store::default();
    let Run {
        settings,
        mut pipeline,
        meter,
        ..
    } = run(&store);
    let mut ids = Vec::new();
    for number in 0..60 {
        let plain = noise(number % 50, 100_000);
        ids.push(pipeline.store(PackKind::Content, &plain).unwrap());
    }
    let tree = pipeline.store(PackKind::Trees, b"a tree").unwrap();
    let stored = in_time(move || pipeline.finish()).unwrap();
    let entries = store.entries();
    assert_eq!((entries.len(), stored.places.len()), (51, 51));
    assert_eq!(stored.refs.len(), 51);
    for (table, entry, sealed) in &entries {
        let is_tree = entry.id == tree;
        assert_eq!(table.kind == PackKind::Trees, is_tree);
        let plain = entry.open(&settings.key, settings.volume, sealed).unwrap();
        assert_eq!(settings.key.chunk_id(&plain), entry.id);
        let place = (entry.sealed.salt, entry.sealed.counter);
        assert_eq!(stored.places[&entry.id], place);
        assert!(stored.refs.contains(&place.0, place.1));
    }
    let known: HashSet<_> = entries.iter().map(|(_, entry, _)| entry.id).collect();
    assert!(ids.iter().all(|id| known.contains(id)));
    assert_eq!(meter.new_bytes.load(Ordering::Relaxed), 50 * 100_000 + 6);
    let packs = store.0.packs.lock().unwrap();
    assert_eq!(meter.packs.load(Ordering::Relaxed), packs.len() as u64);
    assert!(packs.values().all(|pack| pack.len() <= 1 << 20));
    assert!(store.0.most_sending.load(Ordering::Relaxed) <= PACKS_IN_FLIGHT);
}

#[test]
fn what_is_held_is_not_sent_and_what_is_kept_is_needed() {
    let store = Store::default();
    let first = run(&store);
    let mut pipeline = first.pipeline;
    for number in 0..10 {
        pipeline
            .store(PackKind::Content, &noise(number, 5_000))
            .unwrap();
    }
    let before = in_time(move || pipeline.finish()).unwrap();
    let Run {
        mut pipeline,
        meter,
        ..
    } = run(&store);
    for number in 0..5 {
        pipeline
            .store(PackKind::Content, &noise(number, 5_000))
            .unwrap();
    }
    let kept = Salt::new([9; 16]);
    pipeline.keep((kept, 7));
    let after = in_time(move || pipeline.finish()).unwrap();
    assert_eq!(meter.packs.load(Ordering::Relaxed), 0);
    assert_eq!(meter.new_bytes.load(Ordering::Relaxed), 0);
    for (id, place) in &after.places {
        assert_eq!(before.places[id], *place);
    }
    assert_eq!((after.places.len(), after.refs.len()), (5, 6));
    assert!(after.refs.contains(&kept, 7));
}

#[test]
fn a_store_that_is_away_is_asked_again_and_one_that_stays_away_ends_the_run() {
    let store = Store::default();
    store.0.fails.store(2, Ordering::Relaxed);
    let mut pipeline = run(&store).pipeline;
    pipeline.store(PackKind::Content, b"content").unwrap();
    in_time(move || pipeline.finish()).unwrap();
    assert_eq!(store.0.puts.load(Ordering::Relaxed), 3);
    store.0.fails.store(1_000, Ordering::Relaxed);
    let mut pipeline = run_with(&store, |settings| settings.patience = Duration::ZERO).pipeline;
    pipeline.store(PackKind::Content, b"other").unwrap();
    let failure = in_time(move || pipeline.finish()).unwrap_err();
    assert_eq!(failure.reason, reason::STORE_AWAY);
}

#[test]
fn a_refused_pack_ends_all_and_its_caller_is_not_left_waiting() {
    let store = Store::default();
    store.0.refuses.store(true, Ordering::Relaxed);
    let mut pipeline = run(&store).pipeline;
    let failure = in_time(move || {
        let stopped = (0..).find_map(|number| {
            let plain = noise(number, 1 << 20);
            pipeline.store(PackKind::Content, &plain).err()
        });
        assert_eq!(stopped, Some(Stopped));
        pipeline.finish().unwrap_err()
    });
    assert_eq!(failure.reason, reason::REFUSED);
}

#[test]
fn what_is_in_memory_is_bounded_while_nothing_gets_through() {
    let store = Store::default();
    store.0.hangs.store(true, Ordering::Relaxed);
    let Run {
        mut pipeline,
        control,
        ..
    } = run(&store);
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let caller = thread::spawn(move || {
        for number in 0.. {
            let plain = noise(number, 1 << 19);
            if pipeline.store(PackKind::Content, &plain).is_err() {
                break;
            }
            counted.fetch_add(plain.len(), Ordering::Relaxed);
        }
        pipeline.finish().unwrap_err()
    });
    let until = Instant::now() + DEADLINE;
    while store.0.puts.load(Ordering::Relaxed) < PACKS_IN_FLIGHT
        || taken.load(Ordering::Relaxed) < CHUNK_BYTES
    {
        assert!(Instant::now() < until, "it fills");
        thread::yield_now();
    }
    let cancelled = Failure::new(reason::CANCELLED, "by somebody");
    control.stop(cancelled.clone());
    let stopped = Instant::now();
    assert_eq!(in_time(move || caller.join().unwrap()), cancelled);
    assert!(stopped.elapsed() < Duration::from_secs(2));
    // Two on their way, one that is full, and two chunks' slack for each thread that packs.
    let slack = MOST_COMPRESSORS << 20;
    assert!(taken.load(Ordering::Relaxed) <= CHUNK_BYTES + (3 << 20) + slack);
}

#[test]
fn a_paused_run_takes_nothing_until_it_may_go_on() {
    let store = Store::default();
    let Run {
        mut pipeline,
        control,
        ..
    } = run(&store);
    control.pause(true);
    let (taken, was_taken) = std::sync::mpsc::channel();
    let caller = thread::spawn(move || {
        pipeline.store(PackKind::Content, b"content").unwrap();
        taken.send(()).unwrap();
        pipeline.finish().unwrap()
    });
    assert!(was_taken.recv_timeout(Duration::from_millis(200)).is_err());
    assert_eq!(store.0.puts.load(Ordering::Relaxed), 0);
    control.pause(false);
    was_taken.recv_timeout(DEADLINE).unwrap();
    assert_eq!(in_time(move || caller.join().unwrap()).places.len(), 1);
}

#[test]
fn a_run_that_is_given_up_leaves_no_thread() {
    let store = Store::default();
    store.0.hangs.store(true, Ordering::Relaxed);
    let Run {
        mut pipeline,
        control,
        ..
    } = run(&store);
    pipeline.store(PackKind::Content, b"content").unwrap();
    let threads = Arc::downgrade(&pipeline.shared);
    in_time(move || drop(pipeline));
    assert_eq!(threads.strong_count(), 0);
    assert_eq!(control.cause().unwrap().reason, reason::INTERNAL);
}
