//! A real provider of OpenID Connect: `testkit/oidc/provider.mjs` in a process that ends with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};

/// What the collector is called there.
pub const CLIENT_ID: &str = "infratrack";
/// With characters that have to be encoded on the way (RFC 6749, section 2.3.1).
pub const CLIENT_SECRET: &str = "a secret: of the rig/+%";
/// It ends by itself after this, whatever became of the test.
const SECONDS: u32 = 300;

/// A running provider; killed when it is dropped.
#[derive(Debug)]
pub struct Provider {
    child: Child,
    // Held open: a process whose output nobody takes is ended by it.
    out: BufReader<ChildStdout>,
    pub issuer: String,
}

impl Provider {
    /// Starts it on a free port. Blocks until it listens.
    pub fn start(redirect_uri: &str) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.context("the crate lies in no workspace")?;
        let modules = root.join("target/oidc/node_modules");
        ensure!(
            modules.join("oidc-provider").exists(),
            "there is no {}: make deps-oidc",
            modules.display()
        );
        let mut child = Command::new("node")
            .arg(root.join("testkit/oidc/provider.mjs"))
            .arg(modules)
            .args([redirect_uri, &SECONDS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start node: make deps-oidc")?;
        let out = child.stdout.take().context("its output is a pipe")?;
        let mut provider = Self {
            child,
            out: BufReader::new(out),
            issuer: String::new(),
        };
        provider.out.read_line(&mut provider.issuer)?;
        provider.issuer.truncate(provider.issuer.trim_end().len());
        ensure!(
            provider.issuer.starts_with("http://127.0.0.1:"),
            "the provider did not start"
        );
        Ok(provider)
    }

    /// Ends it, as a fault.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
