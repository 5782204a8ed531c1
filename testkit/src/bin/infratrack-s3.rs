//! `infratrack-s3`: a server of S3's protocol on files (`s3`), as a process of its own that tests can end.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use infratrack_testkit::s3;

#[derive(Debug, Parser)]
struct Arguments {
    /// Its folders are buckets
    dir: PathBuf,
    /// On which it listens
    address: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { dir, address } = Arguments::parse();
    s3::run(&dir, address).await
}
