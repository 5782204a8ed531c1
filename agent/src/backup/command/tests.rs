//! Programs that fail in every way there is: real ones, of `/bin/sh`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infratrack_shared::backup::{ChunkId, Chunker, PackKind, Sizes, TreeReader, VolumeKey, ids};

use super::*;
use crate::backup::chunks::{Meter, Place};
use crate::backup::cut::Ids;
use crate::backup::pipeline::Pipeline;

/// Chunks in memory.
struct Memory {
    key: VolumeKey,
    chunker: Chunker,
    meter: Meter,
    chunks: BTreeMap<ChunkId, Vec<u8>>,
}

impl Memory {
    fn new() -> Self {
        let key = VolumeKey::new([5; 32]);
        Self {
            chunker: Chunker::new(&key, Sizes::DATABASE),
            key,
            meter: Meter::default(),
            chunks: BTreeMap::new(),
        }
    }

    fn content(&self, content: &Content) -> Vec<u8> {
        let chunks = match content.chunks() {
            Some(chunks) => chunks.unwrap(),
            None => ids(&self.joined(&content.lists().unwrap())).unwrap(),
        };
        self.joined(&chunks)
    }

    fn joined(&self, ids: &[ChunkId]) -> Vec<u8> {
        ids.iter().flat_map(|id| self.chunks[id].clone()).collect()
    }
}

impl Chunks for Memory {
    fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    fn store(&mut self, _: PackKind, plain: &[u8]) -> Result<ChunkId, Stopped> {
        let id = self.key.chunk_id(plain);
        self.chunks.insert(id, plain.to_vec());
        Ok(id)
    }

    fn keep(&mut self, _: Place) {}

    fn go_on(&mut self) -> Result<(), Stopped> {
        Ok(())
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }
}

fn program(script: &str) -> Program {
    Program {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: Duration::from_secs(20),
        min_bytes: 1,
        max_shrink_percent: 50,
        user: None,
        env: BTreeMap::new(),
        directory: None,
        check: None,
        check_argv: Vec::new(),
    }
}

fn control() -> Arc<Control> {
    Pipeline::control(Duration::from_secs(60))
}

async fn run(program: &Program, last: Option<u64>) -> (Memory, Result<Written, Failure>) {
    let mut memory = Memory::new();
    let now = UnixMillis(1_700_000_000_123);
    let written = back_up(&mut memory, &control(), ("db", program), last, now).await;
    (memory, written)
}

async fn failure(program: &Program, last: Option<u64>) -> Failure {
    run(program, last).await.1.unwrap_err()
}

#[tokio::test]
async fn what_a_program_writes_is_a_tree_of_one_file() {
    let script =
        "i=0; while [ $i -lt 300 ]; do head -c 20000 /dev/urandom; i=$((i+1)); done | tee copy";
    let dir = tempfile::tempdir().unwrap();
    let mut program = program(script);
    program.directory = Some(dir.path().to_owned());
    let (memory, written) = run(&program, None).await;
    let Written { root, bytes, .. } = written.unwrap();
    let mut reader = TreeReader::default();
    reader.feed(&memory.content(&root));
    let node = reader.next_node().unwrap().unwrap();
    assert!(reader.next_node().unwrap().is_none());
    assert_eq!(node.name.as_slice(), b"db");
    assert_eq!((node.mtime_s, node.mtime_ns), (1_700_000_000, 123_000_000));
    let content = memory.content(node.content.as_ref().unwrap());
    assert_eq!((content.len() as u64, bytes), (6_000_000, 6_000_000));
    assert!(content == fs::read(dir.path().join("copy")).unwrap());
    let read = memory
        .meter
        .bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read, 6_000_000);
}

