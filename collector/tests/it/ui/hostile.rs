//! Whatever a host says of itself shows as text on every page, and opens as text in a spreadsheet.

use http::Method;
use infratrack_agent::enroll;
use infratrack_agent::identity::Identity;
use infratrack_collector::agents::enroll::TokenOptions;
use infratrack_shared::digest::Digest;
use infratrack_shared::ids::BootId;
use infratrack_shared::wire::batch::{Class, Part, StatePart};
use infratrack_shared::wire::heartbeat::{AgentUsage, FilesystemUsage, Unknown};
use serde_json::json;

use crate::changes::documents::change_of;
use crate::harness::{Collector, Host, eventually, record};

use super::{collector, pages, play};
use crate::volumes::volume_of;

/// Markup that would run, end what it stands in, or load something; a formula; text that turns what follows around.
const MARKUP: &str =
    "\"'><img src=x onerror=window.struck=1 data-struck><script>window.struck=2</script>{{7*7}}";
const FORMULA: &str = "=cmd|' /C calc'!A0";
const TURNED: &str = "\u{202e}gpj.exe\u{2066}\u{7}\u{1b}[31m\u{0}";

fn hostile() -> Vec<String> {
    let long = format!("{MARKUP}{}", "W".repeat(64 * 1024 - MARKUP.len()));
    vec![
        MARKUP.to_owned(),
        FORMULA.to_owned(),
        TURNED.to_owned(),
        long,
    ]
}

/// A host whose every field is hostile.
async fn host(collector: &Collector, name: &str) -> Host {
    let token = collector.token(TokenOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    let address = collector.server.addresses.enroll.to_string();
    let said = enroll::Host {
        hostname: name.to_owned(),
        boot_id: BootId::random(),
        machine_id: Some(name.chars().take(60).collect()),
    };
    enroll::enroll(&identity, &address, &token, &said)
        .await
        .unwrap();
    let host = Host::of(identity, dir);
    let at = collector.clock.clock().unix_millis();
    let mut batch = host.batch(collector);
    let mut heartbeat = host.heartbeat(collector);
    heartbeat.agent = AgentUsage {
        version: TURNED.to_owned(),
        ..AgentUsage::default()
    };
    heartbeat.filesystems = hostile()
        .into_iter()
        .map(|mount| FilesystemUsage {
            mount,
            total_bytes: 100,
            available_bytes: 1,
            ..FilesystemUsage::default()
        })
        .collect();
    heartbeat.unknown = vec![Unknown {
        field: MARKUP.to_owned(),
        reason: MARKUP.to_owned(),
    }];
    batch.heartbeat = Some(heartbeat);
    let records = hostile().into_iter().zip(1..).map(|(text, seq)| {
        let kind: String = text.chars().take(64).collect();
        let body = vec![(rmpv::Value::from(MARKUP), rmpv::Value::from(text))];
        record(seq, &kind, rmpv::Value::Map(body), at)
    });
    batch.parts = vec![Part {
        class: Class::Critical,
        first_seq: 1,
        lost: Vec::new(),
        records: records.collect(),
    }];
    let keys = ["identity", "os", "hardware", "network"];
    batch.state = hostile()
        .into_iter()
        .zip(keys)
        .map(|(text, key)| {
            let fields = ["hostname", "name", "pretty_name", "kernel", MARKUP];
            let value = rmpv::Value::from(text);
            let body = fields.map(|field| (rmpv::Value::from(field), value.clone()));
            let body = rmpv::Value::Map(body.to_vec());
            StatePart {
                key: format!("facts.{key}"),
                version: 1,
                base_hash: None,
                new_hash: Digest::of(key.as_bytes()),
                part: 0,
                parts: 1,
                body,
            }
        })
        .collect();
    host.send(collector, &batch).await.unwrap();
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hosts_say_of_themselves_shows_as_text_on_every_page() {
    let collector = collector().await;
    let mut last = None;
    for name in [MARKUP, FORMULA, TURNED] {
        last = Some(host(&collector, name).await);
    }
    let id = last.unwrap().id.to_string();
    let path = format!("/api/v1/hosts/{id}/facts");
    eventually("the facts to be there", || async {
        let facts = collector.get(&path).await;
        facts.to_string().contains("window.struck").then_some(())
    })
    .await;
    let mut change = change_of(&collector, MARKUP).await;
    let (_, long) = change_of(&collector, &hostile().pop().unwrap()).await;
    change.1.extend(long);
    let volume = volume_of(&collector, &id, MARKUP).await;
    let paths = pages(&id, &change, &volume);
    let job =
        json!({ "paths": paths, "fleet": "hostile", "themes": ["light"], "script_only": true });
    play(&collector, "every", job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spreadsheet_opens_no_name_as_a_formula() {
    let collector = Collector::start().await;
    for start in ['=', '+', '-', '@', '\t', '\r'] {
        host(&collector, &format!("{start}cmd|' /C calc'!A0")).await;
    }
    let path = "/api/v1/hosts?format=csv";
    let request = http::Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", "test")
        .header("authorization", format!("Bearer {}", collector.admin_token))
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = collector.request(request).await;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    assert!(answer.status().is_success(), "{text}");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut seen = 0;
    for row in reader.records() {
        for field in &row.unwrap() {
            let is_formula =
                field.starts_with(['=', '+', '@', '\t', '\r']) || field.starts_with("-c");
            assert!(!is_formula, "{field:?}");
            seen += usize::from(field.contains("cmd|"));
        }
    }
    assert!(seen >= 6, "{text}");
}
