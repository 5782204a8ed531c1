//! Canaries in every secret: wherever the collector is driven, none of them comes out again.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use infratrack_collector::ca::Ca;
use infratrack_testkit::clock::TestClock;
use infratrack_testkit::postgres::TestDatabase;
use rustls_pki_types::ServerName;

use crate::harness::eventually;
use crate::oidc::rig::Rig;
use crate::program::{Program, children, proc, url};
use crate::traces::receiver::{Manner, Receiver};

const DATABASE: &str = "canary-database-4fe1c0";
const CLIENT: &str = "canary-client-secret-91ab77";
const PASSWORD: &str = "canary password 6bd2f4";
const WRONG: &str = "canary wrong password 0c88d1";

/// What must not come out, and what came out where.
struct Watch {
    canaries: Vec<String>,
    seen: Vec<(String, String)>,
}

impl Watch {
    fn saw(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.seen.push((place.into(), text.into()));
    }

    fn verdict(&self) {
        for (place, text) in &self.seen {
            for canary in &self.canaries {
                assert!(!text.contains(canary), "{canary} came out: {place}: {text}");
            }
        }
    }
}

/// A line out of the middle of a PEM file: it is in no certificate.
fn line_of(pem: &str) -> String {
    pem.lines().nth(1).unwrap().to_owned()
}

/// A collector with a secret of each kind.
struct Rigged {
    program: Program,
    rig: Rig,
    spans: Receiver,
    certificate: String,
    watch: Watch,
}

async fn rigged(database: Option<&TestDatabase>, format: &'static str) -> Rigged {
    let rig = Rig::start().await;
    let mut program = Program::new("");
    program.format = format;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap()
        .pem();
    let data = program.path("data/ca");
    Ca::open_or_create(&data, "infratrack", TestClock::default().now()).unwrap();
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let watch = Watch {
        canaries: vec![
            DATABASE.to_owned(),
            CLIENT.to_owned(),
            PASSWORD.to_owned(),
            PASSWORD.replace(' ', "+"),
            WRONG.to_owned(),
            WRONG.replace(' ', "+"),
            line_of(&key.serialize_pem()),
            line_of(&read("issuing.key")),
            line_of(&read("root.key")),
        ],
        seen: Vec::new(),
    };
    let spans = Receiver::start(Manner::Take).await;
    let mut text = format!(
        "\n[operators]\nurl = \"https://localhost\"\ntls_certificate_file = {:?}\ntls_key_file = {:?}\n\
         [oidc]\nissuer = {:?}\nclient_id = \"infratrack\"\nclient_secret_file = {:?}\nroles = {{ sre = \"admin\" }}\n\
         [telemetry]\notlp_endpoint = {:?}\n",
        program.file("tls.pem", &certificate),
        program.file("tls.key", &key.serialize_pem()),
        rig.issuer,
        program.file("client-secret", CLIENT),
        spans.endpoint,
    );
    if let Some(database) = database {
        let path = program.file("database-url", &url(database, DATABASE));
        text.extend(["[database]\nurl_file = \"", &path, "\"\n"]);
    }
    program.configure(&text);
    Rigged {
        program,
        rig,
        spans,
        certificate,
        watch,
    }
}