#[test]
fn a_long_list_of_chunks_is_content_of_its_own() {
    let mut memory = Memory::new();
    let named = |count: usize| -> Vec<_> {
        let id = |at: usize| memory_id(at);
        (0..count).map(id).collect()
    };
    let mut content = |count: usize| {
        let mut ids = Ids::default();
        ids.grow(5);
        for id in named(count) {
            ids.push(id, &mut memory, &mut |_| ()).unwrap();
        }
        ids.finish(&mut memory, &mut |_| ()).unwrap()
    };
    let (short, long) = (content(1_024), content(5_000));
    assert_eq!(short.chunks().unwrap().unwrap(), named(1_024));
    assert!(long.chunks().is_none());
    let listed = ids(&memory.joined(&long.lists().unwrap())).unwrap();
    assert_eq!((long.size, listed), (5, named(5_000)));
}

fn memory_id(at: usize) -> ChunkId {
    ChunkId::new(*blake3::hash(&at.to_be_bytes()).as_bytes())
}

#[tokio::test]
async fn a_program_that_fails_leaves_nothing_and_says_why() {
    let cases = [
        (
            "echo data; echo full >&2; exit 1",
            reason::EXIT_CODE,
            "full",
        ),
        ("echo data; kill -9 $$", reason::SIGNAL, "signal 9"),
        ("true", reason::EMPTY_OUTPUT, "nothing"),
        ("echo data", reason::TOO_SMALL, "5 bytes"),
    ];
    for (script, expected, detail) in cases {
        let mut program = program(script);
        program.min_bytes = 6;
        let failure = failure(&program, None).await;
        assert_eq!(failure.reason, expected, "{failure}");
        assert!(failure.detail.contains(detail), "{failure}");
    }
    let mut missing = program("");
    missing.argv = vec!["/nowhere/tool".to_owned()];
    assert_eq!(failure(&missing, None).await.reason, reason::CANNOT_START);
    let mut nobody = program("echo data");
    nobody.user = Some("no-such-user".to_owned());
    assert_eq!(failure(&nobody, None).await.reason, reason::CANNOT_START);
}

#[tokio::test]
async fn a_dump_that_shrank_too_much_is_none() {
    let program = program("head -c 500 /dev/zero");
    assert!(run(&program, Some(1_000)).await.1.is_ok());
    let failure = failure(&program, Some(1_001)).await;
    assert_eq!(failure.reason, reason::SHRUNK);
    let mut any = program.clone();
    any.max_shrink_percent = 100;
    assert!(run(&any, Some(u64::MAX)).await.1.is_ok());
}

#[tokio::test]
async fn its_last_complaints_are_kept_and_no_more() {
    let script =
        "head -c 3000000 /dev/zero | tr '\\0' x >&2; printf '\\033[31m the end\\0\\n' >&2; exit 2";
    let failure = failure(&program(script), None).await;
    assert_eq!(failure.reason, reason::EXIT_CODE);
    assert!(failure.detail.ends_with("the end"), "{failure}");
    assert!(failure.detail.len() < 4_500 && !failure.detail.contains(['\0', '\x1b']));
}

#[tokio::test]
async fn one_that_ignores_its_end_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = program(
        "trap '' TERM; echo data; (trap '' TERM; exec sleep 600) & echo $! >pid; wait; wait; sleep 600",
    );
    program.directory = Some(dir.path().to_owned());
    program.timeout = Duration::from_millis(300);
    let begun = Instant::now();
    let failure = failure(&program, None).await;
    assert_eq!(failure.reason, reason::TIMEOUT);
    assert!(begun.elapsed() < Duration::from_secs(15));
    gone(dir.path()).await;
}

