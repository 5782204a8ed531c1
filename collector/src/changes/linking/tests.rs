use super::*;
use crate::changes::terraform::{self, Document, Options, Table};

fn host(number: u128) -> Known {
    Known {
        host_id: Uuid::from_u128(number),
        name: format!("web-{number}"),
        created_at: Some(OffsetDateTime::UNIX_EPOCH),
        ..Known::default()
    }
}

fn marks(pairs: &[(Mark, &str)]) -> Values {
    let mut marks = Values::new();
    for (mark, value) in pairs {
        marks.entry(*mark).or_default().push((*value).to_owned());
    }
    normal(marks)
}

/// The host's number, the mark that found it and how sure that is; 0 for several.
fn chosen(pairs: &[(Mark, &str)], known: &[Known]) -> Option<(u128, &'static str, &'static str)> {
    match choose(&marks(pairs), known, None) {
        Found::Nobody => None,
        Found::Several => Some((0, "", "")),
        Found::One {
            host_id,
            method,
            confidence,
        } => Some((host_id.as_u128(), method.name(), confidence.name())),
    }
}

#[test]
fn the_surest_mark_decides() {
    let by_id = Known {
        instance_id: Some("i-1".to_owned()),
        addresses: vec!["10.0.0.9".to_owned()],
        ..host(1)
    };
    let by_address = Known {
        addresses: vec!["10.0.0.5".to_owned()],
        ..host(2)
    };
    let all = [by_id, by_address];
    let told = [
        (Mark::InstanceId, "i-1"),
        (Mark::PrivateAddress, "10.0.0.5"),
    ];
    assert_eq!(chosen(&told, &all), Some((1, "instance_id", "certain")));
    let address = [(Mark::PublicAddress, "10.0.0.5/24")];
    assert_eq!(chosen(&address, &all), Some((2, "private_address", "low")));
    let twice = [(Mark::PrivateAddress, "10.0.0.5"), (Mark::Name, "WEB-2")];
    assert_eq!(chosen(&twice, &all), Some((2, "private_address", "medium")));
    // Another instance at the same address.
    let other = [
        (Mark::InstanceId, "i-7"),
        (Mark::PrivateAddress, "10.0.0.9"),
    ];
    assert_eq!(chosen(&other, &all), None);
}

#[test]
fn what_several_have_links_nobody_by_itself() {
    let twin = |number, mac: &str| Known {
        addresses: vec!["10.0.0.5".to_owned()],
        name: "web".to_owned(),
        macs: vec![mac.to_owned()],
        ..host(number)
    };
    let all = [twin(1, "02:00:00:00:00:01"), twin(2, "02:00:00:00:00:02")];
    for (mark, value) in [(Mark::PrivateAddress, "10.0.0.5"), (Mark::Name, "web")] {
        assert_eq!(chosen(&[(mark, value)], &all), Some((0, "", "")));
    }
    let told = [(Mark::Mac, "02-00-00-00-00-02"), (Mark::Name, "web")];
    assert_eq!(chosen(&told, &all), Some((2, "mac", "high")));
    // A retired one has given its name away.
    let retired = Known {
        is_retired: true,
        ..twin(1, "02:00:00:00:00:01")
    };
    let all = [retired, twin(2, "02:00:00:00:00:02")];
    assert_eq!(
        chosen(&[(Mark::Name, "web")], &all),
        Some((2, "name", "low"))
    );
    assert_eq!(chosen(&[(Mark::Name, "web")], &all[..1]), None);
}

#[test]
fn ids_are_compared_as_firmwares_and_tools_write_them() {
    let known = [Known {
        dmi_uuid: Some("33221100-5544-7766-8899-aabbccddeeff".to_owned()),
        machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
        name: "db.example.com".to_owned(),
        ..host(1)
    }];
    for uuid in [
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "33221100-5544-7766-8899-aabbccddeeff",
    ] {
        assert_eq!(
            chosen(&[(Mark::Uuid, uuid)], &known),
            Some((1, "uuid", "certain"))
        );
    }
    let machine = [(Mark::MachineId, "01234567-89ab-cdef-0123-456789abcdef")];
    assert_eq!(chosen(&machine, &known), Some((1, "machine_id", "high")));
    for (mark, name, is_it) in [
        (Mark::Name, "db", true),
        (Mark::Fqdn, "db.example.com.", true),
        (Mark::Fqdn, "db.example.net", false),
        (Mark::Name, "localhost", false),
    ] {
        assert_eq!(chosen(&[(mark, name)], &known).is_some(), is_it, "{name}");
    }
    for address in [
        "127.0.0.1",
        "::1",
        "169.254.1.1",
        "fe80::1",
        "0.0.0.0",
        "web",
    ] {
        assert!(
            marks(&[(Mark::PublicAddress, address)]).is_empty(),
            "{address}"
        );
    }
}

