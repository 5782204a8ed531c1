//! CSV and NDJSON: the same as the list, whole, and never held whole.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{call, fleet, made, walk};
use crate::harness::Collector;

fn lines(body: &Bytes) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_whole_list_in_its_order() {
    let collector = Collector::start().await;
    fleet(&collector, 6, 1203).await;
    for query in [
        "state=all",
        "state=all&sort=-name",
        "tag=role:web&sort=created_at",
        "owner=nobody",
    ] {
        // What the liveness job writes meanwhile is left out.
        let query = format!("{query}&fields=id,name,tags,owner,disk_used_ratio");
        let list = walk(&collector, &query, 500).await;
        let path = format!("/api/v1/hosts?{query}");
        let answer = call(
            &collector,
            Method::GET,
            &path,
            &[("accept", "application/x-ndjson")],
            "",
        )
        .await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        assert_eq!(lines(answer.body()), list, "{query}");
        let path = format!("{path}&format=csv");
        let answer = call(&collector, Method::GET, &path, &[], "").await;
        let mut reader = csv::Reader::from_reader(&answer.body()[..]);
        let header: Vec<_> = reader
            .headers()
            .unwrap()
            .iter()
            .map(str::to_owned)
            .collect();
        assert_eq!(header, ["id", "name", "tags", "owner", "disk_used_ratio"]);
        let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), list.len());
        for (row, host) in rows.iter().zip(&list) {
            assert_eq!(row[0], *host["id"].as_str().unwrap());
            let tags: Vec<_> = host["tags"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            assert_eq!(row[2], tags.join(";"));
            assert_eq!(row[3], *host["owner"].as_str().unwrap_or_default());
            let ratio = &host["disk_used_ratio"];
            assert_eq!(
                row[4],
                if ratio.is_null() {
                    String::new()
                } else {
                    ratio.to_string()
                }
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spreadsheet_would_run_is_text() {
    let collector = Collector::start().await;
    made(
        &collector,
        json!({"name": "=HYPERLINK(\"http://evil\",\"x\")", "owner": "@a, \"b\""}),
    )
    .await;
    let answer = call(
        &collector,
        Method::GET,
        "/api/v1/hosts?fields=name,owner",
        &[("accept", "text/csv")],
        "",
    )
    .await;
    let text = std::str::from_utf8(answer.body()).unwrap();
    assert_eq!(
        text,
        "name,owner\r\n\"'=HYPERLINK(\"\"http://evil\"\",\"\"x\"\")\",\"'@a, \"\"b\"\"\"\r\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_no_pages_and_no_sort_by_what_moves() {
    let collector = Collector::start().await;
    for (query, parameter) in [
        ("limit=5", "limit"),
        ("cursor=x", "cursor"),
        ("sort=cpu_ratio", "sort"),
    ] {
        let path = format!("/api/v1/hosts?format=csv&{query}");
        let (status, problem) = collector.api(Method::GET, &path, "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(problem["errors"][0]["parameter"], parameter);
    }
}

/// The first part of an export of 20,000 hosts; the rest waits for whoever reads it.
async fn begin(collector: &Collector) -> (Bytes, Incoming) {
    fleet(collector, 7, 20_000).await;
    let stream = tokio::net::TcpStream::connect(collector.server.addresses.operators)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("/api/v1/hosts?format=ndjson&state=all")
        .header("host", "test")
        .header("x-api-token", &collector.admin_token)
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    // Held open: the connection ends with its sender.
    std::mem::forget(sender);
    (first, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_reads_hosts_only_as_fast_as_they_are_taken() {
    let collector = Collector::start().await;
    let (first, rest) = begin(&collector).await;
    let sql = "delete from host_liveness";
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    let rest = rest.collect().await.unwrap().to_bytes();
    let count = lines(&Bytes::from([first, rest].concat())).len();
    assert!(
        (500..20_000).contains(&count),
        "{count} hosts had been read before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_half_way_does_not_look_whole() {
    let collector = Collector::start().await;
    let (_, rest) = begin(&collector).await;
    let sql = "alter table host_liveness rename to gone";
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    assert!(rest.collect().await.is_err());
}
