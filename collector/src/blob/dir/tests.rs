use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;

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
