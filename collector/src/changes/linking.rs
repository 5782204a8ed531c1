//! Which hosts a run is about: what in it may name one, and which of the known hosts that is. The surest mark decides; what
//! more than one host has decides nothing.

use std::net::IpAddr;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::play;
use super::terraform::{Action, Mark, Part, Resource, Values};

/// How a run stands to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The resource as it is after the run.
    Is,
    /// The resource that the run destroys or replaces.
    Was,
    /// The resource was found to be different.
    Drift,
    /// The resource is attached to the host, or the host is no longer managed.
    Affects,
    /// A host of a play.
    Play,
}

/// What may be a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The resource's in its run, or the number of the play's host.
    pub ordinal: i32,
    pub role: Role,
    /// The resource's address, or the name in the play's inventory.
    pub name: String,
    pub marks: Values,
    /// It is made by the run: no host that was there before.
    pub is_new: bool,
}

/// How sure a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    Low,
    Medium,
    High,
    Certain,
}

impl Confidence {
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Certain => "certain",
        }
    }

    fn of(mark: Mark) -> Self {
        match mark {
            Mark::Host | Mark::InstanceId | Mark::Uuid | Mark::Serial => Self::Certain,
            Mark::MachineId | Mark::Mac => Self::High,
            Mark::PublicAddress => Self::Medium,
            Mark::PrivateAddress | Mark::Fqdn | Mark::Name => Self::Low,
        }
    }

    /// Where another mark says the same.
    fn confirmed(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Certain => self,
        }
    }
}

/// What is known of a host that a mark may mean.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub host_id: Uuid,
    pub name: String,
    pub machine_id: Option<String>,
    pub instance_id: Option<String>,
    pub dmi_uuid: Option<String>,
    pub dmi_serial: Option<String>,
    pub macs: Vec<String>,
    pub addresses: Vec<String>,
    pub is_retired: bool,
    pub created_at: Option<OffsetDateTime>,
}

/// Which host it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nobody,
    One {
        host_id: Uuid,
        method: Mark,
        confidence: Confidence,
    },
    /// More than one has what it is known by.
    Several,
}

/// What of a plan may be a host: of what it changes, destroys, attaches to hosts, or found to be different.
pub fn of_plan(resources: &[Resource]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (resource, ordinal) in resources.iter().zip(0..) {
        if resource.mode != "managed" {
            continue;
        }
        let marks = &resource.marks;
        let mut add = |role, marks: Values, is_new| {
            let marks = normal(marks);
            if !marks.is_empty() {
                wanted.push(Wanted {
                    ordinal,
                    role,
                    name: resource.address.clone(),
                    marks,
                    is_new,
                });
            }
        };
        let both = || both(&marks.before, &marks.after);
        match (resource.part, resource.action) {
            (Part::Change, Action::NoOp) if resource.is_imported => add(Role::Is, both(), false),
            (Part::Deferred, _) | (_, Action::NoOp | Action::Read) => continue,
            (Part::Drift, _) => add(Role::Drift, both(), false),
            (Part::Change, Action::Create) => add(Role::Is, marks.after.clone(), true),
            (Part::Change, Action::Update | Action::Forget | Action::Unrecognised) => {
                add(Role::Is, both(), false);
            }
            (Part::Change, Action::Delete) => add(Role::Was, marks.before.clone(), false),
            (Part::Change, Action::DeleteCreate | Action::CreateDelete) => {
                add(Role::Was, marks.before.clone(), false);
                add(Role::Is, marks.after.clone(), true);
            }
            (Part::Change, Action::CreateForget) => {
                add(Role::Affects, marks.before.clone(), false);
                add(Role::Is, marks.after.clone(), true);
            }
        }
        if resource.part == Part::Change {
            add(Role::Affects, marks.affected.clone(), false);
        }
    }
    wanted
}

