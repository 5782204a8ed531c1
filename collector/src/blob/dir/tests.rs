use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::*;
use crate::blob::BlobStore;

fn key(name: &str) -> Key {
    Key::new(name.to_owned()).expect("a key")
}

fn store(dir: &tempfile::TempDir) -> BlobStore {
    BlobStore::Dir(DirStore::open(dir.path()).expect("opened"))
}

/// Everything in `.tmp`, at any depth.
fn temporaries(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let mut open = vec![dir.path().join(TMP)];
    let mut files = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

#[tokio::test]
async fn what_was_put_is_found_listed_and_deleted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(&dir);
    let object = key("packs/ab/1");
    assert!(store.find(&object).await.expect("asked").is_none());
    let put = store.put_bytes(&object, Bytes::from_static(b"one")).await;
    assert_eq!(put.expect("put"), Put::Stored);
    let found = store.find_bytes(&object, 3).await.expect("read");
    assert_eq!(found.as_deref(), Some(&b"one"[..]));
    let error = store.find_bytes(&object, 2).await.expect_err("too large");
    assert!(matches!(error, BlobError::TooLarge { size_bytes: 3, .. }));
    // A part of the way to an object is none.
    assert!(store.find(&key("packs/ab")).await.expect("asked").is_none());
    assert!(
        store
            .find(&key("packs/ab/1/2"))
            .await
            .expect("asked")
            .is_none()
    );
    assert!(store.delete(&object).await.expect("deleted"));
    assert!(!store.delete(&object).await.expect("nothing to do"));
    assert!(store.find(&object).await.expect("asked").is_none());
    let left = store.list(&key("packs"), None, 10).await.expect("listed");
    assert_eq!(left, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_put_one_key_at_once_one_stores_and_nobody_overwrites() {
    let dir = tempfile::tempdir().expect("tempdir");
    // Two processes over one directory.
    let stores = [Arc::new(store(&dir)), Arc::new(store(&dir))];
    let tries = (0..32_u8).map(|number| {
        let store = Arc::clone(&stores[usize::from(number % 2)]);
        tokio::spawn(async move {
            let body = Bytes::from(vec![number; 10_000]);
            (
                number,
                store.put_bytes(&key("a/b/c"), body).await.expect("put"),
            )
        })
    });
    let mut stored = Vec::new();
    for attempt in tries.collect::<Vec<_>>() {
        let (number, put) = attempt.await.expect("ended");
        if put == Put::Stored {
            stored.push(number);
        }
    }
    let [winner] = stored[..] else {
        panic!("one has to win: {stored:?}");
    };
    let found = stores[0]
        .find_bytes(&key("a/b/c"), 10_000)
        .await
        .expect("read");
    assert_eq!(found.expect("there"), vec![winner; 10_000]);
    assert!(temporaries(&dir).is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_or_lies_about_its_length_leaves_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(&dir);
    let chunks = |chunks: Vec<io::Result<Bytes>>| -> Body { Box::pin(stream::iter(chunks)) };
    let ok = || Ok(Bytes::from_static(b"1234"));
    let broken = vec![ok(), Err(io::Error::from(ErrorKind::ConnectionReset))];
    let error = store
        .put(&key("a/x"), 8, chunks(broken))
        .await
        .expect_err("broken");
    assert!(matches!(error, BlobError::Body { .. }), "{error}");
    for (announced, chunk_count) in [(8, 1), (4, 2)] {
        let body = chunks((0..chunk_count).map(|_| ok()).collect());
        let error = store
            .put(&key("a/x"), announced, body)
            .await
            .expect_err("a lie");
        assert!(matches!(error, BlobError::Length { .. }), "{error}");
    }
    assert!(store.find(&key("a/x")).await.expect("asked").is_none());
    // Given up in the middle, as when a client hangs up.
    let never = Box::pin(stream::iter([ok()]).chain(stream::pending()));
    let object = key("a/x");
    let putting = store.put(&object, 8, never);
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(50), putting).await;
    assert!(given_up.is_err());
    assert!(temporaries(&dir).is_empty());
}

#[tokio::test]
async fn a_big_body_goes_through_in_pieces() {
    const PIECES: usize = 512;
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(&dir);
    let piece =
        |number: usize| Bytes::from(vec![u8::try_from(number % 251).expect("small"); CHUNK]);
    let body = stream::iter(0..PIECES).map(move |number| Ok(piece(number)));
    let size_bytes = (PIECES * CHUNK) as u64;
    store
        .put(&key("big"), size_bytes, Box::pin(body))
        .await
        .expect("put");
    let blob = store.find(&key("big")).await.expect("read").expect("there");
    assert_eq!(blob.size_bytes, size_bytes);
    let whole = blob
        .body
        .try_fold((0, true), |(at, right), chunk| async move {
            let wanted = |at: usize| u8::try_from(at / CHUNK % 251).expect("small");
            assert!(chunk.len() <= CHUNK);
            let same = chunk
                .iter()
                .enumerate()
                .all(|(i, byte)| *byte == wanted(at + i));
            Ok((at + chunk.len(), right && same))
        });
    assert_eq!(whole.await.expect("read"), (PIECES * CHUNK, true));
}

#[tokio::test]
async fn a_list_is_in_the_order_of_bytes_and_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(&dir);
    // '-' and '.' stand before '/', digits and letters after it.
    let mut names = vec![
        "log/a/1",
        "log/a-b/1",
        "log/a.b",
        "log/a0",
        "log/a/2/x",
        "log/a/2.x",
        "log/B/9",
        "log/z",
        "log/a-b/0",
        "log/a/10",
    ];
    for name in names.iter().chain(&["logs/other", "lo"]) {
        store
            .put_bytes(&key(name), Bytes::new())
            .await
            .expect("put");
    }
    names.sort_unstable();
    let listed = |entries: Vec<Entry>| -> Vec<String> {
        entries
            .into_iter()
            .map(|entry| entry.key.to_string())
            .collect()
    };
    let all = store.list(&key("log"), None, 100).await.expect("listed");
    assert_eq!(listed(all), names);
    for page in 1..names.len() {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let entries = store
                .list(&key("log"), after.as_ref(), page)
                .await
                .expect("listed");
            let Some(last) = entries.last() else { break };
            after = Some(last.key.clone());
            seen.extend(listed(entries));
        }
        assert_eq!(seen, names, "in pages of {page}");
    }
}

