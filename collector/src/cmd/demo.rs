//! `infratrack-collector demo`: a collector with its private Postgres, and an agent on this machine.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use infratrack_collector::agents::enroll::{TokenOptions, create_token};
use infratrack_collector::audit::{Actor, Change, record};
use infratrack_collector::ca::write_secret;
use infratrack_collector::cli::Demo;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::password;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_collector::roles::Role;
use infratrack_collector::sample::{self, Fleet};
use infratrack_collector::server::{self, Server};
use infratrack_collector::store::users;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// An agent that ends by itself is started again after this.
const RESTART: Duration = Duration::from_secs(1);
/// The agent says its last words within 5 s.
const STOP: Duration = Duration::from_secs(10);

/// `demo.json`: what scripts need to talk to the demo.
#[derive(Debug, Serialize)]
struct Manifest {
    operator_url: String,
    agent_url: String,
    enroll_url: String,
    admin_token: String,
    /// Of the user `admin`; null where somebody gave it another.
    admin_password: Option<String>,
    ca_file: PathBuf,
    enroll_token: String,
    agent_host_id: String,
}

/// What the demo's agent is told, as in its `agent.toml`.
#[derive(Debug, Serialize)]
struct AgentSettings {
    state_dir: PathBuf,
    facts_dir: PathBuf,
    endpoints: Vec<String>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(mut config: Config, arguments: Demo) -> anyhow::Result<()> {
    std::fs::create_dir_all(&arguments.data_dir)
        .with_context(|| format!("cannot make {}", arguments.data_dir.display()))?;
    let data_dir = std::fs::canonicalize(&arguments.data_dir)?;
    config.data_dir.clone_from(&data_dir);
    config.operators.listen = arguments.operator_listen;
    config.agents.listen = arguments.agent_listen;
    config.enroll.listen = arguments.enroll_listen;
    let mut postgres = PrivatePostgres::start(&data_dir, &[]).await?;
    let ran = demo(config, &data_dir, &mut postgres, arguments.sample).await;
    postgres.stop().await;
    ran
}

async fn demo(
    config: Config,
    dir: &Path,
    postgres: &mut PrivatePostgres,
    with_sample: bool,
) -> anyhow::Result<()> {
    let options = postgres.connect_options();
    server::migrate(options.clone()).await?;
    let pool = server::connect(options, &config).await?;
    let server = Server::start(config, Clock::system(), pool).await?;
    let prepared = prepare(&server, dir, with_sample).await;
    let asked = match prepared {
        Ok(agent) => {
            let asked = super::asked_to_stop(Some(postgres)).await;
            agent.stop().await;
            asked
        }
        Err(error) => Err(error),
    };
    server.stop().await;
    asked
}

/// Tokens, the agent, `demo.json`, and the lines for people.
async fn prepare(server: &Server, dir: &Path, with_sample: bool) -> anyhow::Result<Agent> {
    let app = &server.app;
    let admin_token = admin_token(server, dir).await?;
    let admin_password = admin_password(server, dir).await?;
    let program = agent_program()?;
    stop_orphan(dir).await;
    let agent_dir = dir.join("agent");
    std::fs::create_dir_all(agent_dir.join("facts.d"))?;
    let agent_config = agent_dir.join("agent.toml");
    let agent_settings = AgentSettings {
        state_dir: agent_dir.join("state"),
        facts_dir: agent_dir.join("facts.d"),
        endpoints: vec![server.addresses.agents.to_string()],
    };
    let text = toml::to_string(&agent_settings)?;
    std::fs::write(&agent_config, text)?;
    if !agent_dir.join("state/identity/identity.pem").exists() {
        let token = token(server, 1).await?;
        enroll(&program, &agent_config, server.addresses.enroll, &token).await?;
    }
    let agent_host_id = host_id(&program, &agent_config).await?;
    if with_sample {
        load_sample(server, agent_host_id.parse()?).await?;
    }
    let manifest = Manifest {
        operator_url: format!("http://{}", server.addresses.operators),
        agent_url: format!("https://{}", server.addresses.agents),
        enroll_url: format!("https://{}", server.addresses.enroll),
        admin_token,
        admin_password,
        ca_file: dir.join("ca/root.pem"),
        enroll_token: token(server, 10).await?,
        agent_host_id,
    };
    write_secret(
        &dir.join("demo.json"),
        &serde_json::to_string_pretty(&manifest)?,
    )?;
    super::print(&format!(
        "\nInfratrack runs. Open  {}",
        manifest.operator_url
    ));
    let password = manifest.admin_password.as_deref();
    super::print(&format!(
        "and log in as         admin, password {}",
        password.unwrap_or("as you set it")
    ));
    super::print("\nTo add another host (this token is for 10 hosts, within an hour):");
    super::print(&format!(
        "  echo {} | infratrack-agent enroll --collector {} --token-stdin",
        manifest.enroll_token,
        app.config.enroll_endpoint()
    ));
    super::print("\nCtrl-C stops everything; the next start goes on with the same data.\n");
    Ok(Agent::start(program, agent_config))
}

/// A made-up fleet beside the demo's own host, once.
async fn load_sample(server: &Server, own: Uuid) -> anyhow::Result<()> {
    let app = &server.app;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let actor = Actor::command_line();
    let loaded = sample::load(&app.pool, Fleet::default(), &[own], cutoffs, &actor).await?;
    super::print(&super::sample::said(loaded, Some(&app.config.data_dir)));
    Ok(())
}

/// The same token at every start: whoever has a page open stays logged in.
async fn admin_token(server: &Server, dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("admin-token");
    if let Ok(token) = std::fs::read_to_string(&path)
        && token::find(&server.app, token.trim(), Ipv4Addr::LOCALHOST.into())
            .await
            .is_ok_and(|caller| caller.is_some())
    {
        return Ok(token.trim().to_owned());
    }
    let mut transaction = server.app.pool.begin().await?;
    let now = server.app.clock.now();
    let new = NewToken::of_role("admin", Role::Admin, "demo");
    let (id, token) = token::create(&mut transaction, &new, now).await?;
    let change =
        Change::new("token.create", "token", id).after(json!({ "name": "admin", "role": "admin" }));
    record(&mut transaction, &Actor::command_line(), change, now).await?;
    transaction.commit().await?;
    write_secret(&path, &token)?;
    Ok(token)
}

/// The user `admin` is there; its password, where it is still the one that was made here.
async fn admin_password(server: &Server, dir: &Path) -> anyhow::Result<Option<String>> {
    let path = dir.join("admin-password");
    let mut connection = server.app.pool.acquire().await?;
    if let Some(user) = users::find(&mut connection, "admin").await? {
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let is_kept = password::matches(&kept, user.password_hash.as_deref());
        return Ok(is_kept.then_some(kept));
    }
    let made = hex::encode(rand::random::<[u8; 10]>());
    // First: a password that is stored and not known would be no use.
    write_secret(&path, &made)?;
    let user = users::User {
        user_id: Uuid::new_v4(),
        name: "admin".to_owned(),
        role: Role::Admin.name().to_owned(),
        password_hash: Some(password::hash(&made)?),
        created_at: server.app.clock.now(),
        disabled_at: None,
        must_change_password: false,
    };
    let change = Change::new("user.create", "user", &user.name).after(json!({ "role": user.role }));
    let mut transaction = server.app.pool.begin().await?;
    users::insert(&mut transaction, &user, "demo").await?;
    record(
        &mut transaction,
        &Actor::command_line(),
        change,
        user.created_at,
    )
    .await?;
    transaction.commit().await?;
    Ok(Some(made))
}

async fn token(server: &Server, uses: i32) -> anyhow::Result<String> {
    let app = &server.app;
    let options = TokenOptions {
        max_uses: uses,
        ..TokenOptions::default()
    };
    let token = create_token(
        &app.pool,
        app.ca.load().root_pin(app.clock.now())?,
        &options,
        &Actor::command_line(),
        app.clock.now(),
    )
    .await?;
    Ok(token.reveal())
}

/// The agent's binary beside this one.
fn agent_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("infratrack-agent");
    if !program.exists() {
        bail!(
            "{} is missing: build or install infratrack-agent beside this program",
            program.display()
        );
    }
    Ok(program)
}

