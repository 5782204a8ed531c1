//! The command line: what can be asked of the program. `main` does it; packages make man pages and completions
//! of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use infratrack_shared::ids::HostId;
use ipnet::IpNet;

/// Takes what Infratrack's agents report, keeps it in Postgres, shows it to operators.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Configuration file [default: /etc/infratrack/collector.toml, where it exists]
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    /// What to log, as in `RUST_LOG`
    #[arg(
        long,
        global = true,
        env = "RUST_LOG",
        default_value = "info,sqlx=warn"
    )]
    pub log: String,
    /// How each line of the log looks
    #[arg(
        long,
        global = true,
        env = "INFRATRACK_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a collector; what systemd starts.
    Serve,
    /// Run a collector and an agent on this machine, in one directory.
    Demo(Demo),
    /// A made-up fleet to look around in.
    Sample {
        #[command(subcommand)]
        action: Sample,
        /// Of the demo that it is about; else it is the configured database
        #[arg(long, global = true)]
        data_dir: Option<PathBuf>,
    },
    /// Bring the database to this release.
    Migrate,
    /// Show the certificate authority, or work on it.
    Ca {
        #[command(subcommand)]
        action: Option<CaAction>,
    },
    /// Make a token; it is shown once.
    #[command(subcommand)]
    Token(Token),
    /// People who log in by name.
    #[command(subcommand)]
    User(User),
    /// The audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Show a host, by its id, as JSON.
    Host { id: HostId },
    /// The configuration.
    #[command(subcommand)]
    Config(Configuration),
    /// Check the configuration against reality.
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where, and on which addresses.
#[derive(Debug, Args)]
pub struct Demo {
    /// Everything is kept in here; a second start goes on with it
    #[arg(long)]
    pub data_dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub operator_listen: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub agent_listen: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8444")]
    pub enroll_listen: SocketAddr,
    /// Load a made-up fleet of 200 hosts with their history, once; `sample remove` removes it
    #[arg(long)]
    pub sample: bool,
}

/// What to do with the made-up fleet.
#[derive(Debug, Subcommand)]
pub enum Sample {
    /// Load it into a database without real hosts.
    Load,
    /// Remove it with all that hangs on it, and nothing else.
    Remove,
}

/// What to do with the certificate authority.
#[derive(Debug, Subcommand)]
pub enum CaAction {
    /// Print the trust domain, and the pin that enrollment tokens carry.
    Show,
    /// Bring certificates and revocations back that a restored database lacks; `serve` does it by itself.
    Replay,
    /// Make the next generation of the CA; agents learn to trust it, then it signs.
    Rotate {
        /// When it begins to sign, in minutes from now: collectors and agents learn of it until then
        #[arg(long, default_value_t = 60)]
        after_minutes: u32,
    },
    /// End a rotation: no longer accept the old generation.
    Retire {
        /// Hosts that were seen in so many days must have a certificate of the next generation
        #[arg(long, default_value_t = 30)]
        days: u32,
        /// Retire it whoever depends on it
        #[arg(long)]
        force: bool,
    },
}

/// What to do with users. Whatever it is, their sessions end.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Make a user; the password is made and shown once, or read from standard input.
    Add {
        name: String,
        /// viewer, operator, lead or admin
        #[arg(long)]
        role: String,
        #[arg(long)]
        password_stdin: bool,
        /// They choose another when they log in
        #[arg(long)]
        must_change: bool,
    },
    /// List the users.
    List,
    /// Give a user another password, made or read likewise.
    SetPassword {
        name: String,
        #[arg(long)]
        password_stdin: bool,
        /// They choose another when they log in
        #[arg(long)]
        must_change: bool,
    },
    /// Give a user another role.
    SetRole { name: String, role: String },
    /// Let a user log in no more.
    Disable { name: String },
    /// Let a user log in again.
    Enable { name: String },
}

/// The kinds of tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// For an administrator: the login form and the API take it.
    Admin,
    /// For a host to enroll with.
    Enroll(EnrollArguments),
}

/// What the token allows.
#[derive(Debug, Args)]
pub struct EnrollArguments {
    /// How long it is valid, in minutes
    #[arg(long, default_value_t = 60)]
    pub minutes: u32,
    /// How many hosts may use it
    #[arg(long, default_value_t = 1)]
    pub uses: i32,
    /// Only from this network
    #[arg(long)]
    pub cidr: Option<IpNet>,
    /// Only for hosts of such a name; * stands for any text
    #[arg(long)]
    pub hostname: Option<String>,
    /// A tag for the hosts; may be repeated
    #[arg(long = "tag")]
    pub tags: Vec<String>,
    /// For a host that is known, by its id: whoever uses the token becomes that host again
    #[arg(long, conflicts_with = "uses")]
    pub host: Option<HostId>,
    /// An operator has to approve each host
    #[arg(long)]
    pub approve: bool,
    /// As JSON, with the address to use it at
    #[arg(long)]
    pub json: bool,
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Read it whole with its chain and its checkpoints, and name the first row that is not as it was sealed.
    Verify {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Configuration {
    /// Print every setting with the value in effect.
    Show,
}
