//! What may stand in a volume. Names of programs and hooks are names only: what they run stands on the host.

use infratrack_shared::limits::STRING_BYTES;
use infratrack_shared::schedule::Schedule;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::drills::MODES;
use crate::api::hosts::rules::given;
use crate::api::input;
use crate::api::problem::Problem;
use crate::backups::retention::Rules;
use crate::store::volume_edits::VolumeSettings;

const NAME_CHARS: usize = 64;
const PATHS: usize = 100;
const EXCLUDES: usize = 500;
/// `PATH_MAX` of Linux.
const PATH_BYTES: usize = 4096;
const WINDOWS: usize = 20;
const MINUTES_OF_A_DAY: u16 = 24 * 60;
/// What comes more slowly the collector hangs up on.
const LEAST_BANDWIDTH: i64 = 128 * 1024;
const DAY_S: i32 = 24 * 60 * 60;
/// An RPO from a minute to a year.
const RPO_S: std::ops::RangeInclusive<i32> = 60..=366 * DAY_S;
/// Between drills: from a day to a year.
const DRILL_S: std::ops::RangeInclusive<i32> = DAY_S..=366 * DAY_S;
const MONTH_S: i32 = 30 * DAY_S;
const HALF_HOUR_S: i32 = 1800;

/// What is protected: exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = VolumeSource)]
pub struct Source {
    /// Trees of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// What a program writes to its standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Program>,
    /// A tool that makes backups itself, whose results are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<Program>,
}

/// Trees of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = VolumeFiles)]
pub struct Files {
    /// Absolute. The host's own configuration bounds what may be read.
    #[schema(required, min_items = 1, max_items = 100)]
    pub paths: Vec<String>,
    /// Patterns as gitignore(5) has them, from the root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 500)]
    pub excludes: Vec<String>,
    /// File systems that are mounted below are entered too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub crosses_file_systems: bool,
}

/// A program by its name in the host's `backup.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VolumeProgram)]
pub struct Program {
    #[schema(min_length = 1, max_length = 64)]
    pub program: String,
}

/// A volume to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    pub host_id: Uuid,
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    pub source: Source,
    #[serde(default)]
    pub is_database: bool,
    /// Cron of five fields, in UTC; on command only where it is not said.
    pub schedule: Option<String>,
    /// A run begins up to this later; 10 minutes where it is not said.
    #[schema(minimum = 0, maximum = 86_400)]
    pub jitter_s: Option<i32>,
    #[schema(minimum = 60, maximum = 31_622_400)]
    pub rpo_s: Option<i32>,
    /// 3 last, 7 daily, 5 weekly, 12 monthly where it is not said.
    pub retention: Option<Rules>,
    /// Minutes of the day in UTC, from and until; over midnight where the second is smaller.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<u16>>, max_items = 20)]
    pub closed_windows: Vec<(u16, u16)>,
    /// Bytes a second.
    #[schema(minimum = 131_072)]
    pub bandwidth: Option<i64>,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    #[serde(default)]
    pub is_catalog_visible: bool,
    #[serde(default)]
    pub is_paused: bool,
    pub owner: Option<String>,
    /// From one restore drill to the next; 30 days where it is not said, none where it is null.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 86_400, maximum = 31_622_400)]
    pub drill_every_s: Option<Option<i32>>,
    /// `full | database | validation`; `full` where it is not said.
    pub drill_mode: Option<String>,
    /// How long a restore may take; 30 minutes where it is not said, nothing is promised where it is null.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 60, maximum = 31_622_400)]
    pub rto_s: Option<Option<i32>>,
}

/// A JSON merge patch (RFC 7396). `source` is replaced as a whole and stays of its kind.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolumePatch {
    #[schema(min_length = 1, max_length = 64)]
    pub name: Option<String>,
    pub source: Option<Source>,
    pub is_database: Option<bool>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub schedule: Option<Option<String>>,
    #[schema(minimum = 0, maximum = 86_400)]
    pub jitter_s: Option<i32>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 60, maximum = 31_622_400)]
    pub rpo_s: Option<Option<i32>>,
    pub retention: Option<Rules>,
    #[schema(value_type = Option<Vec<Vec<u16>>>, max_items = 20)]
    pub closed_windows: Option<Vec<(u16, u16)>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i64>, minimum = 131_072)]
    pub bandwidth: Option<Option<i64>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub pre_hook: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub post_hook: Option<Option<String>>,
    pub is_catalog_visible: Option<bool>,
    pub is_paused: Option<bool>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 86_400, maximum = 31_622_400)]
    pub drill_every_s: Option<Option<i32>>,
    /// `full | database | validation`.
    pub drill_mode: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 60, maximum = 31_622_400)]
    pub rto_s: Option<Option<i32>>,
}

