//! A server of S3's protocol in this process, on files: signatures, checksums and conditional writes are real. It has no
//! versions and no locks; [`crate::aws`] has.

use std::net::SocketAddr;
use std::path::Path;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::S3Result;
use s3s::auth::SimpleAuth;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Both halves of the credentials.
const KEY: &str = "testing";

/// Buckets by the names of this host too: `fleet.localhost` is the bucket `fleet`.
struct Local;

impl S3Host for Local {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let whole = VirtualHost::new(host);
        Ok(match name.strip_suffix(".localhost") {
            Some(bucket) => whole.with_bucket(bucket),
            None => whole,
        })
    }
}

/// A running server, which ends with this.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    dir: TempDir,
    _serving: JoinSet<()>,
}

impl S3 {
    /// Starts it on a free port, with the credentials `testing` and `testing`.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(service(dir.path())?, listener));
        Ok(Self {
            address,
            dir,
            _serving: serving,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a program needs in its environment to find it, and nothing of the real one.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ]
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::create_dir(self.dir.path().join(name))?)
    }

    /// The bytes of a bucket's objects.
    pub fn stored_bytes(&self, bucket: &str) -> anyhow::Result<u64> {
        let mut sum = 0;
        let mut folders = vec![self.dir.path().join(bucket)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    sum += meta.len();
                }
            }
        }
        Ok(sum)
    }

    /// Puts an object into a bucket, past the protocol.
    pub fn object(&self, bucket: &str, key: &str, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let path = self.dir.path().join(bucket).join(key);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, bytes)?)
    }
}

/// Serves the files below a directory, whose folders are buckets, as long as this process lives.
pub async fn run(dir: &Path, address: SocketAddr) -> anyhow::Result<()> {
    serve(service(dir)?, TcpListener::bind(address).await?).await;
    Ok(())
}

fn service(dir: &Path) -> anyhow::Result<S3Service> {
    let files = FileSystem::new(dir).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(KEY, KEY));
    builder.set_host(Local);
    Ok(builder.build())
}

async fn serve(service: S3Service, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
        connections.spawn(served);
        // What has ended is not kept.
        while connections.try_join_next().is_some() {}
    }
}
