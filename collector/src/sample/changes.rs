//! What was done to the sample fleet: plans with their applies and drift, plays, and what somebody wrote down, stored as
//! what pipelines and agents bring is. Ids are made of names, by which they are found again to be removed.

mod documents;
mod records;

use anyhow::Context;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use self::documents::{Done, SHOP};
use self::records::{Command, Did};
use super::member::{Member, Presence, Role, Trouble, id_of};
use crate::api::ingest::terraform::parts::apart;
use crate::api::ingest::terraform::{Told, insert};
use crate::changes::claims::Claims;
use crate::changes::correlate;
use crate::changes::play::{self, Batch};
use crate::changes::terraform::{self, Options, Table};
use crate::runs::{Bringer, join};
use crate::store::changes::ChangeRow;
use crate::store::{change_edits, change_hosts, changes, plays};

/// Each of them; a smaller fleet has not all.
const NAMES: [&str; 6] = [
    "rollout", "staging", "switch", "volumes", "patches", "postgres",
];
/// Hosts of the rollout, and of the switch.
const FEW: usize = 4;
/// Who brings what pipelines tell.
const TOKEN: &str = "sample-pipeline";

/// When the play with security updates began, before the loading.
pub(super) const PATCHED_BEFORE: Duration = Duration::hours(9);

/// Whether that play upgraded its packages.
pub(super) fn is_patched(member: Member) -> bool {
    is_in_use(member) && is_of(member, Role::Web, "production")
}

fn is_in_use(member: Member) -> bool {
    member.presence() != Presence::Never
}

fn is_of(member: Member, role: Role, environment: &str) -> bool {
    member.role() == role && member.environment() == environment
}

/// The first of a fleet of so many that are such.
fn some(hosts: u32, most: usize, is_such: impl Fn(Member) -> bool) -> Vec<Member> {
    let such = (0..hosts).map(Member).filter(|member| is_in_use(*member));
    such.filter(|member| is_such(*member)).take(most).collect()
}

/// Stores them, for a fleet of so many hosts that were stored before.
pub(super) async fn store(
    connection: &mut PgConnection,
    hosts: u32,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let web = some(hosts, FEW, |member| is_of(member, Role::Web, "production"));
    let databases = some(hosts, FEW, |member| is_of(member, Role::Db, "production"));
    let control = some(hosts, 1, |member| member.role() == Role::Ci);
    let (Some(control), false) = (control.first(), databases.is_empty()) else {
        return Ok(());
    };
    roll_out(connection, &web, *control, now - Duration::hours(149)).await?;
    let staging = some(hosts, FEW, |member| is_of(member, Role::Web, "staging"));
    if !staging.is_empty() {
        break_staging(connection, &staging, now - Duration::hours(75)).await?;
    }
    replace_switch(connection, hosts, now - Duration::hours(52)).await?;
    let at = now - Duration::hours(20);
    let run = pipeline("volumes", 8467, "grace", "data-production");
    tell(connection, &run, &documents::volumes(&databases), at).await?;
    let patched = some(hosts, usize::MAX, is_patched);
    play(
        connection,
        *control,
        &patches(patched, now - PATCHED_BEFORE),
    )
    .await?;
    play(
        connection,
        *control,
        &postgres(databases, now - Duration::hours(3)),
    )
    .await
}

/// Deletes them, and what came to them since.
pub(super) async fn delete(connection: &mut PgConnection) -> sqlx::Result<()> {
    for name in NAMES {
        changes::delete(connection, change_id(name)).await?;
    }
    Ok(())
}

fn change_id(name: &str) -> Uuid {
    id_of(&format!("change {name}"))
}

/// A document of Terraform, from a pipeline.
struct Run {
    name: &'static str,
    claims: Claims,
}