impl NewVolume {
    /// The settings of a volume with this id.
    pub fn into_settings(self, volume_id: Uuid) -> Result<VolumeSettings, Problem> {
        let mut settings = VolumeSettings {
            volume_id,
            host_id: self.host_id,
            name: String::new(),
            kind: self.source.kind()?.to_owned(),
            source: sqlx::types::Json(json!({})),
            is_database: false,
            schedule: None,
            jitter_s: 600,
            rpo_s: None,
            retention: sqlx::types::Json(Rules::DEFAULT),
            closed_windows: sqlx::types::Json(Vec::new()),
            bandwidth: None,
            pre_hook: None,
            post_hook: None,
            is_catalog_visible: false,
            is_paused: false,
            owner: None,
            drill_every_s: Some(MONTH_S),
            drill_mode: "full".to_owned(),
            rto_s: Some(HALF_HOUR_S),
            version: 1,
        };
        let patch = VolumePatch {
            name: Some(self.name),
            source: Some(self.source),
            is_database: Some(self.is_database),
            schedule: Some(self.schedule),
            jitter_s: self.jitter_s,
            rpo_s: Some(self.rpo_s),
            retention: self.retention,
            closed_windows: Some(self.closed_windows),
            bandwidth: Some(self.bandwidth),
            pre_hook: Some(self.pre_hook),
            post_hook: Some(self.post_hook),
            is_catalog_visible: Some(self.is_catalog_visible),
            is_paused: Some(self.is_paused),
            owner: Some(self.owner),
            drill_every_s: self.drill_every_s,
            drill_mode: self.drill_mode,
            rto_s: self.rto_s,
        };
        patch.apply(&mut settings)?;
        Ok(settings)
    }
}

impl VolumePatch {
    /// Makes of the settings what the patch says.
    pub fn apply(self, settings: &mut VolumeSettings) -> Result<(), Problem> {
        if let Some(wanted) = self.name {
            settings.name = name("/name", wanted)?;
        }
        if let Some(source) = self.source {
            if source.kind()? != settings.kind {
                let detail = format!("must stay of the kind {}", settings.kind);
                return Err(Problem::field("/source", detail));
            }
            source.check()?;
            settings.source = sqlx::types::Json(json!(source));
        }
        if let Some(wanted) = self.schedule {
            settings.schedule = wanted.map(schedule).transpose()?;
        }
        if let Some(jitter_s) = self.jitter_s {
            within("/jitter_s", &jitter_s, 0..=DAY_S)?;
            settings.jitter_s = jitter_s;
        }
        if let Some(rpo_s) = self.rpo_s {
            rpo_s.map_or(Ok(()), |rpo_s| within("/rpo_s", &rpo_s, RPO_S))?;
            settings.rpo_s = rpo_s;
        }
        if let Some(retention) = self.retention {
            let checked = retention.check();
            checked.map_err(|detail| Problem::field("/retention", detail))?;
            settings.retention = sqlx::types::Json(retention);
        }
        if let Some(windows) = self.closed_windows {
            closed_windows(&windows)?;
            settings.closed_windows = sqlx::types::Json(windows);
        }
        if let Some(bandwidth) = self.bandwidth {
            let least = LEAST_BANDWIDTH..=i64::MAX;
            bandwidth.map_or(Ok(()), |bytes| within("/bandwidth", &bytes, least))?;
            settings.bandwidth = bandwidth;
        }
        for (pointer, wanted, field) in [
            ("/pre_hook", self.pre_hook, &mut settings.pre_hook),
            ("/post_hook", self.post_hook, &mut settings.post_hook),
        ] {
            if let Some(wanted) = wanted {
                *field = wanted.map(|wanted| name(pointer, wanted)).transpose()?;
            }
        }
        if let Some(owner) = self.owner {
            let owner = owner.map(|owner| input::text("/owner", &owner, 1..=200));
            settings.owner = owner.transpose()?;
        }
        Drills {
            every_s: self.drill_every_s,
            mode: self.drill_mode,
            rto_s: self.rto_s,
        }
        .apply(settings)?;
        settings.is_database = self.is_database.unwrap_or(settings.is_database);
        settings.is_catalog_visible = self
            .is_catalog_visible
            .unwrap_or(settings.is_catalog_visible);
        settings.is_paused = self.is_paused.unwrap_or(settings.is_paused);
        Ok(())
    }
}

/// What is set of drills.
#[expect(clippy::option_option, reason = "not set, set to nothing, set")]
struct Drills {
    every_s: Option<Option<i32>>,
    mode: Option<String>,
    rto_s: Option<Option<i32>>,
}

