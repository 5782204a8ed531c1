//! Commands to agents: rows with an expiry, sent until the agent confirms their id.

use infratrack_shared::ids::{CommandId, HostId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// The channel on which collectors tell each other of new commands; the payload is the host's id.
pub const CHANNEL: &str = "infratrack_commands";

/// A command to queue.
#[derive(Clone, Copy, Debug)]
pub struct NewCommand<'a> {
    pub id: CommandId,
    pub host: HostId,
    pub action: &'a str,
    pub target: Option<&'a str>,
    pub created_at: OffsetDateTime,
    pub created_by: &'a str,
    pub expires_at: OffsetDateTime,
}

/// A command that its agent has not confirmed.
#[derive(Clone, Debug)]
pub struct OpenCommand {
    pub command_id: Uuid,
    pub action: String,
    pub target: Option<String>,
    pub expires_at: OffsetDateTime,
}

/// A command as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct CommandRow {
    #[serde(rename = "id")]
    pub command_id: Uuid,
    pub action: String,
    pub target: Option<String>,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub sent_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub confirmed_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    pub outcome: Option<String>,
    pub detail: Option<String>,
}

/// Queues a command.
pub async fn insert(connection: &mut PgConnection, command: &NewCommand<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into commands (command_id, host_id, action, target, created_at, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        command.id.0,
        command.host.0,
        command.action,
        command.target,
        command.created_at,
        command.created_by,
        command.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Tells every collector, when the transaction commits, that `host` has a command.
pub async fn notify(connection: &mut PgConnection, host: HostId) -> sqlx::Result<()> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, host.to_string())
        .fetch_one(connection)
        .await
        .map(drop)
}

/// Hosts with commands to be sent.
pub async fn list_hosts_with_open(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select distinct host_id from commands where confirmed_at is null and expires_at > $1",
        now
    )
    .fetch_all(connection)
    .await
}

/// The commands to send to `host`, oldest first; says that they were.
pub async fn take_open(
    connection: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<OpenCommand>> {
    let mut commands = sqlx::query_as!(
        OpenCommand,
        "update commands set sent_at = $2
         where host_id = $1 and confirmed_at is null and expires_at > $2
         returning command_id, action, target, expires_at",
        host.0,
        now,
    )
    .fetch_all(connection)
    .await?;
    commands.sort_by_key(|command| command.command_id);
    Ok(commands)
}

/// Says that agents have these commands. Each pair must match, so that no host confirms another's.
pub async fn confirm(
    connection: &mut PgConnection,
    hosts: &[Uuid],
    commands: &[Uuid],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update commands c set confirmed_at = $3
         from unnest($1::uuid[], $2::uuid[]) as i (host_id, command_id)
         where c.host_id = i.host_id and c.command_id = i.command_id and c.confirmed_at is null",
        hosts,
        commands,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores how a command ended.
pub async fn finish(
    connection: &mut PgConnection,
    host: HostId,
    command: CommandId,
    outcome: &str,
    detail: Option<&str>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update commands set outcome = $3, detail = $4, finished_at = $5,
             confirmed_at = coalesce(confirmed_at, $5)
         where host_id = $1 and command_id = $2 and finished_at is null",
        host.0,
        command.0,
        outcome,
        detail,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A host's commands, newest first.
pub async fn list(
    connection: &mut PgConnection,
    host: HostId,
    limit: i64,
) -> sqlx::Result<Vec<CommandRow>> {
    sqlx::query_as!(
        CommandRow,
        "select command_id, action, target, created_by, created_at, expires_at, sent_at, confirmed_at,
             finished_at, outcome, detail
         from commands where host_id = $1 order by created_at desc limit $2",
        host.0,
        limit,
    )
    .fetch_all(connection)
    .await
}
