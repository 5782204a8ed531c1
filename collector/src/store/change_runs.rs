//! Runs of tools, and the resources that they are about.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// Rows of resources that one statement writes: their JSON is held.
const ROWS: usize = 500;

/// A run to be stored.
#[derive(Clone, Debug)]
pub struct NewRun {
    pub run_id: Uuid,
    pub change_id: Uuid,
    pub tool: &'static str,
    pub kind: &'static str,
    pub content_hash: [u8; 32],
    pub received_at: OffsetDateTime,
    pub started_at: OffsetDateTime,
    pub ended_at: OffsetDateTime,
    pub outcome: &'static str,
    pub exit_code: Option<i32>,
    pub tool_version: Option<String>,
    pub format: Option<String>,
    pub claims: Value,
    pub brought_by: String,
    pub summary: Value,
    pub detail: Value,
    pub warnings: Vec<String>,
    pub redactions: i64,
    pub artifact: Option<Artifact>,
}

/// What can be downloaded of a run.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub key: String,
    pub bytes: i64,
    pub hash: Vec<u8>,
}

/// A run as it is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChangeRun)]
pub struct RunRow {
    #[serde(rename = "id")]
    pub run_id: Uuid,
    #[serde(skip)]
    pub change_id: Uuid,
    /// `terraform | ansible`.
    pub tool: String,
    /// `plan | apply | state | play`.
    pub kind: String,
    #[serde(with = "rfc3339")]
    pub received_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub ended_at: OffsetDateTime,
    pub outcome: String,
    pub exit_code: Option<i32>,
    pub tool_version: Option<String>,
    pub format: Option<String>,
    #[schema(value_type = Object)]
    pub claims: Value,
    /// The user or token that brought it.
    pub brought_by: String,
    #[schema(value_type = Object)]
    pub summary: Value,
    /// Outputs, checks, messages: what is not by resource.
    #[schema(value_type = Object)]
    pub detail: Value,
    pub warnings: Vec<String>,
    /// Places where something secret was taken out.
    pub redactions: i64,
    /// Of what can be downloaded; null where there is nothing.
    pub artifact_bytes: Option<i64>,
    #[serde(skip)]
    pub artifact_key: Option<String>,
}

/// A resource to be stored: what a [`ResourceRow`] has, its attributes as they were written.
#[derive(Clone, Debug, Serialize)]
pub struct NewResource {
    pub ordinal: i32,
    pub part: String,
    pub address: String,
    pub deposed: Option<String>,
    pub module_address: Option<String>,
    pub mode: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub provider: String,
    pub action: String,
    pub actions: Vec<String>,
    pub action_reason: Option<String>,
    pub deferred_reason: Option<String>,
    pub previous_address: Option<String>,
    pub is_imported: bool,
    pub outcome: Option<String>,
    pub attributes: Box<RawValue>,
    pub is_cut: bool,
}

/// A resource of a run.
#[derive(Clone, Debug, Serialize, serde::Deserialize, sqlx::FromRow, ToSchema)]
#[schema(as = ChangeResource)]
pub struct ResourceRow {
    pub ordinal: i32,
    /// `change | drift | deferred`; `operation` of an apply.
    pub part: String,
    pub address: String,
    pub deposed: Option<String>,
    pub module_address: Option<String>,
    pub mode: String,
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
    pub name: String,
    pub provider: String,
    /// `no_op | create | read | update | delete | delete_create | create_delete | forget | create_forget | unrecognised`.
    pub action: String,
    /// As the document has it.
    pub actions: Vec<String>,
    pub action_reason: Option<String>,
    /// Why it waits for a later plan, as Terraform says it: `instance_count_unknown`, `provider_config_unknown`, …
    pub deferred_reason: Option<String>,
    pub previous_address: Option<String>,
    pub is_imported: bool,
    /// How an apply ended it: `complete | errored | started`.
    pub outcome: Option<String>,
    /// `[{path, what, before, after}]`: what differs; `before` and `after` are texts of JSON, so that numbers stay as they are.
    #[schema(value_type = Vec<Object>)]
    pub attributes: Value,
    /// It has more attributes that differ.
    pub is_cut: bool,
}

