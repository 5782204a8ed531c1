//! The words by which hosts are filtered, in a list's parameters and in a bulk action's body alike.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::hosts::REASONS;
use crate::api::problem::Problem;
use crate::store::hosts::filter::{Filter, State};
use crate::store::hosts::list::{Column, Sort};

/// Characters of a search.
const Q_CHARS: usize = 256;
/// Words of a search, and tags of a filter.
const MOST_WORDS: usize = 16;
/// Hosts that are named by their ids.
const MOST_IDS: usize = 500;
const CERTIFICATE_DAYS: RangeInclusive<i32> = 0..=3650;
/// Characters of any other value.
const VALUE_CHARS: usize = 253;
const STATUSES: [&str; 4] = ["healthy", "degraded", "unhealthy", "unknown"];
const LIVENESS: [&str; 4] = ["online", "late", "offline", "never"];
const ORIGINS: [&str; 3] = ["agent", "manual", "inventory"];
const STATES: [&str; 4] = ["active", "missing", "retired", "all"];

/// The parameters of the list of hosts; all filters are to hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct HostsQuery {
    /// Any of these hosts, by id, more than once or with commas; at most 500.
    pub id: Vec<String>,
    /// Any of `healthy`, `degraded`, `unhealthy`, `unknown`, with commas.
    pub status: Option<String>,
    /// Any of `online`, `late`, `offline`, `never`, with commas.
    pub liveness: Option<String>,
    /// Words, each the beginning of one in name, addresses, tags, owner, environment or facts, or part of the name.
    pub q: Option<String>,
    /// All of these tags, more than once or with commas.
    pub tag: Vec<String>,
    /// None of these tags.
    pub not_tag: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    /// `agent | manual | inventory`.
    pub origin: Option<String>,
    /// As in os-release: `debian`.
    pub os: Option<String>,
    pub agent_version: Option<String>,
    /// An address, or a network that one of the host's is in.
    pub address: Option<String>,
    /// Any of these `reason_codes`, with commas.
    pub reason: Option<String>,
    /// The certificate expires within so many days, or has expired.
    #[param(minimum = 0, maximum = 3650)]
    pub certificate_days: Option<i32>,
    /// `active` (the default), `missing`, `retired` or `all`.
    pub state: Option<String>,
    pub last_seen_before: Option<String>,
    pub last_seen_after: Option<String>,
    pub created_before: Option<String>,
    pub created_after: Option<String>,
    /// `name` (the default), `status`, `last_seen_at`, `created_at`, `disk_used_ratio`, `memory_used_ratio`,
    /// `cpu_ratio` or `agent_version`; after a `-`, the other way round.
    pub sort: Option<String>,
    /// Only these fields, as `id,name,status`.
    pub fields: Option<String>,
    /// `json` (the default), `csv` or `ndjson`: the last two have all hosts, not a page.
    pub format: Option<String>,
    /// Hosts of a page; 50 where it is not said.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before, with the same filters and sort.
    pub cursor: Option<String>,
}

impl HostsQuery {
    /// The filter, if its words exist.
    pub fn filter(&self) -> Result<Filter, Problem> {
        let state = one_of("state", self.state.as_deref().unwrap_or("active"), &STATES)?;
        for (name, value) in [
            ("owner", &self.owner),
            ("environment", &self.environment),
            ("os", &self.os),
            ("agent_version", &self.agent_version),
        ] {
            if value
                .as_ref()
                .is_some_and(|value| !is_text(value, VALUE_CHARS))
            {
                return Err(Problem::parameter(
                    name,
                    format!("must have 1 to {VALUE_CHARS} characters"),
                ));
            }
        }
        if let Some(origin) = &self.origin {
            one_of("origin", origin, &ORIGINS)?;
        }
        if self
            .certificate_days
            .is_some_and(|days| !CERTIFICATE_DAYS.contains(&days))
        {
            let detail = format!("must be from 0 to {}", CERTIFICATE_DAYS.end());
            return Err(Problem::parameter("certificate_days", detail));
        }
        Ok(Filter {
            hosts: ids(&self.id)?,
            status: any_of("status", self.status.as_deref(), &STATUSES)?,
            liveness: any_of("liveness", self.liveness.as_deref(), &LIVENESS)?,
            words: self.words()?,
            tags: tags("tag", &self.tag)?,
            not_tags: tags("not_tag", &self.not_tag)?,
            owner: self.owner.clone(),
            environment: self.environment.clone(),
            origin: self.origin.clone(),
            os: self.os.clone(),
            agent_version: self.agent_version.clone(),
            address: self.address.as_deref().map(address).transpose()?,
            reasons: any_of("reason", self.reason.as_deref(), &REASONS)?,
            certificate_days: self.certificate_days,
            state: match state {
                "missing" => State::Missing,
                "retired" => State::Retired,
                "all" => State::All,
                _ => State::Active,
            },
            last_seen_before: instant("last_seen_before", self.last_seen_before.as_deref())?,
            last_seen_after: instant("last_seen_after", self.last_seen_after.as_deref())?,
            created_before: instant("created_before", self.created_before.as_deref())?,
            created_after: instant("created_after", self.created_after.as_deref())?,
        })
    }