#[test]
fn what_a_crash_left_is_removed_and_what_a_living_process_writes_is_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let living = DirStore::open(dir.path()).expect("opened");
    let written = living.tmp.join("7");
    fs::write(&written, b"half of a body").expect("written");
    // Another process that dies while it holds its directory: `flock` holds it until then.
    let crashed = dir.path().join(TMP).join("0123456789abcdef");
    make_dir(&crashed).expect("made");
    fs::write(crashed.join("1"), b"half of another").expect("written");
    let mut holder = Command::new("flock")
        .arg(&crashed)
        .args(["sh", "-c", "echo held; read _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut held = [0; 4];
    io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut held).expect("held");
    drop(DirStore::open(dir.path()).expect("opened"));
    assert_eq!(temporaries(&dir).len(), 2, "both live");
    drop(holder.stdin.take());
    holder.wait().expect("ended");
    drop(DirStore::open(dir.path()).expect("opened"));
    assert_eq!(temporaries(&dir), [written]);
    assert!(!crashed.exists());
}

#[test]
fn objects_and_their_directories_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let put = async {
        let body = Bytes::from_static(b"x");
        store(&dir).put_bytes(&key("a/b"), body).await.expect("put")
    };
    runtime.block_on(put);
    let mode = |name| {
        let metadata = fs::metadata(dir.path().join(name)).expect("there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("a"), mode("a/b")), (0o700, 0o600));
}