async fn enroll(
    program: &Path,
    config: &Path,
    collector: SocketAddr,
    token: &str,
) -> anyhow::Result<()> {
    let mut child = Command::new(program)
        .arg("--config")
        .arg(config)
        .args([
            "enroll",
            "--token-stdin",
            "--collector",
            &collector.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(token.as_bytes()).await?;
    }
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait())
        .await
        .context("the agent did not enroll within 30 s")??;
    anyhow::ensure!(status.success(), "the agent was not enrolled: {status}");
    Ok(())
}

async fn host_id(program: &Path, config: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg("--config")
        .arg(config)
        .arg("status")
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = text.lines().find_map(|line| line.strip_prefix("host id:"));
    id.map(|id| id.trim().to_owned())
        .context("the agent does not say which host it is")
}

/// The supervised agent.
struct Agent {
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl Agent {
    fn start(program: PathBuf, config: PathBuf) -> Self {
        let (stop, asked) = oneshot::channel();
        Self {
            stop,
            supervisor: tokio::spawn(supervise(program, config, asked)),
        }
    }

    async fn stop(self) {
        self.stop.send(()).ok();
        self.supervisor.await.ok();
    }
}

/// Keeps an agent running until `asked`, then stops it in order.
async fn supervise(program: PathBuf, config: PathBuf, mut asked: oneshot::Receiver<()>) {
    loop {
        // In a group of its own: Ctrl-C is this program's, which stops the agent first.
        let spawned = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .arg("run")
            // As its unit has it.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        match spawned {
            Ok(mut agent) => {
                note(&config, agent.id());
                tokio::select! {
                    ended = agent.wait() => {
                        tracing::warn!(status = ?ended.ok(), "the agent ended; starting it again");
                    }
                    _ = &mut asked => return stop(agent).await,
                }
            }
            Err(error) => tracing::error!(%error, "the agent does not start"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART) => {}
            _ = &mut asked => return,
        }
    }
}

