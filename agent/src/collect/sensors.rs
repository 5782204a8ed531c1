//! `facts.sensors`: what the machine can measure of itself and within which limits, not the readings.
//!
//! From `/sys/class/hwmon` (kernel: Documentation/hwmon/sysfs-interface.rst). Chips get their numbers in
//! the order their drivers load, so a chip is known by its name and its device. Thermal zones are told only
//! where there is no chip: they mostly show the same sensors again. The heartbeat has the hottest reading.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

const HWMON: &str = "sys/class/hwmon";
const THERMAL: &str = "sys/class/thermal";
/// The most sensors told; more have no room in one message.
const SENSORS: usize = 500;
/// Why there is no reading.
pub(super) const NONE: &str = "no temperature sensor";
/// A reading from here on is that of a sensor that is not connected.
const HOTTEST_CELSIUS: f32 = 150.0;
/// Asking a disk may keep it from ever standing still (Documentation/hwmon/drivetemp.rst).
const NOT_READ: &str = "drivetemp";
/// The kinds of sensors.
const KINDS: &[Kind] = &[
    Kind {
        prefix: "fan",
        unit: "rpm",
        steps: 1.0,
        below: 1e6,
    },
    Kind {
        prefix: "in",
        unit: "volts",
        steps: 1e3,
        below: 1e4,
    },
    Kind {
        prefix: "power",
        unit: "watts",
        steps: 1e6,
        below: 1e6,
    },
    Kind {
        prefix: "temp",
        unit: "celsius",
        steps: 1e3,
        below: 1e3,
    },
];

struct Kind {
    /// What its files begin with.
    prefix: &'static str,
    unit: &'static str,
    /// How many of what the files count make one of the unit.
    steps: f64,
    /// A limit from here on is the largest number of a register that nobody has set.
    below: f64,
}

#[derive(Serialize)]
struct Facts {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chips: Vec<Chip>,
    /// How many sensors more there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<usize>,
    /// The type of each zone, where no chip is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    thermal_zones: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Chip {
    /// The driver's name for it: `coretemp`, `nvme`.
    name: String,
    /// Which one: `coretemp.0`, `0000:01:00.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// By the name of their files: `temp1`.
    sensors: BTreeMap<String, Sensor>,
}

/// Limits are in the unit, and left out where nobody has set them.
#[derive(Debug, PartialEq, Serialize)]
struct Sensor {
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<f64>,
}

/// The body of `facts.sensors`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let names = root.names(HWMON).unwrap_or_default();
    let mut chips: Vec<_> = names.iter().filter_map(|name| chip(root, name)).collect();
    chips.sort_by(|a, b| (&a.name, &a.device).cmp(&(&b.name, &b.device)));
    let left_out = cut(&mut chips, SENSORS);
    let thermal_zones = if chips.is_empty() {
        thermal_zones(root)
    } else {
        BTreeMap::new()
    };
    if chips.is_empty() && thermal_zones.is_empty() {
        return Err(format!(
            "no sensor in /{HWMON} and no zone in /{THERMAL}, as in most virtual machines"
        ));
    }
    to_value(&Facts {
        chips,
        left_out: (left_out > 0).then_some(left_out),
        thermal_zones,
    })
}

/// Whether there is any chip: most virtual machines have none, and need no thread to find out.
pub(super) fn are_there(root: &Root) -> bool {
    root.names(HWMON).is_ok_and(|chips| !chips.is_empty())
}

/// The hottest of all temperatures, in °C.
pub(super) fn hottest(root: &Root) -> Result<f32, Reason> {
    let chips = root.names(HWMON).unwrap_or_default();
    let readings = chips
        .iter()
        .map(|chip| format!("{HWMON}/{chip}"))
        .filter(|chip| root.find(&format!("{chip}/name")).as_deref() != Some(NOT_READ))
        .flat_map(|chip| {
            let files = root.names(&chip).unwrap_or_default().into_iter();
            files.filter_map(move |file| reading(root, &chip, &file))
        });
    readings.reduce(f32::max).ok_or_else(|| NONE.to_owned())
}

