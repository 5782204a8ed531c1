//! The committed `OpenAPI` document against the running listener: schemathesis makes requests of it, good and bad, and
//! compares every answer.

use std::path::Path;
use std::process::Stdio;

use infratrack_collector::secret::Source;
use tokio::process::Command;

use crate::harness::Collector;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let program = root.join("target/schemathesis/bin/schemathesis");
    assert!(
        program.exists(),
        "make deps-schemathesis installs {}",
        program.display()
    );
    let collector = Collector::start_with(|config| {
        let path = config.data_dir.join("token");
        std::fs::write(&path, TOKEN).unwrap();
        config.operators.admin_token_file = Some(Source::File(path));
        config.operators.requests_per_second = 100_000;
        config.operators.requests_burst = 100_000;
    })
    .await;
    for _ in 0..3 {
        let host = collector.host().await;
        let mut batch = host.batch(&collector);
        batch.heartbeat = Some(host.heartbeat(&collector));
        host.send(&collector, &batch).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(dir.path())
        .arg("--config-file")
        .arg(root.join("collector/tests/it/operators/schemathesis.toml"))
        .arg("run")
        .arg(root.join("collector/openapi.json"))
        .arg(format!(
            "--url=http://{}",
            collector.server.addresses.operators
        ))
        .arg(format!("--header=Authorization: Bearer {TOKEN}"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // It did call it.
    assert!(text.contains("passed"), "{text}");
}
