//! A volume as its form has it, and what that means.

use std::time::Duration;

use humantime_serde::re::humantime;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::problem::Problem;
use crate::api::volumes::rules::{Files, NewVolume, Program, Source, VolumePatch};
use crate::backups::retention::Rules;
use crate::store::volume_search::VolumeRow;
use crate::web::settings::said;

/// All of a volume that people set, as they type it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "a box each")]
pub struct VolumeForm {
    pub version: i64,
    /// A name or an id.
    pub host: String,
    pub name: String,
    pub kind: String,
    /// One a line, as are the next.
    pub paths: String,
    pub excludes: String,
    pub crosses_file_systems: bool,
    pub program: String,
    pub is_database: bool,
    pub schedule: String,
    /// `10min`, as are the next two.
    pub jitter: String,
    pub rpo: String,
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// `08:00-18:00`, several with commas between.
    pub closed_windows: String,
    /// KiB a second.
    pub bandwidth: String,
    pub pre_hook: String,
    pub post_hook: String,
    pub is_catalog_visible: bool,
    pub is_paused: bool,
    pub owner: String,
    /// `30days`; empty: none.
    pub drill_every: String,
    pub drill_mode: String,
    pub rto: String,
}

impl Default for VolumeForm {
    fn default() -> Self {
        let rules = Rules::DEFAULT;
        Self {
            version: 0,
            host: String::new(),
            name: String::new(),
            kind: "files".to_owned(),
            paths: String::new(),
            excludes: String::new(),
            crosses_file_systems: false,
            program: String::new(),
            is_database: false,
            schedule: "0 2 * * *".to_owned(),
            jitter: "10min".to_owned(),
            rpo: "26h".to_owned(),
            last: rules.last,
            hourly: rules.hourly,
            daily: rules.daily,
            weekly: rules.weekly,
            monthly: rules.monthly,
            yearly: rules.yearly,
            closed_windows: String::new(),
            bandwidth: String::new(),
            pre_hook: String::new(),
            post_hook: String::new(),
            is_catalog_visible: false,
            is_paused: false,
            owner: String::new(),
            drill_every: "30days".to_owned(),
            drill_mode: "full".to_owned(),
            rto: "30min".to_owned(),
        }
    }
}

