//! The house is as docs/ARCHITECTURE.md says: the paths it names exist, and what it says never happens
//! does not.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines a file may have before its tests.
const LINES: usize = 500;
/// Files that are longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("testkit is in the repository")
        .to_owned()
}

/// Every Rust file below the `src` of a crate: its path from the root, and its text.
fn sources(of: &[&str]) -> Vec<(String, String)> {
    let mut open: Vec<PathBuf> = of
        .iter()
        .map(|name| root().join(name).join("src"))
        .collect();
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of sources") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root");
                let text = fs::read_to_string(&path).expect("UTF-8");
                files.push((name.display().to_string(), text));
            }
        }
    }
    assert!(!files.is_empty());
    files.sort();
    files
}

/// The file without its inline tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

/// Files with any of `words` in their code, but for those whose path begins with one of `except`.
fn files_with(of: &[&str], words: &[&str], except: &[&str]) -> Vec<String> {
    let found = sources(of).into_iter().filter(|(name, text)| {
        let lines = without_tests(text).lines();
        let mut code = lines.filter(|line| !line.trim_start().starts_with("//"));
        !is_test(name)
            && !except.iter().any(|path| name.starts_with(path))
            && code.any(|line| words.iter().any(|word| line.contains(word)))
    });
    found.map(|(name, _)| name).collect()
}

const ALL: &[&str] = &["agent", "collector", "shared", "testkit"];
const NONE: [String; 0] = [];

/// The code spans of a page that are paths in the repository.
fn paths(page: &str) -> Vec<String> {
    let looks_like_one = |span: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        span.contains('/') && !span.starts_with('/') && span.bytes().all(plain)
    };
    let text = fs::read_to_string(root().join(page)).expect("the page is there");
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter(looks_like_one).map(str::to_owned).collect()
}

#[test]
fn every_path_in_the_documentation_exists() {
    for (page, least) in [
        ("docs/ARCHITECTURE.md", 50),
        ("docs/adding-an-event.md", 10),
    ] {
        let paths = paths(page);
        assert!(paths.len() >= least, "{page}: {} paths", paths.len());
        let missing: Vec<_> = paths
            .iter()
            .filter(|path| !root().join(path).exists())
            .collect();
        assert!(missing.is_empty(), "{page} names {missing:?}");
    }
}

#[test]
fn the_way_of_a_heartbeat_is_walked_in_order() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("is there");
    let way = [
        "agent/src/collect/heartbeat.rs",
        "agent/src/reporter.rs",
        "agent/src/uplink.rs",
        "agent/src/spool.rs",
        "collector/src/http.rs",
        "collector/src/agents/service.rs",
        "collector/src/agents/ingest.rs",
        "collector/src/agents/writer.rs",
        "collector/src/agents/writer/plan.rs",
        "collector/src/agents/writer/flush.rs",
        "collector/src/store/heartbeats.rs",
        "collector/src/store/host_liveness.rs",
        "collector/src/web/hosts.rs",
        "collector/src/store/hosts/list.rs",
        "collector/templates/hosts.html",
    ];
    let places: Vec<_> = way
        .iter()
        .map(|step| page.find(&format!("`{step}`")))
        .collect();
    assert!(places.iter().all(Option::is_some), "{places:?}");
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    let long = sources(ALL).into_iter().filter_map(|(name, text)| {
        let lines = without_tests(&text).lines().count();
        (lines > LINES).then_some((name, lines))
    });
    let (listed, unlisted): (Vec<_>, Vec<_>) =
        long.partition(|(name, _)| LONGER.iter().any(|(longer, _)| longer == name));
    assert!(unlisted.is_empty(), "over {LINES} lines: {unlisted:?}");
    assert_eq!(listed.len(), LONGER.len(), "{LONGER:?}: not all are long");
}

#[test]
fn the_agent_never_listens() {
    let listeners = [
        "TcpListener",
        "UnixListener",
        "UdpSocket",
        "UnixDatagram::bind",
    ];
    assert_eq!(files_with(&["agent"], &listeners, &[]), NONE);
}

#[test]
fn sql_stands_in_the_store_alone() {
    let queries = [
        "sqlx::query",
        "query!(",
        "query_as!(",
        "query_scalar!(",
        "QueryBuilder",
    ];
    let except = ["collector/src/store/"];
    assert_eq!(files_with(&["collector"], &queries, &except), NONE);
}

#[test]
fn imports_go_one_way() {
    let store: Vec<_> = files_with(
        &["collector"],
        &["crate::api", "crate::web", "crate::agents", "crate::jobs"],
        &[],
    )
    .into_iter()
    .filter(|name| name.starts_with("collector/src/store/"))
    .collect();
    assert_eq!(store, NONE, "the store knows nobody");
    let except = [
        "collector/src/web/",
        "collector/src/roles.rs",
        "collector/src/roles/",
    ];
    assert_eq!(files_with(&["collector"], &["crate::web"], &except), NONE);
    assert_eq!(files_with(&["agent"], &["infratrack_collector"], &[]), NONE);
    assert_eq!(files_with(&["collector"], &["infratrack_agent"], &[]), NONE);
    let io = ["std::fs", "std::net", "tokio", "SystemTime"];
    assert_eq!(
        files_with(&["shared"], &io, &[]),
        NONE,
        "shared does no I/O"
    );
}

#[test]
fn one_decoder_reads_outside_bytes() {
    let raw = [
        "rmp_serde::from",
        "rmpv::decode::",
        "rmp_serde::Deserializer",
    ];
    let except = ["shared/src/codec.rs", "testkit/src/fuzz.rs"];
    assert_eq!(files_with(ALL, &raw, &except), NONE);
}

#[test]
fn sessions_are_not_resumed() {
    let tls = root().join("collector/src/agents/tls.rs");
    let tls = fs::read_to_string(tls).expect("is there");
    for (setting, least) in [("send_tls13_tickets = 0", 1), ("without_resumption(", 3)] {
        assert!(tls.matches(setting).count() >= least, "{setting}");
    }
}

#[test]
fn a_main_only_starts() {
    for main in ["agent/src/main.rs", "collector/src/main.rs"] {
        let text = fs::read_to_string(root().join(Path::new(main))).expect("is there");
        assert!(text.lines().count() < 150, "{main}");
    }
}
