//! Which host each entry means: by instance id, then the host it meant before, then by address, then by name.
//!
//! The surest way is gone for all entries before the next, and what is not unique links nothing: it is a conflict.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::documents::Entry;
use super::report::Conflict;
use crate::store::expected_hosts::LedgerRow;
use crate::store::inventories::KnownHost;

/// What an entry means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// No host that is known.
    #[default]
    None,
    /// This one.
    Host {
        host_id: Uuid,
        by: Way,
        /// The row made of the entry before, where the host is another.
        duplicate_id: Option<Uuid>,
    },
    /// More than one, or one that another entry means.
    Conflict,
}

/// How a host was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    InstanceId,
    /// As before.
    Ledger,
    Address,
    Name,
}

impl Way {
    const ALL: [Self; 4] = [Self::InstanceId, Self::Ledger, Self::Address, Self::Name];

    /// As the ledger has it; `None`: what it had.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::InstanceId => Some("instance_id"),
            Self::Address => Some("address"),
            Self::Name => Some("name"),
            Self::Ledger => None,
        }
    }
}

/// Hosts by what finds them.
struct Index<'a> {
    ids: HashMap<Uuid, &'a KnownHost>,
    instance_ids: HashMap<&'a str, Vec<&'a KnownHost>>,
    addresses: HashMap<&'a str, Vec<&'a KnownHost>>,
    names: HashMap<&'a str, Vec<&'a KnownHost>>,
}

/// Links `entries`, each in its place, and says what could not be decided.
pub fn link(
    entries: &[Entry],
    ledger: &BTreeMap<String, LedgerRow>,
    hosts: &[KnownHost],
) -> (Vec<Link>, Vec<Conflict>) {
    let index = Index::of(hosts);
    let mut links = vec![Link::None; entries.len()];
    let mut taken: HashMap<Uuid, &Entry> = HashMap::new();
    let mut conflicts = Vec::new();
    for way in Way::ALL {
        for (entry, link) in entries.iter().zip(&mut links) {
            if *link != Link::None {
                continue;
            }
            let before = ledger
                .get(&entry.key)
                .and_then(|row| index.stands_for(row.host_id?));
            let found = best(index.candidates(way, entry, before));
            *link = match found.as_slice() {
                [] => Link::None,
                [host] => match taken.get(&host.host_id) {
                    None => {
                        taken.insert(host.host_id, entry);
                        let duplicate = before.filter(|before| {
                            before.host_id != host.host_id
                                && !before.has_agent
                                && !before.is_retired
                        });
                        Link::Host {
                            host_id: host.host_id,
                            by: way,
                            duplicate_id: duplicate.map(|duplicate| duplicate.host_id),
                        }
                    }
                    Some(other) => {
                        conflicts.push(Conflict {
                            keys: vec![other.key.clone(), entry.key.clone()],
                            host_ids: vec![host.host_id],
                            detail: "two entries mean one host".to_owned(),
                        });
                        Link::Conflict
                    }
                },
                several => {
                    conflicts.push(Conflict {
                        keys: vec![entry.key.clone()],
                        host_ids: several.iter().map(|host| host.host_id).take(20).collect(),
                        detail: "one entry means more than one host".to_owned(),
                    });
                    Link::Conflict
                }
            };
        }
    }
    (links, conflicts)
}

impl<'a> Index<'a> {
    fn of(hosts: &'a [KnownHost]) -> Self {
        let mut index = Self {
            ids: HashMap::new(),
            instance_ids: HashMap::new(),
            addresses: HashMap::new(),
            names: HashMap::new(),
        };
        for host in hosts {
            index.ids.insert(host.host_id, host);
            if host.merged_into.is_some() {
                continue;
            }
            if let Some(id) = &host.instance_id {
                index.instance_ids.entry(id).or_default().push(host);
            }
            // Addresses and names are given to others once a host is retired; the cloud's ids are not.
            if !host.is_retired {
                for address in &host.addresses {
                    index.addresses.entry(address).or_default().push(host);
                }
                index.names.entry(&host.name).or_default().push(host);
            }
        }
        index
    }

    /// The host, or the one it was merged into.
    fn stands_for(&self, mut id: Uuid) -> Option<&'a KnownHost> {
        for _ in 0..16 {
            let host = *self.ids.get(&id)?;
            match host.merged_into {
                None => return Some(host),
                Some(other) => id = other,
            }
        }
        None
    }

    fn candidates(
        &self,
        way: Way,
        entry: &Entry,
        before: Option<&'a KnownHost>,
    ) -> Vec<&'a KnownHost> {
        let found: Vec<&KnownHost> = match way {
            Way::InstanceId => {
                let id = entry.instance_id.as_deref().unwrap_or_default();
                return self.instance_ids.get(id).cloned().unwrap_or_default();
            }
            Way::Ledger => before.into_iter().collect(),
            Way::Address => {
                let texts = entry.addresses.iter().map(ToString::to_string);
                let hosts = texts.filter_map(|text| self.addresses.get(text.as_str()));
                let mut hosts: Vec<_> = hosts.flatten().copied().collect();
                hosts.sort_by_key(|host| host.host_id);
                hosts.dedup_by_key(|host| host.host_id);
                hosts
            }
            Way::Name => self
                .names
                .get(entry.name.as_str())
                .cloned()
                .unwrap_or_default(),
        };
        // Another instance under the same name or address is another host.
        let may_be = |host: &&KnownHost| match (&host.instance_id, &entry.instance_id) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
        found.into_iter().filter(may_be).collect()
    }
}

