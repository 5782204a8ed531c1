//! `fields=id,name`: a document cut to what was asked for.

use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use crate::api::input::Json;
use crate::api::problem::Problem;

/// The parameters of one host.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HostQuery {
    /// Only these fields, as `id,name,status`.
    pub fields: Option<String>,
}

/// The fields of a host in a list.
pub const OF_HOST: [&str; 33] = [
    "id",
    "name",
    "status",
    "reasons",
    "reason_codes",
    "liveness",
    "liveness_reason",
    "last_seen_at",
    "created_at",
    "machine_id",
    "tags",
    "owner",
    "environment",
    "addresses",
    "instance_id",
    "os_id",
    "os_name",
    "origin",
    "edited",
    "version",
    "updated_at",
    "retired_at",
    "missing_since",
    "merged_into",
    "agent_version",
    "skew_ms",
    "cpu_ratio",
    "memory_used_ratio",
    "disk_used_ratio",
    "failed_unit_count",
    "reboot_required",
    "spool_records",
    "certificate_not_after",
];

/// Whether a host in a list has this field.
pub fn of_host(field: &str) -> bool {
    OF_HOST.contains(&field)
}

/// Whether one host has this field.
pub fn of_detail(field: &str) -> bool {
    field == "notes" || of_host(field)
}

/// Which fields are wanted: these, or all.
#[derive(Clone, Debug, Default)]
pub struct Fields(Option<Vec<String>>);

impl Fields {
    /// Reads a list with commas; a field that is not there is an error that names it.
    pub fn parse(text: Option<&str>, known: fn(&str) -> bool) -> Result<Self, Problem> {
        let Some(text) = text else {
            return Ok(Self(None));
        };
        let fields: Vec<_> = text
            .split(',')
            .map(|field| field.trim().to_owned())
            .collect();
        match fields.iter().find(|field| !known(field)) {
            Some(field) => Err(Problem::parameter(
                "fields",
                format!("names {field:?}, which no host has"),
            )),
            None => Ok(Self(Some(fields))),
        }
    }

    /// Whether all are.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether this one is.
    pub fn has(&self, field: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|fields| fields.iter().any(|wanted| wanted == field))
    }

    /// The columns of a table, in the order in which they were asked for.
    pub fn columns(&self) -> Vec<&str> {
        match &self.0 {
            None => OF_HOST.to_vec(),
            Some(fields) => fields.iter().map(String::as_str).collect(),
        }
    }

    /// The document with nothing else.
    pub fn cut(&self, document: &impl Serialize) -> Value {
        let mut value = serde_json::to_value(document).unwrap_or_default();
        if let (Some(_), Some(object)) = (&self.0, value.as_object_mut()) {
            object.retain(|field, _| self.has(field));
        }
        value
    }

    /// The document as an answer.
    pub fn json(&self, document: &impl Serialize) -> Response {
        if self.is_all() {
            Json(document).into_response()
        } else {
            Json(self.cut(document)).into_response()
        }
    }
}