impl Rigged {
    /// A request over TLS; what is answered is watched, but for cookies that are the browser's own.
    async fn ask(&mut self, to: SocketAddr, request: Request<String>) -> (u16, String) {
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        let certificate =
            rustls_pki_types::CertificateDer::from_pem_slice(self.certificate.as_bytes());
        roots.add(certificate.unwrap()).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(
            infratrack_collector::agents::tls::provider(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let place = format!("{} {}", request.method(), request.uri());
        let request = request.map(|body| Full::new(Bytes::from(body)));
        let (mut head, body) = sender.send_request(request).await.unwrap().into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        let cookie = head.headers.remove("set-cookie");
        self.watch.saw(place, format!("{:?}\n{text}", head.headers));
        let cookie = cookie.map(|cookie| {
            cookie
                .to_str()
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .to_owned()
        });
        (head.status.as_u16(), cookie.unwrap_or(text))
    }

    /// A subcommand; what it says is watched. Answers its standard output.
    fn run(&mut self, arguments: &[&str]) -> String {
        let output = self.program.run(arguments);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        self.watch.saw(
            format!("{arguments:?}"),
            format!("{out}\n{}", String::from_utf8_lossy(&output.stderr)),
        );
        out
    }

    /// Logins that succeed and fail, calls that may and may not be made, all over the place.
    async fn drive(&mut self, to: SocketAddr) -> u32 {
        let mut add =
            self.program
                .command(&["user", "add", "ada", "--role", "admin", "--password-stdin"]);
        let mut add = add.stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut add.stdin.take().unwrap(), PASSWORD.as_bytes()).unwrap();
        assert!(add.wait().unwrap().success());
        // What a token is made for: it is shown once, to who made it.
        let made = self.program.run(&["token", "admin"]);
        let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        self.watch.canaries.push(token.clone());
        self.watch
            .canaries
            .push(token.split('_').nth(2).unwrap().to_owned());
        let form = |body: String| {
            Request::post("/login")
                .header("host", "localhost")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
                .unwrap()
        };
        let login =
            |password: &str| form(format!("name=ada&password={}", password.replace(' ', "+")));
        let (status, session) = self.ask(to, login(PASSWORD)).await;
        assert_eq!(status, 303);
        self.watch
            .canaries
            .push(session.split_once('=').unwrap().1.to_owned());
        assert_eq!(self.ask(to, login(WRONG)).await.0, 401);
        assert_eq!(self.ask(to, form(format!("token={token}"))).await.0, 303);
        assert_eq!(self.ask(to, form(format!("token={token}x"))).await.0, 401);
        let mut refused = 0;
        for path in [
            "/hosts",
            "/login",
            "/metrics",
            "/api/v1/hosts",
            "/api/v1/hosts/nonsense",
            "/api/v1/hosts?limit=x",
            "/nowhere",
            "/health",
        ] {
            for (name, value) in [
                ("x-api-token", token.clone()),
                ("authorization", format!("Bearer {token}")),
                ("authorization", format!("Basic {token}")),
                ("cookie", session.clone()),
                ("x-api-token", format!("{token}0")),
            ] {
                let request = Request::get(path)
                    .header("host", "localhost")
                    .header(name, value);
                let (status, _) = self.ask(to, request.body(String::new()).unwrap()).await;
                refused += u32::from(status >= 400);
            }
        }
        // The wrong place for a secret, but people do it.
        let mixed = Request::post("/api/v1/enroll-tokens")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("x-api-token", &token)
            .body(format!("{{\"password\": \"{WRONG}\""))
            .unwrap();
        assert_eq!(self.ask(to, mixed).await.0, 422);
        refused
    }

    async fn log_in_by_provider(&mut self, to: SocketAddr) -> u16 {
        let begin = Request::get("/login/oidc").header("host", "localhost");
        let (status, cookie) = self.ask(to, begin.body(String::new()).unwrap()).await;
        if status != 303 {
            return status;
        }
        self.watch
            .canaries
            .push(cookie.split_once('=').unwrap().1.to_owned());
        let back = Request::get("/login/oidc/callback?state=x&code=canary-code")
            .header("host", "localhost")
            .header("cookie", cookie);
        self.ask(to, back.body(String::new()).unwrap()).await.0
    }

    fn watch_processes(&mut self, pids: &[u32], with_environment: bool) {
        for pid in pids {
            self.watch
                .saw(format!("cmdline of {pid}"), proc(*pid, "cmdline"));
            if with_environment {
                self.watch
                    .saw(format!("environ of {pid}"), proc(*pid, "environ"));
            }
        }
    }

    /// Configurations that are wrong in each secret.
    fn misconfigure(&mut self) {
        let wrong = self
            .program
            .file("wrong", &format!("postgres://a:{DATABASE}@127.0.0.1:1/x"));
        let nonsense = self
            .program
            .file("nonsense", &format!("{DATABASE} is no url: //\u{1}"));
        let no_key = self.program.file("no-key", CLIENT);
        let tls = self.program.path("tls.pem").display().to_string();
        for text in [
            format!("\n[database]\nurl_file = {wrong:?}\n"),
            format!("\n[database]\nurl_file = {nonsense:?}\n"),
            format!("\n[database]\nurl_file = {wrong:?}\n[ca]\nkey_file = {no_key:?}\n"),
            format!("\n[operators]\ntls_certificate_file = {tls:?}\ntls_key_file = {no_key:?}\n"),
        ] {
            self.program.configure(&text);
            let command = if text.contains("tls_key_file") || text.contains(&nonsense) {
                "serve"
            } else {
                "doctor"
            };
            self.run(&[command]);
            self.run(&["config", "show"]);
        }
    }

    fn verdict(mut self) {
        let (log, out) = (
            self.program.log(),
            std::fs::read_to_string(self.program.path("out")),
        );
        assert!(log.contains("request"), "nothing was logged");
        assert!(self.spans.spans().len() > 10, "nothing was traced");
        self.watch.saw("spans", self.spans.text());
        self.watch.saw("log", log);
        self.watch.saw("standard output", out.unwrap());
        self.watch.verdict();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_of_a_collector_whose_database_and_provider_fail() {
    let database = TestDatabase::create().await.unwrap();
    let mut it = rigged(Some(&database), "json").await;
    let mut running = it.program.serve();
    let to = it.program.listening().await.operators;
    assert!(it.drive(to).await > 10);
    eventually("the provider is known", async || {
        (it.rig.hits("jwks") > 0).then_some(())
    })
    .await;
    assert_eq!(it.log_in_by_provider(to).await, 400);
    it.watch_processes(&[running.pid()], true);
    for command in [
        &["config", "show"][..],
        &["doctor"],
        &["user", "list"],
        &["ca"],
    ] {
        it.run(command);
    }

    // The provider goes, then the database.
    it.rig.change(|ways| {
        ways.instead =
            Some(|| axum::response::IntoResponse::into_response(http::StatusCode::BAD_GATEWAY));
    });
    it.run(&["doctor"]);
    let pool = sqlx::PgPool::connect_with(database.connect_options().database("postgres"))
        .await
        .unwrap();
    let name = database
        .connect_options()
        .get_database()
        .unwrap()
        .to_owned();
    let sql = format!("alter database \"{name}\" with allow_connections false");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
        .bind(&name)
        .execute(&pool)
        .await
        .unwrap();
    let page = || {
        Request::get("/hosts")
            .header("host", "localhost")
            .header("cookie", "__Host-infratrack=00")
    };
    let (status, _) = it.ask(to, page().body(String::new()).unwrap()).await;
    assert_eq!(status, 503);
    it.run(&["doctor"]);
    pool.close().await;
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running
        .ended(std::time::Duration::from_secs(40))
        .await
        .unwrap();

    it.misconfigure();
    it.verdict();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_of_a_collector_with_a_postgres_of_its_own() {
    let mut it = rigged(None, "text").await;
    let mut running = it.program.serve();
    let to = it.program.listening().await.operators;
    assert!(it.drive(to).await > 10);
    let below = children(running.pid()).await;
    assert!(below.len() > 3, "{below:?}");
    it.watch_processes(&below, true);
    it.watch_processes(&[running.pid()], true);
    it.log_in_by_provider(to).await;
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running
        .ended(std::time::Duration::from_secs(40))
        .await
        .unwrap();
    it.verdict();
}

#[test]
fn a_url_in_the_environment_is_never_said() {
    let program = Program::new("");
    let url = format!("postgres://a:{DATABASE}@127.0.0.1:1/x");
    for arguments in [&["doctor"][..], &["migrate"], &["config", "show"]] {
        let mut command = program.command(arguments);
        let output = command.env("DATABASE_URL", &url).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&said).contains(DATABASE));
    }
}
