//! S3 as a collector uses it: inventories from it, and blobs that several collectors share.

use infratrack_agent::identity::Identity;
use infratrack_shared::token::EnrollToken;
use infratrack_testkit::aws::Aws;
use infratrack_testkit::operators::Operators;
use infratrack_testkit::postgres::TestDatabase;
use serde_json::json;

use crate::harness::{enroll_at, eventually};
use crate::program::{Program, url};
use crate::secrets::{authority, aws};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A program's standard output and errors.
fn said(program: &Program, arguments: &[&str]) -> String {
    let output = program.run(arguments);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A configured source in S3.
fn source(name: &str, place: &str, more: &str) -> String {
    format!(
        "[[inventory.sources]]\nname = {name:?}\nkind = \"csv\"\ns3 = \"s3://{place}\"\n{more}\n"
    )
}

/// A bucket `fleet` with a table of two hosts and one that is too long.
async fn fleet() -> Aws {
    let aws = aws().await;
    aws.bucket("fleet").await.unwrap();
    let table = "name,addresses\na,10.0.0.1\nb,10.0.0.2\n";
    aws.object("fleet", "hosts/all.csv", table).await.unwrap();
    let long = "x".repeat(16 * 1024 * 1024 + 1);
    aws.object("fleet", "long.csv", long).await.unwrap();
    aws
}

#[tokio::test(flavor = "multi_thread")]
async fn advisories_are_read_from_s3_and_a_feed_without_its_object_says_so() {
    let aws = fleet().await;
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/advisories/");
    let tracker = std::fs::read_to_string(format!("{fixtures}tracker.json")).unwrap();
    aws.object("fleet", "tracker.json", tracker).await.unwrap();
    let database = TestDatabase::create().await.unwrap();
    let mut program = Program::new("");
    let path = program.file("url", &url(&database, "none"));
    let token = program.file("token", TOKEN);
    let feed = |name: &str, object: &str| {
        format!(
            "[[advisories.feeds]]\nname = {name:?}\nformat = \"debian-tracker\"\nlocation = \"s3://fleet/{object}\"\n"
        )
    };
    program.configure(&format!(
        "\n[database]\nurl_file = {path:?}\n[operators]\nadmin_token_file = {token:?}\n{}{}",
        feed("there", "tracker.json"),
        feed("gone", "nothing.json"),
    ));
    program.environment.extend(aws.environment());
    let _running = program.serve();
    let operators = Operators {
        address: program.listening().await.operators,
        token: TOKEN.to_owned(),
    };
    let feeds = eventually("both feeds", || async {
        let (_, list) = operators.get("/api/v1/advisories/feeds").await.ok()?;
        let list: serde_json::Value = serde_json::from_slice(&list).ok()?;
        let is_done =
            |feed: &serde_json::Value| feed["imported_at"].is_string() || feed["error"].is_string();
        let feeds = list["items"].as_array()?.clone();
        (feeds.len() == 2 && feeds.iter().all(is_done)).then_some(feeds)
    })
    .await;
    let of = |name: &str| feeds.iter().find(|feed| feed["name"] == name).unwrap();
    assert!(
        of("there")["statement_count"].as_i64() > Some(0),
        "{feeds:?}"
    );
    assert!(of("there")["error"].is_null(), "{feeds:?}");
    let error = of("gone")["error"].as_str().unwrap();
    assert!(error.contains("nothing.json"), "{feeds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_is_read_from_s3_by_name_and_by_its_interval() {
    let aws = fleet().await;
    let database = TestDatabase::create().await.unwrap();
    let mut program = Program::new("");
    let path = program.file("url", &url(&database, "none"));
    let token = program.file("token", TOKEN);
    program.configure(&format!(
        "\n[database]\nurl_file = {path:?}\n[operators]\nadmin_token_file = {token:?}\n{}{}{}{}",
        source("own", "fleet/hosts/all.csv", "interval = \"10s\""),
        source("asked", "fleet/hosts/all.csv", ""),
        source("long", "fleet/long.csv", ""),
        source("missing", "fleet/nothing.csv", ""),
    ));
    program.environment.extend(aws.environment());
    let _running = program.serve();
    let operators = Operators {
        address: program.listening().await.operators,
        token: TOKEN.to_owned(),
    };
    eventually("the sync by interval", || async {
        let (_, list) = operators.get("/api/v1/inventory/sources").await.ok()?;
        let list = String::from_utf8_lossy(&list).into_owned();
        list.contains("\"own\"").then_some(())
    })
    .await;
    let sync = async |from: &str| {
        let path = format!("/api/v1/inventory/sync?dry_run=true&from={from}");
        operators.create(&path, &json!({})).await
    };
    let (_, page) = operators.get("/inventory").await.unwrap();
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(
        page.contains("<code>s3://fleet/hosts/all.csv</code>"),
        "{page}"
    );
    let report = sync("asked").await.unwrap();
    let counts = (&report["entries"], &report["unchanged"]);
    assert_eq!(counts, (&json!(2), &json!(2)), "{report}");
    let error = sync("long").await.unwrap_err().to_string();
    assert!(error.contains("has over 16777216 bytes"), "{error}");
    let error = sync("missing").await.unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
    assert!(error.contains("the source cannot be read"), "{error}");
    let log = program.log();
    let words = "cannot read s3://fleet/nothing.csv: NoSuchKey: ";
    assert!(log.contains(words), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_reads_what_is_in_s3_and_says_what_to_do() {
    let aws = fleet().await;
    let mut program = Program::new(&format!(
        "\n{}{}{}{}",
        source("own", "fleet/hosts/all.csv", ""),
        source("long", "fleet/long.csv", ""),
        source("missing", "fleet/nothing.csv", ""),
        source("nowhere", "nowhere/x", ""),
    ));
    program.environment.extend(aws.environment());
    let doctor = said(&program, &["doctor"]);
    for words in [
        "ok   inventory: own: 37 bytes, 2 hosts",
        "FAIL inventory: long: the document has over 16777216 bytes",
        "FAIL inventory: missing: cannot read s3://fleet/nothing.csv: NoSuchKey: ",
        "put the object there, or correct its key",
        "FAIL inventory: nowhere: cannot read s3://nowhere/x: NoSuchBucket: ",
        "make the bucket, or correct its name",
    ] {
        assert!(doctor.contains(words), "{words}: {doctor}");
    }
    aws.refuse().await.unwrap();
    let doctor = said(&program, &["doctor"]);
    assert!(doctor.contains("all.csv: InvalidAccessKeyId: "), "{doctor}");
    assert!(doctor.contains("renew the credentials"), "{doctor}");
    assert!(!doctor.contains("testing"), "{doctor}");
    let is_credential = |name: &str| name.contains("KEY");
    program.environment.retain(|(name, _)| !is_credential(name));
    let nowhere = program.path("nowhere").display().to_string();
    let none = ("AWS_SHARED_CREDENTIALS_FILE", nowhere);
    program.environment.push(none);
    let doctor = said(&program, &["doctor"]);
    let words = "give this collector credentials";
    assert!(doctor.contains(words), "{doctor}");
}

#[test]
fn a_source_that_names_no_place_or_two_stops_the_start_with_its_field_and_64() {
    let program = Program::new("");
    for (place, words) in [
        ("", "\"prod\" has neither file nor s3"),
        (
            "file = \"/x\"\ns3 = \"s3://b/k\"",
            "\"prod\" has both file and s3",
        ),
        ("file = \"\"", "the file of \"prod\" is empty"),
        ("s3 = \"\"", "the s3 of \"prod\" is not of the form"),
        (
            "s3 = \"https://b/k\"",
            "the s3 of \"prod\" is not of the form s3://bucket/key",
        ),
        ("s3 = \"s3:///k\"", "the s3 of \"prod\" names no bucket"),
        ("s3 = \"s3://b/\"", "the s3 of \"prod\" names no key"),
        (
            "s3 = \"s3://id:canary@b/k\"",
            "the s3 of \"prod\" names no bucket",
        ),
    ] {
        program.configure(&format!(
            "\n[[inventory.sources]]\nname = \"prod\"\nkind = \"csv\"\n{place}\n"
        ));
        let output = program.run(&["serve"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{place}: {said}");
        assert!(said.contains("inventory.sources"), "{place}: {said}");
        // As the log's JSON has it, or as it is.
        let plain = said.replace('\\', "");
        assert!(plain.contains(words), "{place}: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
    program.configure("\n[s3]\nbucket = \"a/b\"\n");
    let output = program.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("s3.bucket"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_on_one_database_share_checkpoints_and_the_cas_log_by_a_bucket() {
    let aws = aws().await;
    aws.bucket("blobs").await.unwrap();
    let (database, restored) = (
        TestDatabase::create().await.unwrap(),
        TestDatabase::create().await.unwrap(),
    );
    let keys = authority();
    let program = |database: &TestDatabase| {
        let mut program = Program::new("");
        let key = program.file("ca-key", &keys);
        let path = program.file("url", &url(database, "none"));
        program.configure(&format!(
            "\n[s3]\nbucket = \"blobs\"\nprefix = \"prod\"\n[ca]\nkey_file = {key:?}\n[database]\nurl_file = {path:?}\n\
             [jobs.intervals]\naudit_checkpoint = \"500ms\"\nca_log = \"500ms\"\n"
        ));
        program.environment.extend(aws.environment());
        program
    };
    let (first, second) = (program(&database), program(&database));
    let _running = [first.serve(), second.serve()];
    let listening = first.listening().await;
    second.listening().await;
    let made = first.run(&["token", "enroll"]).stdout;
    let token: EnrollToken = String::from_utf8(made).unwrap().trim().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    enroll_at(listening.enroll, &identity, &token)
        .await
        .unwrap();
    eventually("checkpoint and log in the bucket", || async {
        let keys = aws.keys("blobs").await.unwrap();
        let has = |prefix: &str| keys.iter().any(|key| key.starts_with(prefix));
        (has("prod/audit-checkpoints/") && has("prod/ca-log/")).then_some(())
    })
    .await;
    for program in [&first, &second] {
        assert!(!program.path("data/blobs").exists());
        let verified = program.run(&["audit", "verify"]);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(verified.status.success(), "{said}");
        assert!(said.contains("checkpoints that agree:   "), "{said}");
        assert!(!said.contains("checkpoints that agree:   0"), "{said}");
    }
    let doctor = said(&first, &["doctor"]);
    assert!(
        doctor.contains("ok   blob store: s3://blobs/prod takes, keeps"),
        "{doctor}"
    );
    let keys = aws.keys("blobs").await.unwrap();
    assert!(
        keys.iter().all(|key| !key.contains("doctor")),
        "what the doctor wrote is left: {keys:?}"
    );
    // A database that forgot it all learns it from the bucket.
    let third = program(&restored);
    let _restored = third.serve();
    third.listening().await;
    let log = third.log();
    let words = "the CA's log knew what the database did not";
    assert!(log.contains(words), "{log}");
    aws.refuse().await.unwrap();
    let doctor = said(&first, &["doctor"]);
    assert!(
        doctor.contains("FAIL blob store: cannot store s3://blobs/prod/doctor/"),
        "{doctor}"
    );
    assert!(doctor.contains("renew the credentials"), "{doctor}");
}
