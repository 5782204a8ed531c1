//! The command line: what can be asked of the program. `main` does it; packages make man pages and completions
//! of it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::backup::keys::Recipient;

/// Reports this host to an Infratrack collector.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Configuration file [default: /etc/infratrack/agent.toml, where it exists]
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Command {
    /// Run the agent; what systemd starts.
    Run,
    /// Give this host its identity, with a token from the collector.
    Enroll(Enroll),
    /// Say who this host is to the collector and until when.
    Status {
        /// As JSON; the command fails where the host is not enrolled
        #[arg(long)]
        json: bool,
    },
    /// Print the facts this host would report, as JSON.
    Facts,
    /// Print the packages that are installed on this host, as JSON.
    Packages,
    /// Run the volume that the connection at standard input names; what the unit of backups starts.
    #[command(hide = true)]
    RunBackup,
    /// Back volumes up, and say what there is.
    Backup(Backup),
    /// The configuration.
    #[command(subcommand)]
    Config(Configuration),
    /// Ask the package managers that the connection at standard input names for updates.
    #[command(hide = true)]
    CheckUpdates,
    /// Keep a spool's records in a process of its own.
    #[command(hide = true)]
    SpoolStore { dir: PathBuf },
    /// Check a spool in a process of its own.
    #[command(hide = true)]
    SpoolProbe {
        dir: PathBuf,
        generation: u64,
        #[arg(long)]
        salvage: bool,
    },
}

/// Where and with what. The token is never an argument: arguments are seen by every user.
#[derive(Debug, Args)]
pub struct Enroll {
    /// The collector's enrollment address, host:port
    #[arg(long)]
    pub collector: String,
    /// Read the token from standard input
    #[arg(long, required_unless_present = "token_file")]
    pub token_stdin: bool,
    /// Read the token from a file
    #[arg(long, conflicts_with = "token_stdin")]
    pub token_file: Option<PathBuf>,
    /// Enroll anew although this host has an identity; the collector decides which host it becomes
    #[arg(long)]
    pub force: bool,
}

/// Backups of this host.
#[derive(Debug, Args)]
pub struct Backup {
    /// What backups may read and run; root's file [default: /etc/infratrack/backup.toml]
    #[arg(long, global = true)]
    pub backup_config: Option<PathBuf>,
    /// Keys, caches and results of backups [default: /var/lib/infratrack-backup]
    #[arg(long, global = true, hide = true)]
    pub backup_dir: Option<PathBuf>,
    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: BackupCommand,
}

/// What to do about backups.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum BackupCommand {
    /// Back a volume up. Exits with 0 when all is in it, 3 when not all is, 1 when there is no backup, 64 when the
    /// configuration is at fault.
    Run {
        /// Its name or its id
        volume: String,
        /// What began the run
        #[arg(long, value_enum, default_value_t = Began::Host)]
        trigger: Began,
    },
    /// Rehearse restoring a volume: into scratch space, compared, and removed again. Exits with 0 when it can be restored
    Drill {
        /// Its name or its id
        volume: String,
        /// How much of it [default: as the collector says]
        #[arg(long, value_enum)]
        mode: Option<Rehearsed>,
        /// What began it
        #[arg(long, value_enum, default_value_t = Began::Host, hide = true)]
        trigger: Began,
    },
    /// Print the volumes of this host, or the snapshots of one.
    List {
        /// Its name or its id
        volume: Option<String>,
    },
    /// Print the ids of this host's keys, and who can recover them; or wrap one of them for somebody else.
    Keys(BackupKeys),
    #[command(flatten)]
    Read(ReadBackup),
}

/// Which key, and for whom.
#[derive(Debug, Args)]
pub struct BackupKeys {
    /// Print a copy of the volume's key that this public key's owner can open, and nobody else: another host's, say, that is to
    /// restore the volume by a grant. The log of this host has it
    #[arg(long, value_name = "RECIPIENT")]
    pub wrap_for: Option<Recipient>,
    /// The volume: its name or its id [default: the only one with keys]
    #[arg(requires = "wrap_for")]
    pub volume: Option<String>,
    /// Which of the volume's keys [default: the one that backup.toml's recipients have]
    #[arg(long, requires = "wrap_for", value_name = "ID")]
    pub key_id: Option<String>,
    /// Write it to a new file instead
    #[arg(long, requires = "wrap_for", value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What begins a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Began {
    Schedule,
    Command,
    Host,
}

