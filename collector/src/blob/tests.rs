//! One set of tests for both stores: a directory, and buckets of two servers of S3's protocol, the second of which is asked as one
//! that knows no checksums of the SDK's choice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::types::{
    BucketVersioningStatus, CreateBucketConfiguration, DefaultRetention, ObjectLockConfiguration,
    ObjectLockEnabled, ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use futures_util::{StreamExt, TryStreamExt};
use infratrack_testkit::aws::Aws;
use infratrack_testkit::proxy::{Fault, Proxy};
use infratrack_testkit::s3::S3 as FileServer;
use tempfile::TempDir;

use super::*;

const BUCKET: &str = "blobs";

/// The stores, and what they are kept in.
struct Rig {
    stores: [BlobStore; 3],
    aws: Aws,
    files: FileServer,
    _dir: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let aws = tokio::task::spawn_blocking(Aws::start);
        let aws = aws.await.unwrap().unwrap();
        aws.bucket(BUCKET).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = FileServer::start().await.unwrap();
        files.bucket(BUCKET).unwrap();
        Self {
            stores: [
                BlobStore::Dir(DirStore::open(dir.path()).unwrap()),
                bucket_at(aws.address().unwrap(), "fleet/a"),
                plain_bucket_at(files.address(), "fleet/a"),
            ],
            aws,
            files,
            _dir: dir,
        }
    }
}

fn settings(address: std::net::SocketAddr) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(Credentials::new("testing", "testing", None, None, "test"))
        .endpoint_url(format!("http://{address}"))
        .timeout_config(crate::aws::s3::limits(0))
        .force_path_style(true)
}

fn bucket_at(address: std::net::SocketAddr, prefix: &str) -> BlobStore {
    let client = aws_sdk_s3::Client::from_conf(settings(address).build());
    let writing = Writing {
        encryption: Some("AES256".into()),
        storage_class: Some("STANDARD_IA".into()),
        ..Writing::default()
    };
    BlobStore::S3(S3Store::new(client, BUCKET.to_owned(), prefix, writing))
}

fn plain_bucket_at(address: std::net::SocketAddr, prefix: &str) -> BlobStore {
    let settings = settings(address)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let client = aws_sdk_s3::Client::from_conf(settings.build());
    let writing = Writing {
        with_md5: true,
        ..Writing::default()
    };
    BlobStore::S3(S3Store::new(client, BUCKET.to_owned(), prefix, writing))
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned()).unwrap()
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[test]
fn a_key_cannot_leave_its_store_or_hide_in_it() {
    for bad in [
        "",
        "/",
        "a//b",
        "/a",
        "a/",
        "..",
        "a/../b",
        "./a",
        "a/.tmp",
        "a\\b",
        "a b",
        "a\0b",
        "ä",
        "a/%2e%2e/b",
    ] {
        assert!(Key::new(bad).is_err(), "{bad:?}");
    }
    assert!(Key::new("a/".repeat(400) + "a").is_err());
    assert!(Key::new("a".repeat(201)).is_err());
    for good in ["a", "a/b-c_d.e/0F", "a..b"] {
        assert_eq!(Key::new(good).expect("a key").as_str(), good);
    }
}

#[tokio::test]
async fn what_was_put_is_found_listed_and_deleted() {
    let rig = Rig::start().await;
    for (number, store) in rig.stores.iter().enumerate() {
        let object = key("packs/ab/1");
        assert!(store.find(&object).await.unwrap().is_none());
        let put = store.put_bytes(&object, Bytes::from_static(b"one")).await;
        assert_eq!(put.unwrap(), Put::Stored, "{store:?}");
        let found = store.find_bytes(&object, 3).await.unwrap();
        assert_eq!(found.as_deref(), Some(&b"one"[..]));
        let error = store.find_bytes(&object, 2).await.unwrap_err();
        assert!(matches!(error, BlobError::TooLarge { size_bytes: 3, .. }));
        // A part of the way to an object is none; to the server on files it is a folder.
        if number < 2 {
            assert!(store.find(&key("packs/ab")).await.unwrap().is_none());
        }
        assert!(store.find(&key("packs/ab/1/2")).await.unwrap().is_none());
        let listed = store.list(&key("packs"), None, 10).await.unwrap();
        assert_eq!((listed.len(), listed[0].size_bytes), (1, 3));
        assert_eq!(listed[0].key, object);
        store.delete(&object).await.unwrap();
        store.delete(&object).await.unwrap();
        assert!(store.find(&object).await.unwrap().is_none());
        let left = store.list(&key("packs"), None, 10).await.unwrap();
        assert_eq!(left, []);
    }
}