/// Stores a run.
pub async fn insert(connection: &mut PgConnection, run: &NewRun) -> sqlx::Result<u64> {
    let artifact = run.artifact.as_ref();
    let done = sqlx::query!(
        "insert into change_runs (run_id, change_id, tool, kind, content_hash, received_at, started_at, ended_at,
             outcome, exit_code, tool_version, format, claims, brought_by, summary, detail, warnings, redactions,
             artifact_key, artifact_bytes, artifact_hash)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
        run.run_id,
        run.change_id,
        run.tool,
        run.kind,
        &run.content_hash,
        run.received_at,
        run.started_at,
        run.ended_at,
        run.outcome,
        run.exit_code,
        run.tool_version,
        run.format,
        run.claims,
        run.brought_by,
        run.summary,
        run.detail,
        &run.warnings,
        run.redactions,
        artifact.map(|artifact| &artifact.key),
        artifact.map(|artifact| artifact.bytes),
        artifact.map(|artifact| &artifact.hash),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores the resources of a run, some hundred at a time.
pub async fn insert_resources(
    connection: &mut PgConnection,
    run_id: Uuid,
    rows: impl Iterator<Item = NewResource>,
) -> sqlx::Result<u64> {
    let mut rows = rows.peekable();
    let mut stored = 0;
    while rows.peek().is_some() {
        let some: Vec<_> = rows.by_ref().take(ROWS).collect();
        let done = sqlx::query!(
            "insert into change_resources (run_id, ordinal, part, address, deposed, module_address, mode, type, name,
                 provider, action, actions, action_reason, deferred_reason, previous_address, is_imported, outcome, attributes,
                 is_cut)
             select $1, ordinal, part, address, deposed, module_address, mode, type, name, provider, action, actions,
                 action_reason, deferred_reason, previous_address, is_imported, outcome, attributes, is_cut
             from jsonb_to_recordset($2) as i (ordinal int, part text, address text, deposed text, module_address text,
                 mode text, type text, name text, provider text, action text, actions text[], action_reason text,
                 deferred_reason text, previous_address text, is_imported bool, outcome text, attributes jsonb, is_cut bool)",
            run_id,
            sqlx::types::Json(&some) as _,
        )
        .execute(&mut *connection)
        .await?;
        stored += done.rows_affected();
    }
    Ok(stored)
}

/// The run of this content.
pub async fn find_by_content(
    connection: &mut PgConnection,
    content_hash: &[u8],
) -> sqlx::Result<Option<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select run_id, change_id, tool, kind, received_at, started_at, ended_at, outcome, exit_code, tool_version,
             format, claims, brought_by, summary, detail, warnings, redactions, artifact_bytes, artifact_key
         from change_runs where content_hash = $1",
        content_hash
    )
    .fetch_optional(connection)
    .await
}

/// The runs of a change, the first first.
pub async fn list(connection: &mut PgConnection, change_id: Uuid) -> sqlx::Result<Vec<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select run_id, change_id, tool, kind, received_at, started_at, ended_at, outcome, exit_code, tool_version,
             format, claims, brought_by, summary, detail, warnings, redactions, artifact_bytes, artifact_key
         from change_runs where change_id = $1 order by started_at, received_at, run_id limit 1000",
        change_id
    )
    .fetch_all(connection)
    .await
}

/// A run of a change.
pub async fn find(
    connection: &mut PgConnection,
    change_id: Uuid,
    run_id: Uuid,
) -> sqlx::Result<Option<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select run_id, change_id, tool, kind, received_at, started_at, ended_at, outcome, exit_code, tool_version,
             format, claims, brought_by, summary, detail, warnings, redactions, artifact_bytes, artifact_key
         from change_runs where change_id = $1 and run_id = $2",
        change_id,
        run_id,
    )
    .fetch_optional(connection)
    .await
}

/// Plays of which nothing came since then were interrupted. Answers their changes.
pub async fn update_interrupted(
    connection: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "update change_runs set outcome = 'interrupted' where outcome = 'running' and ended_at < $1
         returning change_id",
        before,
    )
    .fetch_all(connection)
    .await
}

/// The blobs of a change's runs.
pub async fn list_artifacts(
    connection: &mut PgConnection,
    change_id: Uuid,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select artifact_key as "key!" from change_runs where change_id = $1 and artifact_key is not null"#,
        change_id,
    )
    .fetch_all(connection)
    .await
}