fn pipeline(name: &'static str, number: u32, actor: &str, workspace: &str) -> Run {
    let text = |text: String| Some(text);
    Run {
        name,
        claims: Claims {
            repository: text(SHOP.to_owned()),
            commit: text(commit(name)),
            branch: text("main".to_owned()),
            pull_request: text((number - 8000).to_string()),
            ci_provider: text("gitlab".to_owned()),
            run_id: text(number.to_string()),
            run_url: text(format!("{SHOP}/-/pipelines/{number}")),
            actor: text(actor.to_owned()),
            workspace: text(workspace.to_owned()),
            ..Claims::default()
        },
    }
}

/// As git would name it.
fn commit(name: &str) -> String {
    let (one, other) = (id_of(&format!("commit {name}")), id_of(name));
    let mut text = format!("{}{}", one.simple(), other.simple());
    text.truncate(40);
    text
}

/// New virtual machines for the shop: planned, applied, and configured by a play of the same commit.
async fn roll_out(
    connection: &mut PgConnection,
    web: &[Member],
    control: Member,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let run = pipeline("rollout", 8412, "ada", "shop-production");
    tell(connection, &run, &documents::resize(web, "production"), at).await?;
    let applied = documents::resized(web, Done::All);
    tell(connection, &run, &applied, at + Duration::minutes(6)).await?;
    let command = Command {
        name: "rollout",
        playbook: "site.yml",
        user: "ada",
        at: at + Duration::minutes(14),
        hosts: web.to_vec(),
        tasks: vec![
            ("nginx", "Install nginx", "ansible.builtin.apt", |_| {
                Did::Nothing
            }),
            (
                "nginx",
                "Lay out the virtual hosts",
                "ansible.builtin.template",
                |_| Did::Changed("worker_processes 2 became 4"),
            ),
            (
                "nginx",
                "Reload nginx",
                "ansible.builtin.systemd_service",
                |_| Did::Changed("nginx.service was reloaded"),
            ),
        ],
    };
    play(connection, control, &command).await
}

/// The same for the staging fleet, of which one machine could not be had.
async fn break_staging(
    connection: &mut PgConnection,
    staging: &[Member],
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let run = pipeline("staging", 8440, "ada", "shop-staging");
    tell(connection, &run, &documents::resize(staging, "staging"), at).await?;
    let applied = documents::resized(staging, Done::ButTheLast);
    tell(connection, &run, &applied, at + Duration::minutes(9)).await
}

/// What no tool tells.
async fn replace_switch(
    connection: &mut PgConnection,
    hosts: u32,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let text = |text: &str| Some(text.to_owned());
    let row = ChangeRow {
        change_id: change_id("switch"),
        origin: "manual".to_owned(),
        title: "Replaced the switch of rack 12 in fra1".to_owned(),
        note: text(
            "The old one dropped frames. **Ports 1 to 8** were without a network for four minutes.",
        ),
        started_at: at,
        ended_at: at + Duration::minutes(35),
        outcome: "succeeded".to_owned(),
        tools: vec!["manual".to_owned()],
        repository: None,
        commit_id: None,
        branch: None,
        pull_request: None,
        actor: text("grace"),
        environment: text("production"),
        workspace: None,
        run_url: None,
        add_count: 0,
        change_count: 0,
        destroy_count: 0,
        host_count: 0,
        version: 1,
    };
    change_edits::insert(connection, &row, row.ended_at).await?;
    let touched = some(hosts, 2 * FEW, |member| member.site() == "fra1");
    let touched: Vec<_> = touched.iter().map(|member| member.host().0).collect();
    let times = (row.started_at, row.ended_at);
    change_hosts::upsert_manual(connection, row.change_id, &touched, times).await?;
    change_hosts::recount(connection, row.change_id).await?;
    Ok(())
}