/// A host of a play.
pub fn of_play(host: &play::Host) -> Wanted {
    let mut marks = Values::new();
    let mut add = |mark, value: &Option<String>| {
        if let Some(value) = value.clone().filter(|value| !value.is_empty()) {
            marks.entry(mark).or_default().push(value);
        }
    };
    add(Mark::MachineId, &host.machine_id);
    add(Mark::Uuid, &host.product_uuid);
    add(Mark::Fqdn, &host.fqdn);
    for name in [&Some(host.name.clone()), &host.ansible_host] {
        let is_address = name
            .as_deref()
            .is_some_and(|name| address(name).is_some() || name.parse::<IpAddr>().is_ok());
        let mark = if is_address {
            Mark::PublicAddress
        } else if name.as_deref().is_some_and(|name| name.contains('.')) {
            Mark::Fqdn
        } else {
            Mark::Name
        };
        add(mark, name);
    }
    Wanted {
        ordinal: host.number,
        role: Role::Play,
        name: host.name.clone(),
        marks: normal(marks),
        is_new: false,
    }
}

/// All values of two, each once.
pub fn both(one: &Values, other: &Values) -> Values {
    let mut all = one.clone();
    for (mark, values) in other {
        let own = all.entry(*mark).or_default();
        for value in values {
            if !own.contains(value) {
                own.push(value.clone());
            }
        }
    }
    all
}

/// Marks as hosts have them; without what every host has.
pub fn normal(marks: Values) -> Values {
    let mut normal = Values::new();
    for (mark, values) in marks {
        for value in values {
            let (mark, value) = match mark {
                Mark::PublicAddress | Mark::PrivateAddress => match address(&value) {
                    Some(address) if is_private(&address) => {
                        (Mark::PrivateAddress, address.to_string())
                    }
                    Some(address) => (Mark::PublicAddress, address.to_string()),
                    None => continue,
                },
                Mark::MachineId => (mark, value.to_lowercase().replace('-', "")),
                Mark::Mac => (mark, value.to_lowercase().replace('-', ":")),
                Mark::Fqdn => (mark, value.trim_end_matches('.').to_lowercase()),
                Mark::Uuid | Mark::Name => (mark, value.to_lowercase()),
                Mark::Host | Mark::InstanceId | Mark::Serial => (mark, value.trim().to_owned()),
            };
            let own = normal.entry(mark).or_default();
            if !value.is_empty() && !is_everybodys(&value) && !own.contains(&value) {
                own.push(value);
            }
        }
    }
    normal.retain(|_, values| !values.is_empty());
    normal
}

fn is_everybodys(value: &str) -> bool {
    // The MAC is the loopback interface's, which guest agents list with the others.
    value == "localhost" || value.starts_with("localhost.") || value == "00:00:00:00:00:00"
}

/// An address that may be one host's, with or without the length of its network's prefix.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.split('/').next()?.trim().parse().ok()?;
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_nobodys = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    (!is_nobodys && !is_link_local).then_some(address)
}

/// RFC 1918, RFC 6598 (carriers' NAT) and RFC 4193: other networks have the same.
fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Which of `known` has these marks, as [`normal`] gives them. What is new since some time is none that was there before,
/// unless an id says so.
pub fn choose(marks: &Values, known: &[Known], new_since: Option<OffsetDateTime>) -> Found {
    // Who says which host it is knows of the rest.
    let is_told = marks.contains_key(&Mark::Host);
    let may_be = |host: &&Known| is_told || !contradicts(marks, host);
    let known: Vec<_> = known.iter().filter(may_be).collect();
    let mut found: Option<(Mark, Vec<&Known>)> = None;
    let mut is_confirmed = false;
    for (mark, values) in marks {
        let matching = matching(*mark, values, &known, new_since);
        found = match found.take() {
            None if matching.is_empty() && *mark == Mark::Host => return Found::Nobody,
            None if matching.is_empty() => None,
            None => Some((*mark, matching)),
            Some((by, before)) => {
                let is_in = |host: &&Known| matching.iter().any(|it| it.host_id == host.host_id);
                let rest: Vec<_> = before.iter().copied().filter(is_in).collect();
                is_confirmed |= rest.len() == 1 && before.len() == 1;
                Some((by, if rest.is_empty() { before } else { rest }))
            }
        };
    }
    match found {
        None => Found::Nobody,
        Some((method, hosts)) => match hosts[..] {
            [host] => {
                let confidence = Confidence::of(method);
                Found::One {
                    host_id: host.host_id,
                    method,
                    confidence: if is_confirmed {
                        confidence.confirmed()
                    } else {
                        confidence
                    },
                }
            }
            _ => Found::Several,
        },
    }
}

