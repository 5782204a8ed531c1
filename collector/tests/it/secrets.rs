//! Secrets from where they are kept: files, systemd's credentials, AWS.

use infratrack_agent::identity::Identity;
use infratrack_collector::ca::Ca;
use infratrack_shared::token::EnrollToken;
use infratrack_testkit::aws::Aws;
use infratrack_testkit::clock::TestClock;
use infratrack_testkit::postgres::TestDatabase;

use crate::harness::{Host, enroll_at, send};
use crate::program::{Program, url};

pub(crate) async fn aws() -> Aws {
    tokio::task::spawn_blocking(Aws::start)
        .await
        .unwrap()
        .unwrap()
}

/// A CA as one text: key and certificate of the issuing CA, and the root.
pub(crate) fn authority() -> String {
    let dir = tempfile::tempdir().unwrap();
    Ca::open_or_create(dir.path(), "infratrack", TestClock::default().now()).unwrap();
    ["issuing.key", "issuing.pem", "root.pem"]
        .map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap())
        .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_share_a_ca_and_a_database_by_aws_and_no_files() {
    let aws = aws().await;
    let database = TestDatabase::create().await.unwrap();
    let arn = aws.secret("infratrack/ca", &authority()).await.unwrap();
    let document = serde_json::json!({ "url": url(&database, "none") }).to_string();
    aws.secret("infratrack/database", &document).await.unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    aws.parameter("/infratrack/tls-key", &key.serialize_pem())
        .await
        .unwrap();
    let programs = [(); 2].map(|()| {
        let mut program = Program::new("");
        let path = program.file("tls.pem", &certificate.pem());
        program.configure(&format!(
            "\n[ca]\nkey_file = \"aws-sm:{arn}\"\n[database]\nurl_file = \"aws-sm:infratrack/database#url\"\n\
             [operators]\ntls_certificate_file = {path:?}\ntls_key_file = \"aws-ssm:/infratrack/tls-key\"\n"
        ));
        program.environment.extend(aws.environment());
        program
    });
    let _running = [programs[0].serve(), programs[1].serve()];
    let first = programs[0].listening().await;
    let second = programs[1].listening().await;
    for program in &programs {
        assert!(!program.path("data/ca/issuing.key").exists());
        assert!(!program.path("data/ca/root.key").exists());
    }
    let shown = |program: &Program| {
        let shown = String::from_utf8(program.run(&["ca"]).stdout).unwrap();
        let pin = shown.lines().find(|line| line.starts_with("root key pin"));
        pin.unwrap().to_owned()
    };
    assert_eq!(shown(&programs[0]), shown(&programs[1]));

    // A host that one of them enrolled is known to the other.
    let made = programs[0].run(&["token", "enroll"]);
    let token: EnrollToken = String::from_utf8(made.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    enroll_at(first.enroll, &identity, &token).await.unwrap();
    let host = Host::of(identity, dir);
    let endpoint = host.endpoint_at(second.agents);
    let mut connection = infratrack_agent::uplink::Connection::open(&endpoint)
        .await
        .unwrap();
    let batch = host.batch_at(TestClock::default().clock().unix_millis());
    send(&mut connection, &batch).await.unwrap();

    let doctor = programs[1].run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    // The test's Postgres is none that doctor would call safe, and this machine's disk may be nearly full.
    let expected = ["FAIL database settings: fsync", "FAIL disk space: "];
    let mut wrong = said.lines().filter(|line| line.starts_with("FAIL"));
    assert!(
        wrong.all(|line| expected.iter().any(|begin| line.starts_with(begin))),
        "{said}"
    );
    assert!(said.contains("ok   certificate authority"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_or_empty_stops_the_start_with_its_name_and_64() {
    let aws = aws().await;
    aws.secret("text", "canary-text").await.unwrap();
    aws.secret("document", r#"{"other":"canary-member"}"#)
        .await
        .unwrap();
    aws.parameter("/blank", " ").await.unwrap();
    let mut program = Program::new("");
    program.environment.extend(aws.environment());
    let blank = program.file("blank", "\n");
    let refused = |place: &str, why: &str| {
        program.configure(&format!("\n[database]\nurl_file = {place:?}\n"));
        let output = program.run(&["serve"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{place}: {said}");
        let begins = format!("database.url_file: the secret {place} {why}");
        assert!(said.contains(&begins), "{place}: {said}");
        assert!(!said.contains("canary"), "{said}");
    };
    refused(&blank, "is empty");
    refused("/nowhere/secret", "can't be read");
    refused(
        "credential:nothing",
        "can't be had: there is no $CREDENTIALS_DIRECTORY",
    );
    refused(
        "aws-sm:nothing",
        "can't be had from AWS: ResourceNotFoundException",
    );
    refused("aws-sm:text#key", "is no JSON object");
    refused("aws-sm:document#key", "has no text under \"key\"");
    refused(
        "aws-ssm:/nothing",
        "can't be had from AWS: ParameterNotFound",
    );
    refused("aws-ssm:/blank", "is empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_that_does_not_answer_stops_the_start_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let mut program = Program::new("\n[database]\nurl_file = \"aws-sm:any\"\n");
    let begun = std::time::Instant::now();
    program.environment = vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
    ];
    let output = program.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("can't be had from AWS"), "{said}");
    let took = begun.elapsed();
    assert!((10..25).contains(&took.as_secs()), "{took:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_systemd_are_found_by_their_names() {
    let database = TestDatabase::create().await.unwrap();
    let mut program = Program::new("");
    program.file("database-url", &url(&database, "none"));
    program.file("ca-key", &authority());
    let dir = program.dir.path().display().to_string();
    program.environment.push(("CREDENTIALS_DIRECTORY", dir));
    let _running = program.serve();
    program.listening().await;
    assert!(!program.path("data/ca/issuing.key").exists());
    assert!(!program.path("data/postgres").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_others_can_read_is_warned_of_with_what_mends_it() {
    use std::os::unix::fs::PermissionsExt;
    let database = TestDatabase::create().await.unwrap();
    let program = Program::new("");
    let path = program.file("url", &url(&database, "none"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    program.configure(&format!("\n[database]\nurl_file = {path:?}\n"));
    let output = program.run(&["migrate"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let mend = format!("chmod 600 {path}");
    assert!(said.contains(&mend) && said.contains("mode 640"), "{said}");
}

#[test]
fn a_ca_whose_key_is_not_among_those_given_is_refused() {
    let program = Program::new("");
    let path = program.file("ca-key", &authority());
    Ca::open_or_create(
        &program.path("data/ca"),
        "infratrack",
        TestClock::default().now(),
    )
    .unwrap();
    std::fs::remove_file(program.path("data/ca/issuing.key")).unwrap();
    program.configure(&format!("\n[ca]\nkey_file = {path:?}\n"));
    let output = program.run(&["ca"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ca.key_file has no key of"), "{said}");
}