/// Updates for security, all of them taken.
fn patches(hosts: Vec<Member>, at: OffsetDateTime) -> Command {
    Command {
        name: "patches",
        playbook: "patch.yml",
        user: "ci",
        at,
        hosts,
        tasks: vec![
            (
                "patch",
                "Refresh the package lists",
                "ansible.builtin.apt",
                |_| Did::Nothing,
            ),
            (
                "patch",
                "Install security updates",
                "ansible.builtin.apt",
                |_| Did::Changed("openssl and libssl3 were upgraded"),
            ),
            (
                "patch",
                "Restart what uses them",
                "ansible.builtin.systemd_service",
                |_| Did::Changed("nginx.service was restarted"),
            ),
        ],
    }
}

/// A configuration that the full disk does not take.
fn postgres(hosts: Vec<Member>, at: OffsetDateTime) -> Command {
    Command {
        name: "postgres",
        playbook: "postgres.yml",
        user: "grace",
        at,
        hosts,
        tasks: vec![
            (
                "postgres",
                "Lay out postgresql.conf",
                "ansible.builtin.template",
                |_| Did::Changed("max_wal_size 4GB became 8GB"),
            ),
            (
                "postgres",
                "Take a base backup",
                "ansible.builtin.command",
                |member| match member.trouble() {
                    Some(Trouble::DiskCritical) => Did::Failed(
                        "non-zero return code",
                        "pg_basebackup: error: could not write to file: No space left on device",
                    ),
                    Some(
                        Trouble::DiskWarning
                        | Trouble::FailedUnits
                        | Trouble::RebootRequired
                        | Trouble::ClockSkew
                        | Trouble::CertificateExpiring
                        | Trouble::IdentityConflict,
                    )
                    | None => Did::Changed("the backup was taken"),
                },
            ),
            (
                "postgres",
                "Reload postgres",
                "ansible.builtin.systemd_service",
                |_| Did::Changed("postgresql.service was reloaded"),
            ),
        ],
    }
}

/// Stores a document as a pipeline's.
async fn tell(
    connection: &mut PgConnection,
    run: &Run,
    document: &documents::Document,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let table = Table::with(&[]);
    let options = Options {
        is_apply: document.exit_code.is_some(),
        ..Options::default()
    };
    let read = terraform::read(document.text.as_bytes(), options, &table);
    let read = read.with_context(|| format!("the document {} of the sample", run.name))?;
    let parts = apart(read, document.exit_code);
    let kind = parts.0.kind;
    let run_id = id_of(&format!("run {kind} {}", run.name));
    let until = at + document.took;
    let (bringer, keys) = (
        Bringer::Host(Member(0).host()),
        correlate::keys(&run.claims),
    );
    let change_id = join(connection, bringer, &keys, change_id(run.name), at).await?;
    let told = Told {
        run_id,
        change_id,
        content_hash: *blake3::hash(run_id.as_bytes()).as_bytes(),
        received_at: until,
        times: (at, until),
        exit_code: document.exit_code,
        claims: run.claims.clone(),
        brought_by: TOKEN.to_owned(),
        artifact: None,
    };
    insert(connection, &table, told, parts).await?;
    Ok(())
}

/// Stores a play as the agent of `control` brings it.
async fn play(
    connection: &mut PgConnection,
    control: Member,
    command: &Command,
) -> anyhow::Result<()> {
    let run = id_of(&format!("run play {}", command.name));
    let records = records::of(command, control, &commit(command.name));
    let last = i64::try_from(records.len()).unwrap_or(i64::MAX);
    let batch = Batch {
        run,
        first_seq: 1,
        records,
    };
    let rows = play::read(batch, 0);
    let rows = rows.map_err(|bad| anyhow::anyhow!("the play {}: {bad:?}", command.name))?;
    let (start, end) = rows
        .start
        .as_ref()
        .zip(rows.end.as_ref())
        .context("a play's ends")?;
    let (bringer, at) = (Bringer::Host(control.host()), end.at);
    let ids = (change_id(command.name), at);
    let change_id = crate::plays::begin(connection, bringer, run, start, ids).await?;
    crate::plays::add(connection, run, 1, &rows, at).await?;
    plays::update_acked(connection, run, last).await?;
    changes::refresh(connection, change_id, at).await?;
    Ok(())
}