/// The temperature in a file of that kind, unless its chip says that the sensor is broken.
fn reading(root: &Root, chip: &str, file: &str) -> Option<f32> {
    let name = file.strip_suffix("_input")?;
    if kind(name)?.prefix != "temp" || root.find_flag(&format!("{chip}/{name}_fault")) == Some(true)
    {
        return None;
    }
    let thousandths: f32 = root.find(&format!("{chip}/{file}"))?.parse().ok()?;
    Some(thousandths / 1e3).filter(|celsius| celsius.abs() < HOTTEST_CELSIUS)
}

/// A chip with sensors; some have none of the kinds told here.
fn chip(root: &Root, entry: &str) -> Option<Chip> {
    let at = format!("{HWMON}/{entry}");
    let files = root.names(&at).ok()?;
    let sensors: BTreeMap<_, _> = files
        .iter()
        .filter_map(|file| {
            let name = file
                .strip_suffix("_input")
                .or_else(|| file.strip_suffix("_average"))?;
            Some((
                name.to_owned(),
                sensor(root, &format!("{at}/{name}"), kind(name)?),
            ))
        })
        .collect();
    let device = root.link(&format!("{at}/device"));
    (!sensors.is_empty()).then(|| Chip {
        name: root.find(&format!("{at}/name")).unwrap_or_default(),
        device: device.and_then(|device| Some(device.rsplit('/').next()?.to_owned())),
        sensors,
    })
}

