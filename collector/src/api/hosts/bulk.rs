//! `POST /api/v1/hosts/bulk`: one action on every host that matches a filter, or what it would do.
//!
//! In transactions of at most 1,000 hosts, sorted by id as everybody locks them; one audit record a host.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::query::HostsQuery;
use crate::api::hosts::retire;
use crate::api::hosts::rules::{self, MOST_TAGS, given};
use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::roles::Role;
use crate::store::hosts::edit::{self, EditRow};
use crate::store::hosts::filter::Filter;
use crate::store::hosts::list;

/// Hosts of one action.
const MOST_HOSTS: usize = 100_000;
/// Hosts of one transaction.
const CHUNK: usize = 1000;
/// Failures, and changes, that are shown.
const MOST_SHOWN: usize = 20;

/// What to do with which hosts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// As the list's parameters, without sort, pages and formats.
    pub filter: HostsQuery,
    pub action: BulkAction,
    /// Only says what it would do.
    #[serde(default)]
    pub dry_run: bool,
    /// Where another number of hosts match, nothing is done.
    pub expected_total: Option<usize>,
    /// Where other hosts match than those of the `digest` that a dry run answered, nothing is done.
    pub expected_digest: Option<String>,
}

/// What to do; all of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BulkAction {
    pub add_tags: Vec<String>,
    pub remove_tags: Vec<String>,
    pub set: BulkSet,
    /// Needs the role `lead`.
    pub retire: bool,
}

/// Values for every host; `null` takes one away.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BulkSet {
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<Option<String>>,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct BulkDone {
    pub dry_run: bool,
    pub matched: usize,
    /// Over the ids of those that matched: another where other hosts do.
    pub digest: String,
    pub changed: usize,
    /// Those that were as they are to be.
    pub unchanged: usize,
    pub failed_total: usize,
    /// The first 20 of them.
    pub failed: Vec<BulkFailure>,
    /// The first 20 that changed.
    pub sample: Vec<BulkSample>,
}

/// A host that was left as it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BulkFailure {
    pub id: Uuid,
    pub detail: String,
}

/// A host that changed, and what of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BulkSample {
    pub id: Uuid,
    pub name: String,
    #[schema(value_type = Object)]
    pub before: Value,
    #[schema(value_type = Object)]
    pub after: Value,
}

impl BulkDone {
    fn fail(&mut self, id: Uuid, detail: &str) {
        self.failed_total += 1;
        if self.failed.len() < MOST_SHOWN {
            self.failed.push(BulkFailure {
                id,
                detail: detail.to_owned(),
            });
        }
    }

    fn add(&mut self, step: Self) {
        self.changed += step.changed;
        self.unchanged += step.unchanged;
        self.sample.extend(step.sample);
        self.failed_total += step.failed_total;
        let room = MOST_SHOWN.saturating_sub(self.failed.len());
        self.failed.extend(step.failed.into_iter().take(room));
    }
}