#[tokio::test]
async fn an_object_that_is_there_is_never_replaced() {
    let rig = Rig::start().await;
    for store in &rig.stores {
        let object = key("a/b/c");
        for (body, wanted) in [("first", Put::Stored), ("other", Put::Existed)] {
            let put = store.put_bytes(&object, Bytes::from_static(body.as_bytes()));
            assert_eq!(put.await.unwrap(), wanted, "{store:?}");
        }
        let found = store.find_bytes(&object, 100).await.unwrap();
        assert_eq!(found.as_deref(), Some(&b"first"[..]));
        // An empty one is one.
        let empty = key("a/empty");
        store.put_bytes(&empty, Bytes::new()).await.unwrap();
        let found = store.find_bytes(&empty, 100).await.unwrap();
        assert_eq!(found.as_deref(), Some(&b""[..]));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_lies_about_its_length_stores_nothing() {
    let rig = Rig::start().await;
    let chunks = |chunks: Vec<io::Result<Bytes>>| -> Body { Box::pin(stream::iter(chunks)) };
    let ok = || Ok(Bytes::from_static(b"1234"));
    for store in &rig.stores {
        let object = key("a/x");
        let broken = vec![ok(), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
        let error = store.put(&object, 8, chunks(broken)).await.unwrap_err();
        assert!(matches!(error, BlobError::Body { .. }), "{error}");
        for (announced, chunk_count) in [(8, 1), (4, 2)] {
            let body = chunks((0..chunk_count).map(|_| ok()).collect());
            let error = store.put(&object, announced, body).await.unwrap_err();
            assert!(matches!(error, BlobError::Length { .. }), "{error}");
        }
        assert!(store.find(&object).await.unwrap().is_none());
    }
    let most = s3::OBJECT_BYTES as u64;
    let object = key("a/x");
    let put = rig.stores[1].put(&object, most + 1, chunks(vec![ok()]));
    let error = put.await.unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_big_body_goes_through_in_pieces() {
    const PIECES: usize = 512;
    const PIECE: usize = 64 * 1024;
    let rig = Rig::start().await;
    let piece = |number: usize| Bytes::from(vec![u8::try_from(number % 251).unwrap(); PIECE]);
    for store in &rig.stores {
        let body = stream::iter(0..PIECES).map(move |number| Ok(piece(number)));
        let size_bytes = (PIECES * PIECE) as u64;
        let object = key("big");
        let put = store.put(&object, size_bytes, Box::pin(body));
        assert_eq!(put.await.unwrap(), Put::Stored);
        let blob = store.find(&key("big")).await.unwrap().unwrap();
        assert_eq!(blob.size_bytes, size_bytes);
        let whole = blob
            .body
            .try_fold((0, true), |(at, right), chunk| async move {
                let wanted = |at: usize| u8::try_from(at / PIECE % 251).unwrap();
                let same = chunk
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| *byte == wanted(at + i));
                Ok((at + chunk.len(), right && same))
            });
        assert_eq!(whole.await.unwrap(), (PIECES * PIECE, true), "{store:?}");
    }
}

#[tokio::test]
async fn a_list_is_in_the_order_of_bytes_and_goes_on_where_it_ended() {
    let rig = Rig::start().await;
    // '-' and '.' stand before '/', digits and letters after it.
    let mut all = vec![
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
    for store in &rig.stores {
        for name in all.iter().chain(&["logs/other", "lo"]) {
            store.put_bytes(&key(name), Bytes::new()).await.unwrap();
        }
    }
    all.sort_unstable();
    for store in &rig.stores {
        let listed = store.list(&key("log"), None, 2500).await.unwrap();
        assert_eq!(names(&listed), all, "{store:?}");
        for page in 1..all.len() {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let entries = store.list(&key("log"), after.as_ref(), page).await;
                let entries = entries.unwrap();
                let Some(last) = entries.last() else { break };
                after = Some(last.key.clone());
                seen.extend(names(&entries).into_iter().map(str::to_owned));
            }
            assert_eq!(seen, all, "in pages of {page}");
        }
    }
}

#[tokio::test]
async fn a_part_of_an_object_is_read_exactly_or_not_at_all() {
    let rig = Rig::start().await;
    let all: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    for store in &rig.stores {
        let object = key("packs/ab/1");
        let none = store.find_range(&object, 0..1).await.unwrap();
        assert!(none.is_none(), "{store:?}");
        store.put_bytes(&object, all.clone().into()).await.unwrap();
        for range in [0..1, 5..70_005, 799_999..800_000, 0..800_000] {
            let blob = store.find_range(&object, range.clone()).await.unwrap();
            let blob = blob.unwrap();
            assert_eq!(blob.size_bytes, range.end - range.start);
            let chunks: Vec<Bytes> = blob.body.try_collect().await.unwrap();
            let within = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert!(chunks.concat() == all[within], "{store:?} {range:?}");
        }
        for range in [5..5, 799_999..800_001, 800_000..800_001, 900_000..900_010] {
            let error = store.find_range(&object, range.clone()).await;
            let error = error.unwrap_err();
            assert!(
                matches!(error, BlobError::Range { .. }),
                "{range:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn an_object_that_existed_is_whole_or_said_not_to_be() {
    let rig = Rig::start().await;
    for store in &rig.stores {
        let object = key("packs/ab/1");
        let whole = Bytes::from_static(b"whole");
        let put = async || store.put_whole(&object, whole.clone()).await;
        assert_eq!(store.find_size(&object).await.unwrap(), None);
        assert_eq!(put().await.unwrap(), Put::Stored);
        assert_eq!(put().await.unwrap(), Put::Existed);
        assert_eq!(store.find_size(&object).await.unwrap(), Some(5));
        store.delete(&object).await.unwrap();
        let torn = Bytes::from_static(b"who");
        store.put_bytes(&object, torn).await.unwrap();
        let error = put().await.unwrap_err();
        let found = Some(3);
        assert!(
            matches!(error, BlobError::NotWhole { found: three, .. } if three == found),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_bucket_may_have_more_objects_than_a_page_and_the_objects_of_others() {
    let rig = Rig::start().await;
    for number in 0..1003 {
        let name = format!("fleet/a/log/{number:04}");
        rig.aws.object(BUCKET, &name, "").await.unwrap();
    }
    for foreign in [
        "fleet/a/log/a%20b",
        "fleet/a/log/.x",
        "fleet/ab/log/1",
        "log/1",
    ] {
        rig.aws.object(BUCKET, foreign, "").await.unwrap();
    }
    let listed = rig.stores[1].list(&key("log"), None, 2000).await.unwrap();
    assert_eq!(listed.len(), 1003, "{:?}", listed.last());
    assert!(listed.is_sorted_by_key(|entry| entry.key.clone()));
    let bare = bucket_at(rig.aws.address().unwrap(), "");
    let bare = bare.list(&key("log"), None, 10).await.unwrap();
    assert_eq!(names(&bare), ["log/1"]);
}

#[tokio::test]
async fn what_s3_refuses_is_said_with_its_code_and_place() {
    let rig = Rig::start().await;
    rig.aws.refuse().await.unwrap();
    let (store, object) = (&rig.stores[1], key("a/b"));
    let error = store.find(&object).await.unwrap_err().to_string();
    let begins = "cannot read s3://blobs/fleet/a/a/b: InvalidAccessKeyId: ";
    assert!(error.starts_with(begins), "{error}");
    assert!(!error.contains("testing"), "{error}");
    for done in [
        store.put_bytes(&object, Bytes::new()).await.map(drop),
        store.list(&object, None, 1).await.map(drop),
        store.delete(&object).await,
    ] {
        let error = done.unwrap_err();
        assert!(matches!(error, BlobError::S3(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_fails_for_a_while_costs_a_try_and_one_that_stays_away_ends_in_time() {
    let rig = Rig::start().await;
    let proxy = Proxy::start(rig.aws.address().unwrap()).await.unwrap();
    let store = Arc::new(bucket_at(proxy.address(), "p"));
    let object = key("a/b");
    proxy.set(Fault::HalfOpen);
    let putting = tokio::spawn({
        let (store, object) = (Arc::clone(&store), object.clone());
        async move { store.put_bytes(&object, Bytes::from_static(b"x")).await }
    });
    let until = Instant::now() + Duration::from_secs(4);
    while proxy.fired() == 0 {
        assert!(Instant::now() < until, "the fault did not fire");
        tokio::task::yield_now().await;
    }
    proxy.forget();
    proxy.set(Fault::None);
    let put = putting.await.unwrap().unwrap();
    assert_eq!(put, Put::Stored);
    let found = store.find_bytes(&object, 1).await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"x"[..]));

    let long = Bytes::from(vec![7; 4_000_000]);
    store.put_bytes(&key("long"), long).await.unwrap();
    let fired = proxy.fired();
    proxy.set(Fault::Truncate(100_000));
    let error = store.find_bytes(&key("long"), 5_000_000).await;
    let error = error.unwrap_err();
    assert!(matches!(error, BlobError::Body { .. }), "{error}");
    assert!(proxy.fired() > fired);

    proxy.set(Fault::HalfOpen);
    let begun = Instant::now();
    let error = store.find(&object).await.unwrap_err().to_string();
    let took = begun.elapsed().as_secs();
    assert!(
        error.starts_with("cannot read s3://blobs/p/a/b: "),
        "{error}"
    );
    assert!((4..18).contains(&took), "{took} s: {error}");
}

/// A bucket with versions, whose new objects are locked for a day, or are not.
async fn with_versions(rig: &Rig, is_locked: bool) -> BlobStore {
    let address = rig.aws.address().unwrap();
    let client = aws_sdk_s3::Client::from_conf(settings(address).build());
    let name = if is_locked { "locked" } else { "versions" };
    let here = CreateBucketConfiguration::builder()
        .location_constraint("eu-central-1".into())
        .build();
    let make = client.create_bucket().bucket(name);
    let make = make.create_bucket_configuration(here);
    let make = make.object_lock_enabled_for_bucket(is_locked);
    make.send().await.unwrap();
    if is_locked {
        let retention = DefaultRetention::builder()
            .mode(ObjectLockRetentionMode::Compliance)
            .days(1)
            .build();
        let rule = ObjectLockRule::builder().default_retention(retention);
        let lock = ObjectLockConfiguration::builder()
            .object_lock_enabled(ObjectLockEnabled::Enabled)
            .rule(rule.build());
        let put = client.put_object_lock_configuration().bucket(name);
        let put = put.object_lock_configuration(lock.build());
        put.send().await.unwrap();
    } else {
        let versioning = VersioningConfiguration::builder()
            .status(BucketVersioningStatus::Enabled)
            .build();
        let put = client.put_bucket_versioning().bucket(name);
        let put = put.versioning_configuration(versioning);
        put.send().await.unwrap();
    }
    BlobStore::S3(S3Store::new(
        client,
        name.to_owned(),
        "",
        Writing::default(),
    ))
}

#[tokio::test]
async fn what_is_removed_leaves_no_version_and_what_is_locked_is_not_removed() {
    let rig = Rig::start().await;
    let object = key("packs/ab/1");
    let body = Bytes::from_static(b"x");
    let client = aws_sdk_s3::Client::from_conf(settings(rig.aws.address().unwrap()).build());
    let versions = async |bucket: &str| {
        let list = client.list_object_versions().bucket(bucket).send();
        let list = list.await.unwrap();
        (list.versions().len(), list.delete_markers().len())
    };
    let store = with_versions(&rig, false).await;
    store.put_whole(&object, body.clone()).await.unwrap();
    assert_eq!(versions("versions").await, (1, 0));
    store.delete(&object).await.unwrap();
    assert_eq!(versions("versions").await, (0, 0));
    store.put_whole(&object, body.clone()).await.unwrap();
    let honours = store.honours(&object).await.unwrap().unwrap();
    assert_eq!((honours.versions, &honours.object_lock), (true, &None));

    let store = with_versions(&rig, true).await;
    store.put_whole(&object, body).await.unwrap();
    let error = store.delete(&object).await.unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
    assert_eq!(versions("locked").await, (1, 0));
    assert_eq!(store.find_size(&object).await.unwrap(), Some(1));
    let honours = store.honours(&object).await;
    let locked = honours.unwrap().unwrap().object_lock;
    assert_eq!(locked.as_deref(), Some("COMPLIANCE for 1 days"));
}

#[tokio::test]
async fn a_server_says_what_it_honours() {
    let rig = Rig::start().await;
    let [dir, _, files] = &rig.stores;
    assert_eq!(dir.honours(&key("probe")).await.unwrap(), None);
    let honours = files.honours(&key("probe")).await.unwrap().unwrap();
    assert!(honours.checksums && !honours.versions, "{honours:?}");
    assert_eq!(honours.object_lock, None);
    assert_eq!(files.list(&key("probe"), None, 1).await.unwrap(), []);
    // Somebody else's objects are no business of a collector below its prefix.
    rig.files.object(BUCKET, "fleet/b/probe/1", "x").unwrap();
    assert_eq!(files.list(&key("probe"), None, 1).await.unwrap(), []);
}