impl Drills {
    fn apply(self, settings: &mut VolumeSettings) -> Result<(), Problem> {
        if let Some(every_s) = self.every_s {
            every_s.map_or(Ok(()), |every_s| {
                within("/drill_every_s", &every_s, DRILL_S)
            })?;
            settings.drill_every_s = every_s;
        }
        if let Some(rto_s) = self.rto_s {
            rto_s.map_or(Ok(()), |rto_s| within("/rto_s", &rto_s, RPO_S))?;
            settings.rto_s = rto_s;
        }
        if let Some(mode) = self.mode {
            let is_of_files = mode == "database" && settings.kind == "files";
            if !MODES.contains(&mode.as_str()) || is_of_files {
                let detail = "must be full, validation, or of what a program writes database";
                return Err(Problem::field("/drill_mode", detail));
            }
            settings.drill_mode = mode;
        }
        Ok(())
    }
}

impl Source {
    /// Which it is.
    pub fn kind(&self) -> Result<&'static str, Problem> {
        let kinds = [
            ("files", self.files.is_some()),
            ("command", self.command.is_some()),
            ("external", self.external.is_some()),
        ];
        let mut set = kinds.into_iter().filter(|(_, is_set)| *is_set);
        match (set.next(), set.next()) {
            (Some((kind, _)), None) => Ok(kind),
            _ => Err(Problem::field(
                "/source",
                "must have exactly one of files, command, external",
            )),
        }
    }

    fn check(&self) -> Result<(), Problem> {
        let programs = [("command", &self.command), ("external", &self.external)];
        for (kind, program) in programs {
            if let Some(program) = program {
                name(&format!("/source/{kind}/program"), program.program.clone())?;
            }
        }
        self.files.as_ref().map_or(Ok(()), Files::check)
    }
}

impl Files {
    fn check(&self) -> Result<(), Problem> {
        if self.paths.is_empty() || self.paths.len() > PATHS {
            let detail = format!("must have from 1 to {PATHS} paths");
            return Err(Problem::field("/source/files/paths", detail));
        }
        for (index, path) in self.paths.iter().enumerate() {
            let is_plain = path.split('/').all(|part| part != ".." && part != ".");
            if !path.starts_with('/') || !is_plain || path.len() > PATH_BYTES || path.contains('\0')
            {
                let detail = format!(
                    "must be an absolute path without . and .., of at most {PATH_BYTES} bytes"
                );
                return Err(Problem::field(
                    format!("/source/files/paths/{index}"),
                    detail,
                ));
            }
        }
        if self.excludes.len() > EXCLUDES {
            let detail = format!("must have at most {EXCLUDES} patterns");
            return Err(Problem::field("/source/files/excludes", detail));
        }
        for (index, pattern) in self.excludes.iter().enumerate() {
            let is_one = !pattern.trim().is_empty() && !pattern.contains(['\0', '\n']);
            if !is_one || pattern.len() > PATH_BYTES.min(STRING_BYTES) {
                let pointer = format!("/source/files/excludes/{index}");
                return Err(Problem::field(pointer, "must be one pattern of one line"));
            }
        }
        Ok(())
    }
}

/// As file names and metrics can have it.
fn name(pointer: &str, wanted: String) -> Result<String, Problem> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    let is_one = (1..=NAME_CHARS).contains(&wanted.len()) && !wanted.starts_with(['.', '-']);
    if is_one && wanted.chars().all(is_plain) {
        return Ok(wanted);
    }
    let detail =
        format!("must have from 1 to {NAME_CHARS} letters, digits, - _ or ., not . or - first");
    Err(Problem::field(pointer, detail))
}

fn schedule(text: String) -> Result<String, Problem> {
    match text.parse::<Schedule>() {
        Ok(_) => Ok(text),
        Err(error) => Err(Problem::field("/schedule", error)),
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    pointer: &str,
    value: &T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), Problem> {
    if range.contains(value) {
        return Ok(());
    }
    let detail = format!("must be from {} to {}", range.start(), range.end());
    Err(Problem::field(pointer, detail))
}

fn closed_windows(windows: &[(u16, u16)]) -> Result<(), Problem> {
    if windows.len() > WINDOWS {
        let detail = format!("must have at most {WINDOWS} windows");
        return Err(Problem::field("/closed_windows", detail));
    }
    for (index, (from, until)) in windows.iter().enumerate() {
        if *from >= MINUTES_OF_A_DAY || *until >= MINUTES_OF_A_DAY || from == until {
            let detail = format!(
                "must be two different minutes of a day, from 0 to {}",
                MINUTES_OF_A_DAY - 1
            );
            return Err(Problem::field(format!("/closed_windows/{index}"), detail));
        }
    }
    Ok(())
}