/// Those that a mark finds: of hosts at work and retired ones the former, and of the retired ones only those that an id finds,
/// since names and addresses are given to others.
fn matching<'a>(
    mark: Mark,
    values: &[String],
    known: &[&'a Known],
    new_since: Option<OffsetDateTime>,
) -> Vec<&'a Known> {
    let is_id = match mark {
        Mark::InstanceId | Mark::Uuid | Mark::Serial | Mark::MachineId => true,
        Mark::Host
        | Mark::Mac
        | Mark::PublicAddress
        | Mark::PrivateAddress
        | Mark::Fqdn
        | Mark::Name => false,
    };
    let may_be = |host: &Known, value: &str| {
        is_id
            || (mark == Mark::Host && value.eq_ignore_ascii_case(&host.host_id.to_string()))
            || (!host.is_retired && new_since.is_none_or(|since| host.created_at >= Some(since)))
    };
    let has = |host: &&&Known| {
        let mut values = values.iter();
        values.any(|value| may_be(host, value) && has(mark, value, host))
    };
    let mut found: Vec<_> = known.iter().filter(has).copied().collect();
    if found.iter().any(|host| !host.is_retired) {
        found.retain(|host| !host.is_retired);
    }
    found
}

fn has(mark: Mark, value: &str, host: &Known) -> bool {
    let is = |own: &Option<String>| own.as_deref().is_some_and(|own| own == value);
    match mark {
        Mark::Host => {
            value.eq_ignore_ascii_case(&host.host_id.to_string())
                || value.eq_ignore_ascii_case(&host.name)
        }
        Mark::InstanceId => is(&host.instance_id),
        Mark::Uuid => {
            is(&host.dmi_uuid) || swapped(value).is_some_and(|uuid| host.dmi_uuid == Some(uuid))
        }
        Mark::Serial => is(&host.dmi_serial),
        Mark::MachineId => is(&host.machine_id),
        Mark::Mac => host.macs.iter().any(|mac| mac == value),
        Mark::PublicAddress | Mark::PrivateAddress => host.addresses.iter().any(|own| own == value),
        Mark::Fqdn | Mark::Name => is_named(&host.name.to_lowercase(), value),
    }
}

/// The same name, or one of them without its domain.
fn is_named(host: &str, value: &str) -> bool {
    let is_short = |name: &str| !name.contains('.');
    host == value || ((is_short(host) || is_short(value)) && label(host) == label(value))
}

/// What a name begins with, up to its domain.
pub fn label(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// The host has another id of the same kind, and none of these.
fn contradicts(marks: &Values, host: &Known) -> bool {
    let mut differs = false;
    for (mark, own) in [
        (Mark::InstanceId, &host.instance_id),
        (Mark::Uuid, &host.dmi_uuid),
        (Mark::Serial, &host.dmi_serial),
    ] {
        if let (Some(values), Some(_)) = (marks.get(&mark), own) {
            if values.iter().any(|value| has(mark, value, host)) {
                return false;
            }
            differs = true;
        }
    }
    differs
}

/// A UUID with its first three fields the other way round: SMBIOS 2.6 has them little-endian, and some tools print them as they
/// stand (DMTF DSP0134, 7.2.1).
pub fn swapped(uuid: &str) -> Option<String> {
    let uuid: Uuid = uuid.parse().ok()?;
    Some(Uuid::from_bytes(uuid.to_bytes_le()).to_string())
}

#[cfg(test)]
mod tests;