/// Those with an agent, else those at work, else the retired ones.
fn best(found: Vec<&KnownHost>) -> Vec<&KnownHost> {
    let rank = |host: &KnownHost| (host.is_retired, !host.has_agent);
    let least = found.iter().map(|host| rank(host)).min();
    found
        .into_iter()
        .filter(|host| Some(rank(host)) == least)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u128, change: impl FnOnce(&mut KnownHost)) -> KnownHost {
        let mut host = KnownHost {
            host_id: Uuid::from_u128(n),
            name: format!("host-{n}"),
            ..KnownHost::default()
        };
        change(&mut host);
        host
    }

    fn entry(name: &str, instance_id: Option<&str>, address: Option<&str>) -> Entry {
        Entry {
            key: instance_id.unwrap_or(name).to_owned(),
            name: name.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            addresses: address
                .map(|text| text.parse().expect("an address"))
                .into_iter()
                .collect(),
            ..Entry::default()
        }
    }

    fn linked(entries: &[Entry], hosts: &[KnownHost]) -> Vec<Option<(u128, Way)>> {
        let (links, _) = link(entries, &BTreeMap::new(), hosts);
        let found = links.into_iter().map(|link| match link {
            Link::Host { host_id, by, .. } => Some((host_id.as_u128(), by)),
            Link::None | Link::Conflict => None,
        });
        found.collect()
    }

    #[test]
    fn an_instance_id_is_surer_than_an_address_and_that_than_a_name() {
        let hosts = [
            host(1, |host| host.instance_id = Some("i-1".to_owned())),
            host(2, |host| host.addresses = vec!["10.0.0.2".to_owned()]),
            host(3, |host| host.name = "web".to_owned()),
        ];
        let one = entry("web", Some("i-1"), Some("10.0.0.2"));
        assert_eq!(linked(&[one], &hosts), [Some((1, Way::InstanceId))]);
        let two = entry("web", Some("i-9"), Some("10.0.0.2"));
        assert_eq!(linked(&[two], &hosts), [Some((2, Way::Address))]);
        assert_eq!(
            linked(&[entry("web", None, None)], &hosts),
            [Some((3, Way::Name))]
        );
        // Another instance of the same name is another host.
        assert_eq!(
            linked(&[entry("host-1", Some("i-2"), None)], &hosts),
            [None]
        );
    }

    #[test]
    fn what_is_not_unique_is_a_conflict_and_links_nothing() {
        let twins = [
            host(1, |host| host.name = "web".to_owned()),
            host(2, |host| host.name = "web".to_owned()),
        ];
        let (links, conflicts) = link(&[entry("web", None, None)], &BTreeMap::new(), &twins);
        assert_eq!((links, conflicts.len()), (vec![Link::Conflict], 1));
        let one = [host(1, |host| host.addresses = vec!["10.0.0.1".to_owned()])];
        let both = [
            entry("a", None, Some("10.0.0.1")),
            entry("b", None, Some("10.0.0.1")),
        ];
        let (links, conflicts) = link(&both, &BTreeMap::new(), &one);
        assert_eq!(links[1], Link::Conflict);
        assert_eq!(conflicts[0].keys, ["a", "b"]);
    }

    #[test]
    fn a_host_with_an_agent_is_meant_before_the_row_that_was_made_of_the_entry() {
        let of_agent = |host: &mut KnownHost| {
            host.instance_id = Some("i-1".to_owned());
            host.has_agent = true;
        };
        let hosts = [
            host(1, |host| host.instance_id = Some("i-1".to_owned())),
            host(2, of_agent),
        ];
        let row = LedgerRow {
            key: "i-1".to_owned(),
            entry: Entry::default(),
            host_id: Some(Uuid::from_u128(1)),
            linked_by: None,
            duplicate_id: None,
            first_seen_at: time::OffsetDateTime::UNIX_EPOCH,
            last_seen_at: time::OffsetDateTime::UNIX_EPOCH,
            gone_at: None,
            destroyed_at: None,
        };
        let ledger = BTreeMap::from([("i-1".to_owned(), row)]);
        let (links, conflicts) = link(&[entry("web", Some("i-1"), None)], &ledger, &hosts);
        assert!(conflicts.is_empty());
        let expected = Link::Host {
            host_id: Uuid::from_u128(2),
            by: Way::InstanceId,
            duplicate_id: Some(Uuid::from_u128(1)),
        };
        assert_eq!(links, [expected]);
    }

    #[test]
    fn a_retired_host_is_found_by_what_nobody_else_is_given() {
        let retired = |host: &mut KnownHost| {
            host.is_retired = true;
            host.instance_id = Some("i-1".to_owned());
            host.addresses = vec!["10.0.0.1".to_owned()];
        };
        let hosts = [host(1, retired)];
        let by_id = entry("web", Some("i-1"), None);
        assert_eq!(linked(&[by_id], &hosts), [Some((1, Way::InstanceId))]);
        assert_eq!(
            linked(&[entry("host-1", None, Some("10.0.0.1"))], &hosts),
            [None]
        );
    }
}
