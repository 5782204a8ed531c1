//! What a whole machine has, and a million files: for hours of patience.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use http::Method;
use infratrack_agent::backup::restore::Options;
use infratrack_shared::wire::backup::Outcome;
use serde_json::json;

use super::agent::{Rig, noise};
use super::restore::{Reader, below, blocking};
use super::{path, send};

const FOLDERS: u32 = 1000;
const FILES: u32 = 1000;
/// What may be read for one small file of them.
const READ: u64 = 8 << 20;

/// Everything that is below, a line each: kind, mode, owner, group, links, time, size, target, and the digest of a file.
/// By other programs than those that are tested.
fn listing(root: &Path) -> Vec<String> {
    let script = "find . -xdev \\( -type d -printf 'd %m %U %G %T@ %p\\n' \\) -o -printf '%y %m %U %G %n %T@ %s %p -> %l\\n'
                  find . -xdev -type f -print0 | xargs -0 -P 2 -n 500 sha256sum";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(root)
        .output();
    let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "reads and writes all of /usr; make soak"]
async fn this_machines_programs_and_configuration_come_back_as_they_are() {
    let rig = Rig::new("").await;
    let roots = ["/usr", "/etc"];
    let text = fs::read_to_string(&rig.backups.allowed).unwrap();
    let root = format!("{:?}", rig.dir.path());
    fs::write(
        &rig.backups.allowed,
        text.replace(&root, "\"/usr\", \"/etc\""),
    )
    .unwrap();
    let volume = rig.volume(json!({"files": {"paths": roots}})).await;
    let before = roots.map(|root| listing(Path::new(root)));
    let begun = Instant::now();
    let ended = rig.run().await;
    println!("{:?}: {ended:?}", begun.elapsed());
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    let after = roots.map(|root| listing(Path::new(root)));
    blocking(move || {
        let to = rig.dir.path().join("back");
        let begun = Instant::now();
        let (restored, _) = Reader::own(&rig, &volume).restore(&to, &Options::default());
        println!(
            "restored in {:?}: {} files",
            begun.elapsed(),
            restored.files
        );
        assert_eq!(restored.errors_total, 0, "{restored:?}");
        for (root, (before, after)) in roots.into_iter().zip(before.iter().zip(&after)) {
            let back = listing(&below(&to, Path::new(root)));
            // What somebody changed meanwhile may be either.
            let is_steady = |line: &&String| after.binary_search(line).is_ok();
            let steady: Vec<_> = before.iter().filter(is_steady).collect();
            assert!(steady.len() > 100, "{root} changes all the time");
            let missing = steady
                .iter()
                .filter(|line| back.binary_search(line).is_err());
            let missing: Vec<_> = missing.take(20).collect();
            assert!(missing.is_empty(), "{root}: {missing:#?}");
            let is_new = |line: &&String| {
                before.binary_search(line).is_err() && after.binary_search(line).is_err()
            };
            let new: Vec<_> = back.iter().filter(is_new).take(20).collect();
            assert!(new.is_empty(), "{root}: {new:#?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes a million files; make soak"]
async fn one_small_file_of_a_million_comes_back_on_another_host_by_little_reading() {
    let rig = Rig::new("").await;
    let www = rig.dir.path().join("www");
    for folder in 0..FOLDERS {
        let folder = www.join(format!("{folder:04}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..FILES {
            fs::write(
                folder.join(format!("{file:04}")),
                format!("{folder:?} {file}"),
            )
            .unwrap();
        }
    }
    let wanted = noise(7, 10_240);
    fs::write(www.join("0617/0415"), &wanted).unwrap();
    let volume = rig.volume(json!({"files": {"paths": [www]}})).await;
    let begun = Instant::now();
    let ended = rig.run().await;
    println!("{:?}: {ended:?}", begun.elapsed());
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    let begun = Instant::now();
    let again = rig.run().await;
    println!("unchanged, {:?}: {again:?}", begun.elapsed());
    assert_eq!(again.outcome, Outcome::Ok, "{again:?}");
    assert!(again.progress.sent_bytes < 64 << 10, "{again:?}");

    let other = rig.collector.host().await;
    let grant = json!({"host_id": other.id, "reason": "one file"});
    let grants = format!("{}/grants", path(&volume));
    let (status, granted) = send(&rig.collector, Method::POST, &grants, None, &grant).await;
    assert_eq!(status, http::StatusCode::CREATED, "{granted}");
    blocking(move || {
        let to = rig.dir.path().join("one");
        let options = Options {
            paths: vec![format!("{}/0617/0415", www.display())],
            ..Options::default()
        };
        let begun = Instant::now();
        let (restored, read) = Reader::other(&rig, &other, &volume).restore(&to, &options);
        println!("{:?}, {read} bytes read", begun.elapsed());
        assert_eq!(
            (restored.errors_total, restored.files),
            (0, 1),
            "{restored:?}"
        );
        assert!(read <= READ, "{read} bytes");
        let back = fs::read(below(&to, &www).join("0617/0415")).unwrap();
        assert!(back == wanted);
    })
    .await;
}
