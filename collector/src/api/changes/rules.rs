//! What may stand in a change that somebody writes down, and what of a captured one may be changed.

use serde::Deserialize;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::changes::OUTCOMES;
use crate::api::hosts::rules::given;
use crate::api::input;
use crate::api::problem::Problem;
use crate::changes::claims::{BadClaim, Claims};
use crate::store::changes::ChangeRow;

const TITLE_CHARS: usize = 200;
const NOTE_BYTES: usize = 16 * 1024;
/// Hosts that are linked to a change by hand.
pub const MOST_HOSTS: usize = 1_000;
/// The end of the year 9999, in seconds since 1970.
const LAST_SECOND: i64 = 253_402_300_799;

/// A change that no tool tells.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewChange {
    #[schema(required, min_length = 1, max_length = 200)]
    pub title: String,
    /// Markdown, 16 KiB at most.
    pub note: Option<String>,
    /// When it began; now where it is not said.
    #[serde(with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it was over; when it began where it is not said.
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// `planned | running | succeeded | failed | interrupted | unknown`; `succeeded` where it is not said.
    pub outcome: Option<String>,
    /// Who did it; who writes it down where it is not said.
    pub actor: Option<String>,
    pub repository: Option<String>,
    pub commit: Option<String>,
    pub branch: Option<String>,
    pub pull_request: Option<String>,
    pub environment: Option<String>,
    /// An http or https address.
    pub run_url: Option<String>,
    /// Hosts that it touched, by their ids: 1,000 at most.
    #[schema(max_items = 1000)]
    pub hosts: Vec<Uuid>,
}

/// A JSON merge patch (RFC 7396). Of a change that runs made only `note` and `hosts` may be in it.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangePatch {
    #[schema(min_length = 1, max_length = 200)]
    pub title: Option<String>,
    /// Markdown, 16 KiB at most.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub note: Option<Option<String>>,
    #[serde(with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    pub outcome: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub actor: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub repository: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub commit: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub branch: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub pull_request: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub run_url: Option<Option<String>>,
    /// All hosts that are linked by hand from here on, by their ids: 1,000 at most.
    #[schema(max_items = 1000)]
    pub hosts: Option<Vec<Uuid>>,
}

impl NewChange {
    /// As what makes it of an empty change.
    pub fn into_patch(self) -> ChangePatch {
        ChangePatch {
            title: Some(self.title),
            note: Some(self.note),
            started_at: self.started_at,
            ended_at: self.ended_at.or(self.started_at),
            outcome: self.outcome,
            actor: self.actor.map(Some),
            repository: Some(self.repository),
            commit: Some(self.commit),
            branch: Some(self.branch),
            pull_request: Some(self.pull_request),
            environment: Some(self.environment),
            run_url: Some(self.run_url),
            hosts: Some(self.hosts),
        }
    }
}

impl ChangePatch {
    /// Makes of `row` what the patch says.
    pub fn apply(&self, row: &mut ChangeRow) -> Result<(), Problem> {
        if let Some(wanted) = &self.note {
            row.note = note(wanted.as_deref())?;
        }
        if let Some(hosts) = &self.hosts
            && hosts.len() > MOST_HOSTS
        {
            let detail = format!("must have at most {MOST_HOSTS} hosts");
            return Err(Problem::field("/hosts", detail));
        }
        if row.origin != "manual" {
            return self.is_beside_runs();
        }
        if let Some(title) = &self.title {
            row.title = input::text("/title", title, 1..=TITLE_CHARS)?;
        }
        if let Some(outcome) = &self.outcome {
            if !OUTCOMES.contains(&outcome.as_str()) {
                let detail = format!("must be one of {}", OUTCOMES.join(", "));
                return Err(Problem::field("/outcome", detail));
            }
            row.outcome.clone_from(outcome);
        }
        self.times(row)?;
        self.said(row).map_err(|bad| {
            let pointer = format!("/{}", bad.name.replace('-', "_"));
            Problem::field(pointer, bad.what)
        })
    }

    /// Refuses what runs tell.
    fn is_beside_runs(&self) -> Result<(), Problem> {
        let of_runs = [
            ("title", self.title.is_some()),
            ("started_at", self.started_at.is_some()),
            ("ended_at", self.ended_at.is_some()),
            ("outcome", self.outcome.is_some()),
            ("actor", self.actor.is_some()),
            ("repository", self.repository.is_some()),
            ("commit", self.commit.is_some()),
            ("branch", self.branch.is_some()),
            ("pull_request", self.pull_request.is_some()),
            ("environment", self.environment.is_some()),
            ("run_url", self.run_url.is_some()),
        ];
        match of_runs.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => {
                let detail =
                    format!("{name} is told by this change's runs; only note and hosts can be set");
                Err(Problem::conflict("captured", detail))
            }
            None => Ok(()),
        }
    }

    fn times(&self, row: &mut ChangeRow) -> Result<(), Problem> {
        for (pointer, wanted, at) in [
            ("/started_at", self.started_at, &mut row.started_at),
            ("/ended_at", self.ended_at, &mut row.ended_at),
        ] {
            let Some(wanted) = wanted else { continue };
            if !(0..=LAST_SECOND).contains(&wanted.unix_timestamp()) {
                return Err(Problem::field(pointer, "must be from 1970 to 9999, in UTC"));
            }
            *at = wanted;
        }
        if row.ended_at < row.started_at {
            return Err(Problem::field("/ended_at", "must not be before started_at"));
        }
        Ok(())
    }

    /// What claims are where a run tells it.
    fn said(&self, row: &mut ChangeRow) -> Result<(), BadClaim> {
        let fields = [
            ("actor", &self.actor, &mut row.actor),
            ("repository", &self.repository, &mut row.repository),
            ("commit", &self.commit, &mut row.commit_id),
            ("branch", &self.branch, &mut row.branch),
            ("pull-request", &self.pull_request, &mut row.pull_request),
            ("environment", &self.environment, &mut row.environment),
            ("run-url", &self.run_url, &mut row.run_url),
        ];
        for (name, wanted, field) in fields {
            let Some(wanted) = wanted else { continue };
            let claims = Claims::read(|other| wanted.as_deref().filter(|_| other == name))?;
            *field = [
                claims.actor,
                claims.repository,
                claims.commit,
                claims.branch,
                claims.pull_request,
                claims.environment,
                claims.run_url,
            ]
            .into_iter()
            .find_map(|claim| claim);
        }
        Ok(())
    }
}

fn note(wanted: Option<&str>) -> Result<Option<String>, Problem> {
    let wanted = wanted.filter(|wanted| !wanted.trim().is_empty());
    if wanted.is_some_and(|text| text.len() > NOTE_BYTES || text.contains('\0')) {
        let detail = format!("must have at most {NOTE_BYTES} bytes, none of them 0");
        return Err(Problem::field("/note", detail));
    }
    Ok(wanted.map(str::to_owned))
}