#[test]
fn what_is_new_is_none_that_was_there_but_by_its_id() {
    let since = Some(OffsetDateTime::UNIX_EPOCH + time::Duration::HOUR);
    let old = Known {
        instance_id: Some("i-1".to_owned()),
        ..host(1)
    };
    let new = Known {
        created_at: since,
        name: "web-1".to_owned(),
        ..host(2)
    };
    let all = [old, new];
    let one = |host: u128, method, confidence| Found::One {
        host_id: Uuid::from_u128(host),
        method,
        confidence,
    };
    let name = marks(&[(Mark::Name, "web-1")]);
    assert_eq!(choose(&name, &all[..1], since), Found::Nobody);
    assert_eq!(
        choose(&name, &all, since),
        one(2, Mark::Name, Confidence::Low)
    );
    let id = marks(&[(Mark::InstanceId, "i-1")]);
    assert_eq!(
        choose(&id, &all, since),
        one(1, Mark::InstanceId, Confidence::Certain)
    );
    // Told by a tag: this one and no other, by id even what was there.
    let told = marks(&[(Mark::Host, "web-1"), (Mark::InstanceId, "i-1")]);
    assert_eq!(
        choose(&told, &all, since),
        one(2, Mark::Host, Confidence::Certain)
    );
    assert_eq!(choose(&told, &all[..1], since), Found::Nobody);
    let told = marks(&[(Mark::Host, &Uuid::from_u128(1).to_string())]);
    assert_eq!(
        choose(&told, &all, since),
        one(1, Mark::Host, Confidence::Certain)
    );
}

#[test]
fn a_plan_wants_what_it_changes_and_twice_what_it_replaces() {
    let change = |actions: &str, before: &str, after: &str| {
        format!(
            r#"{{"address":"aws_instance.x","mode":"managed","type":"aws_instance","name":"x",
               "change":{{"actions":{actions},"before":{before},"after":{after}}}}}"#
        )
    };
    let (old, new) = (r#"{"id":"i-1"}"#, r#"{"tags":{"Name":"x"}}"#);
    let plan = format!(
        r#"{{"format_version":"1.2","resource_changes":[{},{},{},{},{},
           {{"address":"aws_volume_attachment.v","mode":"managed","type":"aws_volume_attachment","name":"v",
             "change":{{"actions":["create"],"before":null,"after":{{"instance_id":"i-1"}}}}}}],
           "resource_drift":[{}]}}"#,
        change(r#"["no-op"]"#, old, old),
        change(r#"["create"]"#, "null", new),
        change(r#"["update"]"#, old, new),
        change(r#"["delete","create"]"#, old, new),
        change(r#"["forget"]"#, old, "null"),
        change(r#"["delete"]"#, old, "null"),
    );
    let read = terraform::read(plan.as_bytes(), Options::default(), &Table::default());
    let Ok(Document::Plan(plan)) = read else {
        panic!("{read:?}");
    };
    let wanted: Vec<_> = of_plan(&plan.resources)
        .into_iter()
        .map(|wanted| {
            (
                wanted.ordinal,
                wanted.role,
                wanted.is_new,
                wanted.marks.len(),
            )
        })
        .collect();
    assert_eq!(
        wanted,
        [
            (1, Role::Is, true, 1),
            (2, Role::Is, false, 2),
            (3, Role::Was, false, 1),
            (3, Role::Is, true, 1),
            (4, Role::Is, false, 1),
            (5, Role::Affects, false, 1),
            (6, Role::Drift, false, 1),
        ]
    );
}
