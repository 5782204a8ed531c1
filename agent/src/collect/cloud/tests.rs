//! Against a small HTTP server that holds to the token as Amazon's does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::Response;
use http::header::LOCATION;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::collect::fixture;

const THE_TOKEN: &str = "AQAEAE7-token==";
const DOCUMENT_TEXT: &str = r#"{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "eu-central-1b",
  "billingProducts" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "m7i.large",
  "pendingTime" : "2026-03-01T08:00:00Z",
  "privateIp" : "10.0.1.17",
  "region" : "eu-central-1",
  "version" : "2017-09-30"
}"#;

/// What the service has, and every request that came.
#[derive(Clone, Default)]
struct Metadata {
    values: HashMap<&'static str, String>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Metadata {
    fn instance() -> Self {
        let values = [
            ("/latest/meta-data/instance-id", "i-0123456789abcdef0"),
            ("/latest/meta-data/instance-type", "m7i.large"),
            ("/latest/meta-data/placement/region", "eu-central-1"),
            (
                "/latest/meta-data/placement/availability-zone",
                "eu-central-1b",
            ),
            ("/latest/meta-data/ami-id", "ami-0123456789abcdef0"),
            ("/latest/meta-data/local-ipv4", "10.0.1.17"),
            (DOCUMENT, DOCUMENT_TEXT),
        ];
        Self {
            values: values.map(|(path, value)| (path, value.to_owned())).into(),
            asked: Arc::default(),
        }
    }

    /// As the User Guide says: 400 where the token's life is missing, 401 where the token is.
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} {path}", request.method()));
        let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
        let answer = |status: StatusCode, text: &str| {
            let mut answer = Response::new(Full::from(text.to_owned()));
            *answer.status_mut() = status;
            answer
        };
        if path == "/latest/api/token" {
            let seconds: Option<u32> = header(TOKEN_TTL).and_then(|ttl| ttl.parse().ok());
            let is_valid = request.method() == Method::PUT
                && seconds.is_some_and(|seconds| (1..=21_600).contains(&seconds));
            return match self.values.get("/latest/api/token") {
                _ if !is_valid => answer(StatusCode::BAD_REQUEST, ""),
                Some(token) => answer(StatusCode::OK, token),
                None => answer(StatusCode::OK, THE_TOKEN),
            };
        }
        if header(TOKEN) != Some(THE_TOKEN) {
            return answer(StatusCode::UNAUTHORIZED, "");
        }
        match self.values.get(path).map(String::as_str) {
            Some("redirect") => {
                let mut elsewhere = answer(StatusCode::FOUND, "");
                let to = HeaderValue::from_static("/latest/meta-data/instance-id");
                elsewhere.headers_mut().insert(LOCATION, to);
                elsewhere
            }
            Some(value) => answer(StatusCode::OK, value),
            None => answer(StatusCode::NOT_FOUND, "<html>404 - Not Found</html>"),
        }
    }

    /// Serves until the test ends; the URL to configure.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let metadata = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let metadata = metadata.clone();
                let service = service_fn(move |request| {
                    let answer = metadata.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = server::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        url
    }
}

async fn told(metadata: &Metadata) -> Result<serde_json::Value, Reason> {
    let url = metadata.serve().await;
    Ok(fixture::json(&collect(&url).await?))
}

#[tokio::test]
async fn an_instance_says_who_it_is_and_leaves_out_the_address_it_does_not_have() {
    let metadata = Metadata::instance();
    let expected = json!({
        "provider": "aws",
        "instance_id": "i-0123456789abcdef0",
        "instance_type": "m7i.large",
        "region": "eu-central-1",
        "availability_zone": "eu-central-1b",
        "image_id": "ami-0123456789abcdef0",
        "local_ipv4": "10.0.1.17",
        "account_id": "123456789012",
    });
    assert_eq!(told(&metadata).await, Ok(expected));
    let asked = metadata.asked.lock().unwrap().clone();
    assert_eq!(
        asked.first().map(String::as_str),
        Some("PUT /latest/api/token")
    );
    assert_eq!(asked.len(), 9, "{asked:?}");
}

#[tokio::test]
async fn the_server_of_these_tests_refuses_who_comes_without_a_token() {
    let url = Metadata::instance().serve().await;
    let service = Service::new(&url).unwrap();
    let path = "/latest/meta-data/instance-id";
    let wrong = HeaderValue::from_static("wrong");
    let refused = service.find(path, &wrong).await;
    assert_eq!(refused, Err(format!("{path}: 401 Unauthorized")));
    let no_life = (TOKEN, wrong);
    let (status, _) = service
        .ask(Method::PUT, "/latest/api/token", no_life)
        .await
        .unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut metadata = Metadata::instance();
    let path = "/latest/meta-data/ami-id";
    metadata.values.insert(path, "redirect".to_owned());
    assert_eq!(told(&metadata).await, Err(format!("{path}: 302 Found")));
    let asked = metadata.asked.lock().unwrap().clone();
    assert_eq!(asked.last(), Some(&format!("GET {path}")));
}

#[tokio::test]
async fn what_is_no_value_is_a_reason() {
    let path = "/latest/meta-data/instance-type";
    for (text, expected) in [
        ("<html> a page", "no value"),
        ("", "no value"),
        (&"x".repeat(VALUE_BYTES + 1), "no value"),
        (&"x".repeat(BODY_BYTES + 1), "cannot be read: length limit"),
    ] {
        let mut metadata = Metadata::instance();
        metadata.values.insert(path, text.to_owned());
        let reason = told(&metadata).await.unwrap_err();
        assert!(
            reason.starts_with(path) && reason.contains(expected),
            "{reason}"
        );
    }
    for document in ["not JSON", r#"{"accountId": 7}"#, r#"{"accountId": "a b"}"#] {
        let mut metadata = Metadata::instance();
        metadata.values.insert(DOCUMENT, document.to_owned());
        let reason = told(&metadata).await.unwrap_err();
        assert!(reason.starts_with(DOCUMENT), "{reason}");
    }
    let mut metadata = Metadata::instance();
    metadata
        .values
        .insert("/latest/api/token", "a\nb".to_owned());
    let reason = told(&metadata).await.unwrap_err();
    assert_eq!(reason, "the metadata service's token is none");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_the_connection_and_says_nothing_is_left_after_its_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let reason = collect(&url).await.unwrap_err();
    assert_eq!(reason, "/latest/api/token: no answer within 2000 ms");
}

#[tokio::test]
async fn where_nobody_listens_there_is_a_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let reason = collect(&url).await.unwrap_err();
    assert!(reason.starts_with("/latest/api/token: cannot connect to 127.0.0.1:"));
}

#[test]
fn the_address_is_that_of_a_host_over_plain_http_and_nothing_else() {
    let told = |service: &str| address(service).map(|(address, _)| address).ok();
    assert_eq!(
        told("http://169.254.169.254").as_deref(),
        Some("169.254.169.254:80")
    );
    assert_eq!(
        told("http://[fd00:ec2::254]/").as_deref(),
        Some("[fd00:ec2::254]:80")
    );
    assert_eq!(
        told("http://imds.example:8080").as_deref(),
        Some("imds.example:8080")
    );
    for service in [
        "",
        "169.254.169.254",
        "https://169.254.169.254",
        "http://169.254.169.254/latest",
        "http://169.254.169.254/?a",
        "http://user:word@169.254.169.254",
        "/latest",
    ] {
        assert_eq!(told(service), None, "{service}");
    }
}