impl VolumeForm {
    /// As the form of a volume that is there begins.
    pub fn of(row: &VolumeRow) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let source: Source = serde_json::from_value(row.source.0.clone()).unwrap_or_default();
        let files = source.files.unwrap_or_default();
        let program = source.command.or(source.external).unwrap_or_default();
        let rules = row.retention.0;
        Self {
            version: row.version,
            host: row.host_id.to_string(),
            name: row.name.clone(),
            kind: row.kind.clone(),
            paths: files.paths.join("\n"),
            excludes: files.excludes.join("\n"),
            crosses_file_systems: files.crosses_file_systems,
            program: program.program,
            is_database: row.is_database,
            schedule: text(&row.schedule),
            jitter: length(&Some(row.jitter_s)),
            rpo: length(&row.rpo_s),
            last: rules.last,
            hourly: rules.hourly,
            daily: rules.daily,
            weekly: rules.weekly,
            monthly: rules.monthly,
            yearly: rules.yearly,
            closed_windows: windows_text(&row.closed_windows.0),
            bandwidth: row
                .bandwidth
                .map(|bytes| (bytes / 1024).to_string())
                .unwrap_or_default(),
            pre_hook: text(&row.pre_hook),
            post_hook: text(&row.post_hook),
            is_catalog_visible: row.is_catalog_visible,
            is_paused: row.is_paused,
            owner: text(&row.owner),
            drill_every: length(&row.drill_every_s),
            drill_mode: row.drill_mode.clone(),
            rto: length(&row.rto_s),
        }
    }

    /// Each rule with how many it keeps.
    pub fn kept(&self) -> [(&'static str, u32); 6] {
        [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
    }

    /// The volume that it asks for.
    pub fn new_volume(&self, host_id: Uuid) -> Result<NewVolume, Problem> {
        Ok(NewVolume {
            host_id,
            name: self.name.trim().to_owned(),
            source: self.source()?,
            is_database: self.is_database,
            schedule: said(&self.schedule),
            jitter_s: seconds("jitter", &self.jitter)?,
            rpo_s: seconds("rpo", &self.rpo)?,
            retention: Some(self.rules()),
            closed_windows: windows(&self.closed_windows)?,
            bandwidth: self.bytes_a_second()?,
            pre_hook: said(&self.pre_hook),
            post_hook: said(&self.post_hook),
            is_catalog_visible: self.is_catalog_visible,
            is_paused: self.is_paused,
            owner: said(&self.owner),
            drill_every_s: Some(seconds("drill_every", &self.drill_every)?),
            drill_mode: said(&self.drill_mode),
            rto_s: Some(seconds("rto", &self.rto)?),
        })
    }

    /// What it makes of a volume that is there.
    pub fn patch(&self) -> Result<VolumePatch, Problem> {
        Ok(VolumePatch {
            name: Some(self.name.trim().to_owned()),
            source: Some(self.source()?),
            is_database: Some(self.is_database),
            schedule: Some(said(&self.schedule)),
            jitter_s: Some(seconds("jitter", &self.jitter)?.unwrap_or(0)),
            rpo_s: Some(seconds("rpo", &self.rpo)?),
            retention: Some(self.rules()),
            closed_windows: Some(windows(&self.closed_windows)?),
            bandwidth: Some(self.bytes_a_second()?),
            pre_hook: Some(said(&self.pre_hook)),
            post_hook: Some(said(&self.post_hook)),
            is_catalog_visible: Some(self.is_catalog_visible),
            is_paused: Some(self.is_paused),
            owner: Some(said(&self.owner)),
            drill_every_s: Some(seconds("drill_every", &self.drill_every)?),
            drill_mode: said(&self.drill_mode),
            rto_s: Some(seconds("rto", &self.rto)?),
        })
    }

    fn source(&self) -> Result<Source, Problem> {
        let lines = |text: &str| -> Vec<String> { text.lines().filter_map(said).collect() };
        let program = || {
            Some(Program {
                program: self.program.trim().to_owned(),
            })
        };
        let mut source = Source::default();
        match self.kind.as_str() {
            "files" => {
                source.files = Some(Files {
                    paths: lines(&self.paths),
                    excludes: lines(&self.excludes),
                    crosses_file_systems: self.crosses_file_systems,
                });
            }
            "command" => source.command = program(),
            "external" => source.external = program(),
            _ => {
                let detail = "must be one of files, command, external";
                return Err(Problem::parameter("kind", detail));
            }
        }
        Ok(source)
    }

    fn rules(&self) -> Rules {
        Rules {
            last: self.last,
            hourly: self.hourly,
            daily: self.daily,
            weekly: self.weekly,
            monthly: self.monthly,
            yearly: self.yearly,
        }
    }

    fn bytes_a_second(&self) -> Result<Option<i64>, Problem> {
        let Some(text) = said(&self.bandwidth) else {
            return Ok(None);
        };
        let kib: Option<i64> = text.parse().ok();
        let bytes = kib.and_then(|kib| kib.checked_mul(1024));
        let detail = "must be a number of KiB a second";
        bytes
            .map(Some)
            .ok_or_else(|| Problem::parameter("bandwidth", detail))
    }
}

/// `26h`, `1h 30min`; empty is none.
fn seconds(field: &str, text: &str) -> Result<Option<i32>, Problem> {
    let Some(text) = said(text) else {
        return Ok(None);
    };
    let length = humantime::parse_duration(&text).ok();
    let length = length.and_then(|length| i32::try_from(length.as_secs()).ok());
    let detail = "must be a length of time such as 30min, 26h or 7days";
    length
        .map(Some)
        .ok_or_else(|| Problem::parameter(field, detail))
}

/// A length of time as [`seconds`] reads it.
pub fn length(seconds: &Option<i32>) -> String {
    let length = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let length = length.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
    length.map(|length| length.to_string()).unwrap_or_default()
}

fn windows(text: &str) -> Result<Vec<(u16, u16)>, Problem> {
    let minute = |text: &str| -> Option<u16> {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let window = |text: &str| {
        let (from, until) = text.split_once('-')?;
        Some((minute(from)?, minute(until)?))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let windows: Option<Vec<_>> = parts.map(window).collect();
    let detail = "must be times such as 08:00-18:00, with commas between";
    windows.ok_or_else(|| Problem::parameter("closed_windows", detail))
}

/// Windows as [`windows`] reads them.
pub fn windows_text(windows: &[(u16, u16)]) -> String {
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let windows: Vec<_> = windows
        .iter()
        .map(|(from, until)| format!("{}-{}", clock(*from), clock(*until)))
        .collect();
    windows.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_windows_are_read_as_they_are_written() {
        for (text, read) in [("26h", 93_600), ("30min", 1800), ("1day", 86_400)] {
            assert_eq!(seconds("rpo", text).unwrap(), Some(read));
            assert_eq!(
                seconds("rpo", &length(&Some(read))).unwrap(),
                Some(read),
                "{text}"
            );
        }
        assert_eq!(seconds("rpo", " ").unwrap(), None);
        seconds("rpo", "soon").unwrap_err();
        seconds("rpo", "9999years").unwrap_err();
        let read = windows("08:00-18:00, 22:30-01:05,").unwrap();
        assert_eq!(read, [(480, 1080), (1350, 65)]);
        assert_eq!(windows(&windows_text(&read)).unwrap(), read);
        for bad in ["8-18", "08:00", "24:00-01:00", "a:b-c:d", "08:60-09:00"] {
            windows(bad).unwrap_err();
        }
    }
}