/// Notes the agent's process beside its configuration, for [`stop_orphan`].
fn note(config: &Path, pid: Option<u32>) {
    let text = pid.map(|pid| pid.to_string()).unwrap_or_default();
    if let Err(error) = std::fs::write(config.with_extension("pid"), text) {
        tracing::warn!(%error, "the agent's process was not noted");
    }
}

/// Stops the agent that a killed demo left behind: it holds the spool.
async fn stop_orphan(dir: &Path) {
    let config = dir.join("agent/agent.toml");
    let noted = std::fs::read_to_string(config.with_extension("pid")).unwrap_or_default();
    let Ok(pid) = noted.trim().parse::<i32>() else {
        return;
    };
    let ours = || {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = config.as_os_str().as_encoded_bytes();
        command
            .split(|byte| *byte == 0)
            .any(|argument| argument == name)
    };
    let deadline = tokio::time::Instant::now() + STOP;
    let mut signal = Signal::SIGTERM;
    while ours() {
        kill(Pid::from_raw(pid), signal).ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if tokio::time::Instant::now() > deadline {
            signal = Signal::SIGKILL;
        }
    }
}

async fn stop(mut agent: Child) {
    if let Some(pid) = agent.id().and_then(|pid| i32::try_from(pid).ok()) {
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
    }
    if tokio::time::timeout(STOP, agent.wait()).await.is_err() {
        agent.kill().await.ok();
    }
}