/// `temp12` is a temperature; `tempo` is nothing.
fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| {
        let number = name.strip_prefix(kind.prefix).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn sensor(root: &Root, at: &str, kind: &Kind) -> Sensor {
    let limit = |name: &str| {
        let steps: f64 = root.find(&format!("{at}_{name}"))?.parse().ok()?;
        let limit = steps / kind.steps;
        (limit > 0.0 && limit < kind.below).then_some(limit)
    };
    Sensor {
        unit: kind.unit,
        label: root.find(&format!("{at}_label")),
        max: limit("max"),
        crit: limit("crit"),
    }
}

/// Leaves the first `most` sensors, and answers how many went.
fn cut(chips: &mut Vec<Chip>, most: usize) -> usize {
    let mut left = most;
    let mut gone = 0;
    for chip in &mut *chips {
        let count = chip.sensors.len();
        let kept = std::mem::take(&mut chip.sensors);
        chip.sensors = kept.into_iter().take(left).collect();
        left -= chip.sensors.len();
        gone += count - chip.sensors.len();
    }
    chips.retain(|chip| !chip.sensors.is_empty());
    gone
}

fn thermal_zones(root: &Root) -> BTreeMap<String, String> {
    let names = root.names(THERMAL).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| name.starts_with("thermal_zone"))
        .filter_map(|name| {
            let kind = root.find(&format!("{THERMAL}/{name}/type"))?;
            Some((name, kind))
        })
        .take(SENSORS)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    fn told(files: &[(&str, &str)]) -> serde_json::Value {
        let (_keep, root) = fixture::host(files);
        fixture::json(&collect(&root).unwrap())
    }

    #[test]
    fn chips_are_known_by_name_and_device_whatever_their_number_and_tell_no_reading() {
        let chip = |number: u32, files: &[(&str, &str)]| {
            let at = |(file, text): &(&str, &str)| {
                (format!("{HWMON}/hwmon{number}/{file}"), (*text).to_owned())
            };
            files.iter().map(at).collect::<Vec<_>>()
        };
        let cpu = [
            ("name", "coretemp\n"),
            ("device", "->../../../coretemp.0"),
            ("temp1_input", "45000\n"),
            ("temp1_label", "Package id 0\n"),
            ("temp1_max", "84850\n"),
            ("temp1_crit", "100000\n"),
            ("temp1_crit_alarm", "0\n"),
        ];
        let disk = [
            ("name", "nvme\n"),
            ("device", "->../../nvme0"),
            ("temp1_input", "38850\n"),
            ("temp1_max", "65261850\n"),
            ("temp1_crit", "0\n"),
        ];
        let board = [
            ("name", "nct6775\n"),
            ("in0_input", "1008\n"),
            ("in0_max", "1744\n"),
            ("fan2_input", "0\n"),
            ("power1_average", "27000000\n"),
            ("power1_max", "none\n"),
            ("intrusion0_input", "1\n"),
            ("curr1_input", "900\n"),
        ];
        let expected = json!({"chips": [
            {"name": "coretemp", "device": "coretemp.0", "sensors": {"temp1":
                {"unit": "celsius", "label": "Package id 0", "max": 84.85, "crit": 100.0}}},
            {"name": "nct6775", "sensors": {
                "fan2": {"unit": "rpm"},
                "in0": {"unit": "volts", "max": 1.744},
                "power1": {"unit": "watts"},
            }},
            {"name": "nvme", "device": "nvme0", "sensors": {"temp1": {"unit": "celsius"}}},
        ]});
        for numbers in [[0, 1, 2], [2, 0, 1]] {
            let [first, second, third] = numbers;
            let files = [chip(first, &disk), chip(second, &board), chip(third, &cpu)].concat();
            let mut files: Vec<_> = files
                .iter()
                .map(|(path, text)| (path.as_str(), text.as_str()))
                .collect();
            files.push(("sys/class/thermal/thermal_zone0/type", "acpitz\n"));
            assert_eq!(told(&files), expected, "{numbers:?}");
        }
    }

    #[test]
    fn zones_stand_in_where_no_chip_has_a_sensor() {
        let body = told(&[
            ("sys/class/hwmon/hwmon0/name", "AC\n"),
            ("sys/class/thermal/thermal_zone1/type", "x86_pkg_temp\n"),
            ("sys/class/thermal/cooling_device0/type", "Processor\n"),
        ]);
        assert_eq!(
            body,
            json!({"thermal_zones": {"thermal_zone1": "x86_pkg_temp"}})
        );
    }

    #[test]
    fn a_machine_without_sensors_says_so() {
        for file in ["sys/class/hwmon/hwmon0/tempo_input", "sys/class/thermal/x"] {
            let (_keep, root) = fixture::host(&[(file, "\u{fffd}")]);
            let reason = collect(&root).unwrap_err();
            assert!(
                reason.starts_with("no sensor in /sys/class/hwmon"),
                "{reason}"
            );
        }
    }

    #[test]
    fn the_hottest_reading_is_that_of_a_sensor_that_works_and_no_disk_is_woken_for_it() {
        let (_keep, root) = fixture::host(&[
            ("sys/class/hwmon/hwmon0/name", "k10temp\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "48625\n"),
            ("sys/class/hwmon/hwmon0/temp2_input", "-5000\n"),
            ("sys/class/hwmon/hwmon0/temp3_input", "99000\n"),
            ("sys/class/hwmon/hwmon0/temp3_fault", "1\n"),
            ("sys/class/hwmon/hwmon0/temp4_input", "255000\n"),
            ("sys/class/hwmon/hwmon0/temp5_input", "hot\n"),
            ("sys/class/hwmon/hwmon0/fan1_input", "120000\n"),
            ("sys/class/hwmon/hwmon1/name", "drivetemp\n"),
            ("sys/class/hwmon/hwmon1/temp1_input", "60000\n"),
        ]);
        assert_eq!(hottest(&root), Ok(48.625));
        let (_keep, root) = fixture::host(&[("sys/class/hwmon/hwmon0/fan1_input", "900\n")]);
        assert_eq!(hottest(&root), Err(NONE.to_owned()));
    }

    #[test]
    fn more_sensors_than_have_room_are_counted() {
        let chip = |name: &str, count: usize| Chip {
            name: name.to_owned(),
            device: None,
            sensors: (0..count)
                .map(|n| {
                    let sensor = Sensor {
                        unit: "rpm",
                        label: None,
                        max: None,
                        crit: None,
                    };
                    (format!("fan{n}"), sensor)
                })
                .collect(),
        };
        let mut chips = vec![chip("a", 3), chip("b", 4), chip("c", 2)];
        assert_eq!(cut(&mut chips, 5), 4);
        let kept: Vec<_> = chips.iter().map(|chip| chip.sensors.len()).collect();
        assert_eq!(kept, [3, 2]);
    }
}