    /// The sort, if there is such a one.
    pub fn sort(&self) -> Result<Sort, Problem> {
        let Some(text) = self.sort.as_deref() else {
            return Ok(Sort::default());
        };
        let column = match text.strip_prefix('-').unwrap_or(text) {
            "name" => Column::Name,
            "status" => Column::Status,
            "last_seen_at" => Column::LastSeenAt,
            "created_at" => Column::CreatedAt,
            "disk_used_ratio" => Column::DiskUsedRatio,
            "memory_used_ratio" => Column::MemoryUsedRatio,
            "cpu_ratio" => Column::CpuRatio,
            "agent_version" => Column::AgentVersion,
            _ => {
                let words = "name, status, last_seen_at, created_at, disk_used_ratio, memory_used_ratio, \
                             cpu_ratio, agent_version, or one of them after a -";
                return Err(Problem::parameter(
                    "sort",
                    format!("must be one of {words}"),
                ));
            }
        };
        Ok(Sort {
            column,
            is_descending: text.starts_with('-'),
        })
    }

    fn words(&self) -> Result<Vec<String>, Problem> {
        let q = self.q.as_deref().unwrap_or_default();
        if q.chars().count() > Q_CHARS || q.contains('\0') {
            return Err(Problem::parameter(
                "q",
                format!("must have at most {Q_CHARS} characters"),
            ));
        }
        // As `search_words` in the database takes texts apart.
        let apart = |char: char| char.is_whitespace() || "\"'()<>[]{},;|".contains(char);
        let words: Vec<_> = q
            .split(apart)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        if words.len() > MOST_WORDS {
            return Err(Problem::parameter(
                "q",
                format!("must have at most {MOST_WORDS} words"),
            ));
        }
        Ok(words)
    }
}

fn one_of<'a>(name: &str, value: &'a str, words: &[&str]) -> Result<&'a str, Problem> {
    if words.contains(&value) {
        return Ok(value);
    }
    Err(Problem::parameter(
        name,
        format!("must be one of {}", words.join(", ")),
    ))
}

fn any_of(name: &str, values: Option<&str>, words: &[&str]) -> Result<Vec<String>, Problem> {
    let values = values.into_iter().flat_map(|values| values.split(','));
    values
        .map(|value| one_of(name, value.trim(), words).map(str::to_owned))
        .collect()
}

fn tags(name: &str, values: &[String]) -> Result<Vec<String>, Problem> {
    let values = values.iter().flat_map(|values| values.split(','));
    let tags: Vec<_> = values.map(|tag| tag.trim().to_owned()).collect();
    if tags.len() > MOST_WORDS || !tags.iter().all(|tag| is_text(tag, VALUE_CHARS)) {
        return Err(Problem::parameter(
            name,
            format!("must be 1 to {MOST_WORDS} tags with commas between them"),
        ));
    }
    Ok(tags)
}

fn ids(values: &[String]) -> Result<Vec<Uuid>, Problem> {
    let values = values.iter().flat_map(|values| values.split(','));
    let ids: Result<Vec<Uuid>, _> = values.map(|id| Uuid::parse_str(id.trim())).collect();
    ids.ok().filter(|ids| ids.len() <= MOST_IDS).ok_or_else(|| {
        Problem::parameter(
            "id",
            format!("must be up to {MOST_IDS} ids of hosts with commas between them"),
        )
    })
}

fn is_text(value: &str, most: usize) -> bool {
    !value.is_empty() && value.chars().count() <= most && !value.contains('\0')
}

fn address(text: &str) -> Result<IpNet, Problem> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.map_err(|_| {
        Problem::parameter(
            "address",
            "must be an IP address or a network like 10.3.0.0/16",
        )
    })
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<OffsetDateTime>, Problem> {
    let Some(text) = text else { return Ok(None) };
    OffsetDateTime::parse(text, &Rfc3339)
        .map(Some)
        .map_err(|_| Problem::parameter(name, "must be an instant like 2026-01-31T12:00:00Z"))
}
