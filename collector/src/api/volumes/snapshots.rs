//! What there is to restore of a volume, why each of it is kept, and holds.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::find;
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::backups::retention::{self, Reason, Rules, Snapshot};
use crate::caller::Caller;
use crate::store::backup_snapshots::{self as store, SnapshotRow};
use crate::store::garbage;

const REASON_CHARS: usize = 500;

/// A snapshot, and why it is kept.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeptSnapshot {
    pub snapshot: SnapshotRow,
    /// Empty: by these rules it goes.
    pub kept_because: Vec<Reason>,
}

/// Rules to try, in place of the volume's own: those that are not named keep none.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct RulesQuery {
    pub last: Option<u32>,
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
}

/// Why it is held.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    #[schema(min_length = 1, max_length = 500)]
    pub because: String,
}

/// Lists a volume's snapshots, newest first, with the reasons for which its rules keep each. With other rules in the query: as
/// it would be with those.
#[utoipa::path(
    get,
    path = "/api/v1/volumes/{id}/snapshots",
    tag = "backups",
    params(("id" = Uuid, Path), RulesQuery),
    responses((status = 200, body = Page<KeptSnapshot>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<RulesQuery>,
) -> Result<Json<Page<KeptSnapshot>>, Problem> {
    let rules = query.rules()?;
    kept(&app, id, rules).await.map(Page::whole).map(Json)
}

impl RulesQuery {
    fn rules(self) -> Result<Option<Rules>, Problem> {
        let asked = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
        ];
        if asked.iter().all(Option::is_none) {
            return Ok(None);
        }
        let [last, hourly, daily, weekly, monthly, yearly] = asked.map(Option::unwrap_or_default);
        let rules = Rules {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        };
        let checked = rules.check();
        checked.map_err(|detail| Problem::parameter("", detail))?;
        Ok(Some(rules))
    }
}

/// As the API and the page list them.
pub async fn kept(app: &App, id: Uuid, rules: Option<Rules>) -> Result<Vec<KeptSnapshot>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let volume = find(app, &mut connection, id).await?;
    let rows = store::list(&mut connection, id).await?;
    let snapshots: Vec<_> = rows.iter().map(Snapshot::of).collect();
    let reasons = retention::decide(&rules.unwrap_or(volume.retention.0), &snapshots);
    let both = rows.into_iter().zip(reasons);
    Ok(both
        .map(|(snapshot, kept_because)| KeptSnapshot {
            snapshot,
            kept_because,
        })
        .collect())
}

/// Holds a snapshot: nothing deletes it until somebody releases it.
#[utoipa::path(
    put,
    path = "/api/v1/snapshots/{id}/hold",
    tag = "backups",
    params(("id" = Uuid, Path)),
    request_body = Hold,
    responses((status = 200, body = SnapshotRow)),
)]
pub async fn hold(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Json(body): Json<Hold>,
) -> Result<Json<SnapshotRow>, Problem> {
    hold_for(&app, &caller, id, &body.because).await.map(Json)
}

/// As the API and the page hold it.
pub async fn hold_for(
    app: &App,
    caller: &Caller,
    id: Uuid,
    because: &str,
) -> Result<SnapshotRow, Problem> {
    let because = input::text("/because", because, 1..=REASON_CHARS)?;
    set(app, caller, id, Some(&because)).await
}

/// Releases a snapshot that was held: the rules decide of it again.
#[utoipa::path(
    delete,
    path = "/api/v1/snapshots/{id}/hold",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn release(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    set(&app, &caller, id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Holds a snapshot for this reason, or without one releases it.
pub async fn set(
    app: &App,
    caller: &Caller,
    id: Uuid,
    because: Option<&str>,
) -> Result<SnapshotRow, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let missing = || Problem::missing("snapshot", id);
    let before = store::find_for_update(&mut transaction, id).await?;
    let before = before.ok_or_else(missing)?;
    let action = if let Some(because) = because {
        store::hold(&mut transaction, id, (&caller.name, because), now).await?;
        "snapshot.hold"
    } else {
        store::release(&mut transaction, id).await?;
        "snapshot.release"
    };
    let change = Change::new(action, "snapshot", id);
    let change = change
        .before(json!({"held_because": before.held_because}))
        .after(json!({"held_because": because, "volume": before.volume_id}));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    let after = store::find_for_update(&mut transaction, id).await?;
    transaction.commit().await?;
    after.ok_or_else(missing)
}

/// Deletes a snapshot before its rules do. For two days it is still in the store, though nobody can read it any more.
#[utoipa::path(
    delete,
    path = "/api/v1/volumes/{id}/snapshots/{snapshot}",
    tag = "backups",
    params(("id" = Uuid, Path), ("snapshot" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((volume, id)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let missing = || Problem::missing("snapshot", id);
    garbage::lock(&mut transaction, volume).await?;
    let before = store::find_for_update(&mut transaction, id).await?;
    let before = before.filter(|before| before.volume_id == volume);
    let before = before.ok_or_else(missing)?;
    if before.held_at.is_some() {
        let detail = "somebody holds it; release it first";
        return Err(Problem::conflict("snapshot_held", detail));
    }
    if garbage::update_deleted(&mut transaction, &[id]).await? == 0 {
        let detail = "a run that is under way relies on it";
        return Err(Problem::conflict("snapshot_in_use", detail));
    }
    garbage::update_protected(&mut transaction, volume).await?;
    let change = Change::new("snapshot.delete", "snapshot", id);
    let change = change.before(
        json!({"volume": volume, "at": before.at.unix_timestamp(), "is_whole": before.is_whole}),
    );
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
