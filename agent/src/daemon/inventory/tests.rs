use std::fs;

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::{StateAck, WantWhole};

use super::*;
use crate::collect::Root;

const STATUS: &str = "var/lib/dpkg/status";

/// A host whose dpkg has these packages, with versions.
struct Host(tempfile::TempDir);

impl Host {
    fn new(packages: &[(&str, &str)]) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.has(packages);
        host
    }

    fn has(&self, packages: &[(&str, &str)]) {
        let entries: Vec<_> = packages
            .iter()
            .map(|(name, version)| {
                format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: all\n")
            })
            .collect();
        self.holds(&entries.join("\n"));
    }

    fn holds(&self, status: &str) {
        let path = self.0.path().join(STATUS);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, status).unwrap();
    }

    fn inventory(&self) -> Inventory {
        let root = Root::new(self.0.path());
        let watch = Watch::start(&root);
        Inventory::new(InventorySource::new(root), watch)
    }
}

fn spool() -> Spool {
    Spool::in_memory(UnixMillis(0))
}

fn want(key: &str) -> Ack {
    Ack {
        want_whole: vec![WantWhole {
            key: key.to_owned(),
        }],
        ..Ack::default()
    }
}

fn stored(part: &StatePart) -> Ack {
    Ack {
        state: vec![StateAck {
            key: part.key.clone(),
            version: part.version,
            part: part.part,
        }],
        ..Ack::default()
    }
}

fn body(part: &StatePart) -> PackagesPart {
    codec::decode_value(&part.body).unwrap()
}

/// What a part puts and what it says is gone.
fn told(part: &StatePart) -> (Vec<String>, Vec<String>) {
    let body = body(part);
    let put = body.put.into_iter().flat_map(|group| group.packages);
    let gone = body.gone.into_iter().flat_map(|group| group.packages);
    (
        put.map(|package| format!("{} {}", package.name, package.version))
            .collect(),
        gone.map(|key| format!("{} {}", key.name, key.version))
            .collect(),
    )
}

#[tokio::test]
async fn what_the_collector_has_is_not_sent_and_then_only_what_changes() {
    let (host, spool) = (Host::new(&[("a", "1"), ("b", "1"), ("c", "1")]), spool());
    let mut inventory = host.inventory();
    assert_eq!(inventory.hash(), None);
    assert!(
        !inventory.read(&spool).await.unwrap(),
        "the hash goes first"
    );
    let before = inventory.hash().unwrap();
    host.has(&[("a", "1"), ("b", "2"), ("d", "1")]);
    assert!(inventory.read(&spool).await.unwrap());
    assert_ne!(inventory.hash(), Some(before));
    let delta = inventory.offered().unwrap();
    assert!(delta.base_hash.is_some());
    assert_eq!(
        told(&delta),
        (
            vec!["b 2".to_owned(), "d 1".to_owned()],
            vec!["b 1".to_owned(), "c 1".to_owned()]
        )
    );
    inventory.sent();
    assert_eq!(inventory.offered(), None, "it is under way");
    inventory
        .acknowledged(&stored(&delta), &spool)
        .await
        .unwrap();
    assert!(inventory.sending_packages.is_none());
    host.has(&[("a", "1"), ("b", "2"), ("d", "1")]);
    assert!(!inventory.read(&spool).await.unwrap());
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_as_it_was() {
    let (host, spool) = (Host::new(&[("a", "1")]), spool());
    let mut inventory = host.inventory();
    inventory.read(&spool).await.unwrap();
    inventory
        .acknowledged(&want(PACKAGES), &spool)
        .await
        .unwrap();
    let part = inventory.offered().unwrap();
    inventory.sent();
    tokio::time::pause();
    tokio::time::advance(AGAIN).await;
    assert_eq!(inventory.offered(), Some(part.clone()));
    inventory
        .acknowledged(&want(PACKAGES), &spool)
        .await
        .unwrap();
    assert_eq!(inventory.offered(), Some(part), "the whole under way is it");
}

#[tokio::test]
async fn a_whole_comes_in_parts_that_fit_and_are_acknowledged_in_order() {
    let names: Vec<_> = (0..3000)
        .map(|number| format!("package-{number:04}"))
        .collect();
    let long = format!("1:2.3.4+dfsg-5~bpo12+1.{}", "0".repeat(60));
    let packages: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), long.as_str()))
        .collect();
    let (host, spool) = (Host::new(&packages), spool());
    let mut inventory = host.inventory();
    inventory.read(&spool).await.unwrap();
    inventory
        .acknowledged(&want(PACKAGES), &spool)
        .await
        .unwrap();
    let mut sent = Vec::new();
    while let Some(part) = inventory.offered() {
        let (bytes, items) = size(&part);
        assert!(
            bytes <= STATE_BYTES && items <= STATE_ITEMS,
            "{bytes} {items}"
        );
        assert_eq!((part.base_hash, part.part as usize), (None, sent.len()));
        inventory.sent();
        let ack = stored(&part);
        inventory.acknowledged(&ack, &spool).await.unwrap();
        sent.push(part);
    }
    assert!(sent.len() > 1);
    assert!(sent.iter().all(|part| part.parts as usize == sent.len()));
    assert_eq!(body(&sent[0]).databases.len(), 1);
    let put: usize = sent.iter().map(|part| told(part).0.len()).sum();
    assert_eq!(put, 3000);
}

#[tokio::test]
async fn of_a_database_that_cannot_be_read_stays_what_was_known() {
    let (host, spool) = (Host::new(&[("a", "1"), ("b", "1")]), spool());
    let mut inventory = host.inventory();
    inventory.read(&spool).await.unwrap();
    let path = host.0.path().join(STATUS);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(inventory.read(&spool).await.unwrap());
    let part = inventory.offered().unwrap();
    assert_eq!((part.base_hash, told(&part)), (None, (vec![], vec![])));
    let unknown = body(&part).databases.remove(0).unknown;
    assert!(unknown.unwrap().contains("is no file"));
    assert_eq!(inventory.packages.as_ref().unwrap().digests.len(), 2);
    inventory
        .acknowledged(&stored(&part), &spool)
        .await
        .unwrap();
    fs::remove_dir(&path).unwrap();
    host.has(&[("a", "1")]);
    assert!(inventory.read(&spool).await.unwrap());
    let part = inventory.offered().unwrap();
    assert_eq!(part.base_hash, None, "what went meanwhile is not known");
    assert_eq!(told(&part).0, ["a 1"]);
}

#[tokio::test]
async fn a_version_that_is_refused_is_given_up() {
    let (host, spool) = (Host::new(&[("a", "1")]), spool());
    let mut inventory = host.inventory();
    inventory.read(&spool).await.unwrap();
    inventory
        .acknowledged(&want(PACKAGES), &spool)
        .await
        .unwrap();
    let version = inventory.offered().unwrap().version;
    inventory.refused(PACKAGES, version + 1);
    assert!(inventory.has_next());
    inventory.refused(PACKAGES, version);
    assert!(!inventory.has_next());
}