/// Does one thing to all hosts for which every filter holds, or says what it would do.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/bulk",
    tag = "hosts",
    request_body = Bulk,
    responses((status = 200, body = BulkDone)),
)]
pub async fn bulk(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(mut body): Json<Bulk>,
) -> Result<Json<BulkDone>, Problem> {
    body.action.check()?;
    if body.action.retire && caller.role.is_none_or(|role| role < Role::Lead) {
        let detail = "to retire hosts needs the role lead";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let filter = filter(&body.filter)?;
    let now = app.clock.now();
    let ids = {
        let mut connection = app.pool.acquire().await?;
        let most = i64::try_from(MOST_HOSTS + 1).unwrap_or(i64::MAX);
        let cutoffs = app.silence.cutoffs(now);
        list::list_ids(&mut connection, &filter, cutoffs, most).await?
    };
    if ids.len() > MOST_HOSTS {
        let detail = format!("over {MOST_HOSTS} hosts match, more than one action takes");
        return Err(Problem::conflict("too_many_hosts", detail));
    }
    if body
        .expected_total
        .is_some_and(|expected| expected != ids.len())
    {
        let detail = format!("{} hosts match; nothing was changed", ids.len());
        return Err(Problem::conflict("total_differs", detail));
    }
    let digest = digest(&ids);
    if body
        .expected_digest
        .as_ref()
        .is_some_and(|expected| *expected != digest)
    {
        let detail = "other hosts match than before; nothing was changed";
        return Err(Problem::conflict("hosts_differ", detail));
    }
    let mut done = BulkDone {
        dry_run: body.dry_run,
        matched: ids.len(),
        digest,
        ..BulkDone::default()
    };
    let mut chunks = ids.chunks(CHUNK);
    for chunk in chunks.by_ref() {
        if let Err(error) = act(&app, &caller, &body, chunk, now, &mut done).await {
            tracing::error!(%error, "a bulk action stopped");
            // Nothing of this chunk was committed; what was before it stays.
            for id in chunk {
                done.fail(*id, "the database did not answer");
            }
            break;
        }
    }
    for id in chunks.flatten() {
        done.fail(*id, "not tried, because the database did not answer before");
    }
    let (matched, changed) = (done.matched, done.changed);
    tracing::info!(
        by = caller.name,
        dry_run = body.dry_run,
        matched,
        changed,
        "bulk action on hosts"
    );
    Ok(Json(done))
}

impl BulkAction {
    /// Puts it into the form that rows have.
    fn check(&mut self) -> Result<(), Problem> {
        self.add_tags = rules::tags("/action/add_tags", &self.add_tags)?;
        for (place, value) in [
            ("/action/set/owner", &mut self.set.owner),
            ("/action/set/environment", &mut self.set.environment),
        ] {
            if let Some(wanted) = value {
                *wanted = rules::text(place, wanted.as_deref())?;
            }
        }
        if let Some(tag) = self
            .add_tags
            .iter()
            .find(|tag| self.remove_tags.contains(tag))
        {
            let detail = format!("has {tag:?}, which is to be added too");
            return Err(Problem::field("/action/remove_tags", detail));
        }
        let sets = self.set.owner.is_some() || self.set.environment.is_some();
        if self.add_tags.is_empty() && self.remove_tags.is_empty() && !sets && !self.retire {
            return Err(Problem::field("/action", "says nothing to do"));
        }
        Ok(())
    }

    /// Makes of `row` what it is to be, or says why not.
    fn apply(&self, row: &mut EditRow, now: OffsetDateTime) -> Result<(), String> {
        let mut tags = row.tags.clone();
        tags.retain(|tag| !self.remove_tags.contains(tag));
        tags.extend(
            self.add_tags
                .iter()
                .filter(|tag| !row.tags.contains(tag))
                .cloned(),
        );
        if tags != row.tags {
            if tags.len() > MOST_TAGS {
                return Err(format!("it would have over {MOST_TAGS} tags"));
            }
            tags.sort();
            row.tags = tags;
            rules::mark(row, "tags", true);
        }
        if let Some(owner) = &self.set.owner {
            row.owner.clone_from(owner);
            rules::mark(row, "owner", owner.is_some());
        }
        if let Some(environment) = &self.set.environment {
            row.environment.clone_from(environment);
            rules::mark(row, "environment", environment.is_some());
        }
        if self.retire && row.retired_at.is_none() {
            row.retired_at = Some(now);
        }
        Ok(())
    }
}

/// The same for the same hosts, which are sorted.
fn digest(ids: &[Uuid]) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.as_bytes());
    }
    hex::encode(hasher.finalize().as_bytes().get(..16).unwrap_or_default())
}

fn filter(query: &HostsQuery) -> Result<Filter, Problem> {
    for (name, is_set) in [
        ("sort", query.sort.is_some()),
        ("fields", query.fields.is_some()),
        ("format", query.format.is_some()),
        ("limit", query.limit.is_some()),
        ("cursor", query.cursor.is_some()),
    ] {
        if is_set {
            let detail = "is for lists; an action is on all hosts that match";
            return Err(Problem::field(format!("/filter/{name}"), detail));
        }
    }
    query
        .filter()
        .map_err(|problem| match problem.errors.first() {
            Some(place) => {
                let name = place.parameter.as_deref().unwrap_or_default();
                Problem::field(format!("/filter/{name}"), &place.detail)
            }
            None => problem,
        })
}

/// Acts on the hosts of one transaction. `done` counts them where it was committed.
async fn act(
    app: &App,
    caller: &Caller,
    body: &Bulk,
    ids: &[Uuid],
    now: OffsetDateTime,
    done: &mut BulkDone,
) -> sqlx::Result<()> {
    let mut transaction = app.pool.begin().await?;
    let before = edit::lock(&mut transaction, ids).await?;
    let mut step = BulkDone::default();
    let known: HashSet<_> = before.iter().map(|row| row.host_id).collect();
    for id in ids.iter().filter(|id| !known.contains(id)) {
        step.fail(*id, "it was deleted meanwhile");
    }
    let (mut changed, mut retired) = (Vec::new(), Vec::new());
    let actor = caller.actor();
    for was in before {
        let mut is = was.clone();
        if let Err(detail) = body.action.apply(&mut is, now) {
            step.fail(was.host_id, &detail);
            continue;
        }
        if is == was {
            step.unchanged += 1;
            continue;
        }
        let (before, after) = rules::difference(&was, &is);
        if done.sample.len() + step.sample.len() < MOST_SHOWN {
            step.sample.push(BulkSample {
                id: is.host_id,
                name: is.name.clone(),
                before: before.clone(),
                after: after.clone(),
            });
        }
        step.changed += 1;
        if body.dry_run {
            continue;
        }
        if is.retired_at != was.retired_at {
            retired.push(is.host_id);
        }
        let change = Change {
            action: if body.action.retire {
                "host.retire"
            } else {
                "host.update"
            },
            subject_kind: "host",
            subject_id: is.host_id.to_string(),
            before: Some(before),
            after: Some(after),
        };
        audit::record(&mut transaction, &actor, change, now).await?;
        changed.push(is);
    }
    if !changed.is_empty() {
        edit::update(&mut transaction, &changed, now).await?;
    }
    if !retired.is_empty() {
        retire::revoke(
            &mut transaction,
            &retired,
            caller,
            "the host was retired",
            now,
        )
        .await?;
    }
    transaction.commit().await?;
    done.add(step);
    Ok(())
}