/// How much of a restore is rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rehearsed {
    /// Everything is written, read back and compared, and a dump is checked by its recipe
    Full,
    /// A dump is written once, and checked by its recipe
    Database,
    /// Everything is read; nothing is written
    Validation,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Configuration {
    /// Print every setting with the value in effect.
    Show,
}

/// How to get back what was backed up.
#[derive(Debug, Subcommand)]
pub enum ReadBackup {
    /// Write a snapshot's files below a directory. What is there already as it should be is left, so that a restore that was
    /// stopped goes on
    Restore {
        #[command(flatten)]
        from: BackupFrom,
        /// Only these, with what is below them; patterns as in a .gitignore
        #[arg(long = "path", value_name = "PATTERN")]
        paths: Vec<String>,
        /// Below which directory; it is made where it is missing
        #[arg(long)]
        to: PathBuf,
        /// Allow that the directory is `/`: what stands there is replaced, where `allowed_paths` of backup.toml has it
        #[arg(long)]
        in_place: bool,
        /// Make devices too; only root can
        #[arg(long)]
        devices: bool,
    },
    /// List what is in a snapshot.
    Ls {
        #[command(flatten)]
        from: BackupFrom,
        /// Only these, with what is below them; patterns as in a .gitignore
        #[arg(long = "path", value_name = "PATTERN")]
        paths: Vec<String>,
    },
    /// Write one file of a snapshot to standard output; the output of a command is a snapshot of one file
    Dump {
        #[command(flatten)]
        from: BackupFrom,
        /// Which file [default: the only one]
        #[arg(long)]
        path: Option<PathBuf>,
    },
    /// Read every file of a snapshot, and with `--from` and `--s3` every pack of the volume, and compare all of their hashes
    Verify {
        #[command(flatten)]
        from: BackupFrom,
    },
}

impl ReadBackup {
    /// What is read, and from where.
    pub fn from(&self) -> &BackupFrom {
        match self {
            Self::Restore { from, .. }
            | Self::Ls { from, .. }
            | Self::Dump { from, .. }
            | Self::Verify { from } => from,
        }
    }
}

/// What, and from where. A secret is never an argument: arguments are seen by every user.
#[derive(Debug, Args)]
pub struct BackupFrom {
    /// The volume: its name on this host or its id, also of another host's for which this one has a grant. With `--from` and `--s3`
    /// its id, where there is more than one
    pub volume: Option<String>,
    /// Which snapshot: its id, or `latest`
    #[arg(long, default_value = "latest")]
    pub snapshot: String,
    /// Not from the collector but from a copy of the bucket: the directory that has `backups/` in it
    #[arg(long, value_name = "DIR", conflicts_with = "s3")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub s3: S3From,
    /// A recovery recipient's file of identities: of age, or an ssh key. What this host backed up itself opens without
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// A file with the volume's key, wrapped by age for one of the identities, in place of what the store has
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub key: Option<PathBuf>,
}

impl BackupFrom {
    /// Whether no collector is asked, so that there need be no configuration.
    pub fn is_bucket(&self) -> bool {
        self.from.is_some() || self.s3.s3.is_some()
    }
}

/// A bucket as its provider has it.
#[derive(Debug, Args)]
pub struct S3From {
    /// Not from the collector but from its bucket: `s3://bucket/prefix`. The credentials are `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` in the environment
    #[arg(long, value_name = "URL")]
    pub s3: Option<String>,
    /// Where S3 is, if it is not that of AWS
    #[arg(long, value_name = "URL", requires = "s3")]
    pub endpoint: Option<String>,
    /// Of the bucket
    #[arg(long, requires = "s3", default_value = "us-east-1")]
    pub region: String,
    /// The bucket is part of the path, not of the host's name
    #[arg(long, requires = "s3")]
    pub path_style: bool,
    /// A PEM file of the certificate authorities that vouch for the endpoint, in place of the system's
    #[arg(long, value_name = "FILE", requires = "s3")]
    pub ca: Option<PathBuf>,
    /// Allow an endpoint of http:// that is not on this host: who listens there can use what is signed for five minutes
    #[arg(long, requires = "s3")]
    pub insecure_http: bool,
    /// A file with lines `AWS_ACCESS_KEY_ID=…` and so on, in place of the environment
    #[arg(long, value_name = "FILE", requires = "s3")]
    pub credentials: Option<PathBuf>,
}