#[tokio::test]
async fn a_cancelled_run_ends_its_program_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = program("trap '' TERM; echo $$ >pid; while :; do sleep 1; done");
    program.directory = Some(dir.path().to_owned());
    let (mut memory, control) = (Memory::new(), control());
    let cancelled = Failure::new(reason::CANCELLED, "by somebody");
    let cancel = async {
        let until = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string(dir.path().join("pid")).is_ok_and(|pid| pid.ends_with('\n')) {
            assert!(Instant::now() < until, "it starts");
            tokio::task::yield_now().await;
        }
        control.stop(cancelled.clone());
        Instant::now()
    };
    let backup = back_up(&mut memory, &control, ("db", &program), None, UnixMillis(0));
    let (ended, stopped) = tokio::join!(backup, cancel);
    assert!(stopped.elapsed() < Duration::from_secs(2));
    assert_eq!(ended.unwrap_err(), cancelled);
    gone(dir.path()).await;
}

/// Waits until the process whose id is in the folder runs no more.
async fn gone(dir: &Path) {
    let pid = fs::read_to_string(dir.join("pid")).unwrap();
    let state = format!("/proc/{}/stat", pid.trim());
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(&state).is_ok_and(|text| !text.contains(" Z ")) {
        assert!(Instant::now() < until, "it runs on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn its_environment_is_ours_and_what_is_configured() {
    let mut program = program("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd");
    program.env.insert("PGHOST".to_owned(), "/run".to_owned());
    let (memory, written) = run(&program, None).await;
    let mut reader = TreeReader::default();
    reader.feed(&memory.content(&written.unwrap().root));
    let node = reader.next_node().unwrap().unwrap();
    let text = String::from_utf8(memory.content(node.content.as_ref().unwrap())).unwrap();
    let names: Vec<_> = text.split_whitespace().collect();
    for name in ["HOME", "LANG", "PATH", "PGHOST"] {
        assert!(names.contains(&name), "{text}");
    }
    assert!(!text.contains("CARGO"), "{text}");
    assert_eq!(names.last(), Some(&"/"));
}

#[tokio::test]
async fn a_hook_that_fails_fails_by_its_name() {
    let hook_of = |script: &str| Hook {
        argv: program(script).argv,
        timeout: Duration::from_secs(20),
    };
    let control = control();
    let done = hook(&control, &hook_of("echo fine"), reason::PRE_HOOK).await;
    assert_eq!(done, Ok(()));
    for script in ["echo no >&2; exit 4", "echo no >&2; kill -9 $$"] {
        let failure = hook(&control, &hook_of(script), reason::PRE_HOOK)
            .await
            .unwrap_err();
        assert_eq!(failure.reason, reason::PRE_HOOK);
        assert!(failure.detail.contains("no"), "{failure}");
    }
}

#[tokio::test]
async fn tools_that_are_wrapped_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let tool = |name: &str, script: &str| {
        let path = dir.path().join(name);
        let path = path.to_str().unwrap().to_owned();
        let mut program = program(script);
        program.argv = vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            script.to_owned(),
            path,
        ];
        program
    };
    let summary = r#"echo '{"message_type":"status"}'; echo '{"message_type":"summary","total_files_processed":7,"total_bytes_processed":900,"data_added":30}'; exit "#;
    for (code, is_whole) in [(0, true), (3, false)] {
        let done = external(&control(), &tool("restic", &format!("{summary}{code}"))).await;
        let done = done.unwrap();
        assert_eq!(done.incomplete.is_none(), is_whole);
        let Summary {
            files,
            bytes,
            new_bytes,
        } = done.summary;
        assert_eq!((files, bytes, new_bytes), (7, 900, 30));
    }
    let borg = r#"echo '{"archive": {"stats": {"nfiles": 2, "original_size": 50, "deduplicated_size": 5}}}'; exit "#;
    let done = external(&control(), &tool("borg", &format!("{borg}1")))
        .await
        .unwrap();
    assert!(done.incomplete.is_some());
    assert_eq!((done.summary.files, done.summary.bytes), (2, 50));
    for (name, code) in [("restic", 1), ("borg", 2), ("pgbackrest", 1), ("other", 3)] {
        let failed = external(&control(), &tool(name, &format!("exit {code}"))).await;
        assert_eq!(failed.unwrap_err().reason, reason::EXTERNAL, "{name}");
    }
}
