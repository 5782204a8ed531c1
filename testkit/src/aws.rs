//! AWS on this machine: moto in a process that ends with the test, with Secrets Manager, Systems Manager
//! and S3.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::request::Builder;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// Where it is.
const REGION: &str = "eu-central-1";

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub struct Aws {
    child: Child,
    address: String,
}

impl Aws {
    /// Starts it on a free port. Blocks until it listens.
    pub fn start() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.context("the crate lies in no workspace")?;
        let program = root.join("target/aws/bin/moto_server");
        let mut child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}: make deps-aws", program.display()))?;
        let err = child.stderr.take().context("its output is a pipe")?;
        let mut err = BufReader::new(err);
        let mut aws = Self {
            child,
            address: String::new(),
        };
        let mut line = String::new();
        while aws.address.is_empty() {
            line.clear();
            ensure!(err.read_line(&mut line)? > 0, "it did not start");
            if let Some((_, address)) = line.split_once("Running on http://") {
                address.trim().clone_into(&mut aws.address);
            }
        }
        // It has a line for every request: a process whose output nobody takes stands still.
        std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
        Ok(aws)
    }

    /// What a program needs in its environment to find it, and nothing of the real one.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ]
    }

    /// Puts a secret into Secrets Manager; answers its ARN.
    pub async fn secret(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let body = json!({
            "Name": name, "SecretString": text, "ClientRequestToken": "0".repeat(32),
        });
        let made = self.call("secretsmanager", "secretsmanager.CreateSecret", &body);
        let made = made.await?;
        let arn = made["ARN"].as_str().context("an ARN")?;
        Ok(arn.to_owned())
    }

    /// Puts a parameter into Systems Manager, encrypted.
    pub async fn parameter(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let body = json!({ "Name": name, "Value": text, "Type": "SecureString" });
        self.call("ssm", "AmazonSSM.PutParameter", &body).await?;
        Ok(())
    }

    /// Where S3 listens, and everything else.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.address.parse()?)
    }

    /// Makes a bucket of S3.
    pub async fn bucket(&self, name: &str) -> anyhow::Result<()> {
        let region = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        self.s3(Method::PUT, name, region).await.map(drop)
    }

    /// Puts an object into a bucket.
    pub async fn object(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<()> {
        let path = format!("{bucket}/{key}");
        self.s3(Method::PUT, &path, body).await.map(drop)
    }

    /// The keys in a bucket, at most 1000.
    pub async fn keys(&self, bucket: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("{bucket}?list-type=2");
        let list = self.s3(Method::GET, &path, "").await?;
        let list = String::from_utf8(list.to_vec())?;
        let keys = list.split("<Key>").skip(1);
        let key = |text: &str| text.split("</Key>").next().unwrap_or_default().to_owned();
        Ok(keys.map(key).collect())
    }

    /// From here on it asks who somebody is, and knows nobody.
    pub async fn refuse(&self) -> anyhow::Result<()> {
        let request = Request::post("/moto-api/reset-auth");
        self.send("s3", request, "0".into()).await.map(drop)
    }

    async fn s3(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Bytes> {
        let request = Request::builder().method(method).uri(format!("/{path}"));
        self.send("s3", request, body.into()).await
    }

    async fn call(&self, service: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::post("/")
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1");
        let answer = self.send(service, request, body.to_string().into());
        Ok(serde_json::from_slice(&answer.await?)?)
    }

    async fn send(&self, service: &str, request: Builder, body: Bytes) -> anyhow::Result<Bytes> {
        let stream = tokio::net::TcpStream::connect(&self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        // It tells services apart by this, and checks no signature.
        let credential = format!(
            "AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = request
            .header("host", &self.address)
            .header("authorization", credential)
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
