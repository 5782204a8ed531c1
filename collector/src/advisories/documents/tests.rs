//! Documents as their publishers write them, and as nobody should.

use super::*;

fn all(format: Format, bytes: &[u8]) -> Result<(Vec<Advisory>, usize), Refused> {
    let mut advisories = Vec::new();
    let mut take = |advisory| {
        advisories.push(advisory);
        Ok(())
    };
    let mut sink = Sink::new(&mut take);
    read(format, bytes, &mut sink)?;
    let skipped = sink.skipped;
    Ok((advisories, skipped))
}

/// `id [cves] severity: distribution package state version`, a line each.
fn told(format: Format, bytes: &[u8]) -> Vec<String> {
    let (advisories, _) = all(format, bytes).expect("read");
    let lines = advisories.iter().flat_map(|one| {
        one.statements.iter().map(|said| {
            let name = &said.distribution.name;
            let extra = if said.distribution.is_extra { "+" } else { "" };
            let [fixed, first, last] = [
                &said.fixed_version,
                &said.first_affected,
                &said.last_affected,
            ]
            .map(|version| version.clone().unwrap_or_default());
            let severity = one.severity.as_deref().unwrap_or("-");
            let (id, cves) = (&one.id, one.cves.join(","));
            format!(
                "{id} [{cves}] {severity}: {name}{extra} {} {:?} {} {first}<{fixed}<={last} {}",
                said.package,
                said.applies,
                said.state.name(),
                said.note.as_deref().unwrap_or_default(),
            )
        })
    });
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn the_tracker_keeps_fixed_open_never_affected_and_undetermined_apart() {
    let document = include_bytes!("../../../tests/fixtures/advisories/tracker.json");
    assert_eq!(
        told(Format::DebianTracker, document),
        [
            "CVE-2023-5678 [CVE-2023-5678] low: debian:11 openssl Source no_fix <<= low: postponed: Minor issue",
            "CVE-2023-5678 [CVE-2023-5678] low: debian:12 openssl Source fixed <3.0.13-1~deb12u1<=",
            "CVE-2023-5678 [CVE-2023-5678] low: debian:sid openssl Source fixed <3.0.12-2<=",
            "CVE-2024-4741 [CVE-2024-4741] unimportant: debian:11 openssl Source not_affected <<= unimportant",
            "CVE-2024-4741 [CVE-2024-4741] unimportant: debian:12 openssl Source no_fix <<= unimportant",
            "TEMP-0000000-A1B2C3 [] -: debian:12 openssl Source unknown <<=",
            "CVE-2024-9681 [CVE-2024-9681] high: debian:12 curl Source fixed <7.88.1-10+deb12u9<= high",
        ]
    );
}

#[test]
fn records_of_osv_speak_of_every_distribution_that_is_known() {
    let document = include_bytes!("../../../tests/fixtures/advisories/osv.jsonl");
    let again = told;
    let told = told(Format::Osv, document);
    assert_eq!(
        told,
        [
            "CVE-2023-5678 [CVE-2023-5678] -: debian:11 openssl Source no_fix <<= low",
            "CVE-2023-5678 [CVE-2023-5678] -: debian:12 openssl Source fixed <3.0.13-1~deb12u1<=",
            "CVE-2024-2511 [CVE-2024-2511] low: ubuntu:18.04 openssl Source no_fix <<=",
            "CVE-2024-2511 [CVE-2024-2511] low: ubuntu:18.04+ openssl Source fixed <1.1.1-1ubuntu2.1~18.04.23+esm5<=",
            "CVE-2024-2511 [CVE-2024-2511] low: ubuntu:22.04 openssl Source fixed <3.0.2-0ubuntu1.17<=",
            "ALSA-2024:2447 [CVE-2023-2975,CVE-2023-5678] -: almalinux:9 openssl-libs Binary fixed <1:3.0.7-27.el9<=",
            "RHSA-2024:2447 [CVE-2023-5678] low: rhel:9 openssl Binary fixed <1:3.0.7-27.el9<=",
            "SUSE-SU-2024:0518-1 [CVE-2023-5678] -: sles:15.5 openssl-3 Source fixed <3.0.8-150500.5.27.1<=",
            "CVE-2023-5678 [CVE-2023-5678] -: alpine:3.18 openssl Source fixed <3.1.4-r1<=",
            "RLSA-2024:1 [CVE-2024-0001] -: rocky:9 tool Either fixed 1.2<1.3-1.el9<=",
            "RLSA-2024:1 [CVE-2024-0001] -: rocky:9 tool Either no_fix 2.0<<=2.4-1.el9",
        ]
    );
    let (_, skipped) = all(Format::Osv, document).expect("read");
    assert_eq!(
        skipped, 2,
        "builds for FIPS, and what is of no distribution"
    );
    let lines = std::str::from_utf8(document).expect("text").lines();
    let array = format!(" [{}]", lines.collect::<Vec<_>>().join(","));
    assert_eq!(again(Format::Osv, array.as_bytes()), told);
}

#[test]
fn definitions_of_oval_are_read_with_what_they_refer_to() {
    let debian = include_bytes!("../../../tests/fixtures/advisories/debian.oval.xml");
    assert_eq!(
        told(Format::Oval, debian),
        ["CVE-2023-5678 [CVE-2023-5678] -: debian:12 openssl Either fixed <3.0.13-1~deb12u1<="]
    );
    let ubuntu = include_bytes!("../../../tests/fixtures/advisories/ubuntu.oval.xml");
    assert_eq!(
        told(Format::Oval, ubuntu),
        [
            "CVE-2024-2511 [CVE-2024-2511] low: ubuntu:22.04 libssl3 Binary fixed <3.0.2-0ubuntu1.17<=",
            "CVE-2024-2511 [CVE-2024-2511] low: ubuntu:22.04 nodejs Binary no_fix <<= nodejs package in jammy is affected and needs fixing.",
            "CVE-2024-2511 [CVE-2024-2511] low: ubuntu:22.04 openssl Binary fixed <3.0.2-0ubuntu1.17<=",
        ]
    );
    let redhat = include_bytes!("../../../tests/fixtures/advisories/redhat.oval.xml");
    assert_eq!(
        told(Format::Oval, redhat),
        [
            "RHSA-2024:2447 [CVE-2023-2975,CVE-2023-5678] low: rhel:9 openssl-libs Binary fixed <1:3.0.7-27.el9<=",
            "CVE-2024-1086 [CVE-2024-1086] -: rhel:9 openssl-libs Binary not_affected <<= openssl-libs is installed",
            "CVE-2024-0002 [CVE-2024-0002] -: rhel:9 openssl-libs Binary no_fix <<= openssl-libs is installed",
        ]
    );
}

#[test]
fn what_is_no_such_document_is_refused_with_its_place() {
    let refused = |format, bytes: &[u8]| all(format, bytes).expect_err("refused").to_string();
    let bomb = include_bytes!("../../../tests/fixtures/advisories/entities.oval.xml");
    let deep = format!("<oval_definitions>{}", "<a>".repeat(DEPTH + 1));
    let deep_json = format!("{{\"id\":\"x\",\"affected\":{}", "[".repeat(500));
    for (format, bytes, words) in [
        (Format::Osv, &b"  "[..], "is empty"),
        (
            Format::Osv,
            b"{\"id\":\"a\"}\n{\"id\":7}",
            "record 2, line 2, column",
        ),
        (
            Format::Osv,
            b"[{\"id\":\"a\"},{\"summary\":\"\"}]",
            "line 1, column",
        ),
        (Format::Osv, deep_json.as_bytes(), "line 1, column"),
        (Format::Osv, b"PK\x03\x04", "line 1, column"),
        (Format::DebianTracker, b"[]", "source packages"),
        (
            Format::DebianTracker,
            b"{\"a\":{\"CVE-1\":{\"releases\":{\"sid\":{\"status\":\"odd\"}}}}}",
            "a, CVE-1, sid: has the status \"odd\"",
        ),
        (
            Format::DebianTracker,
            b"{\"a\":{\"CVE-1\":{",
            "line 1, column",
        ),
        (Format::Oval, bomb, "has a DTD"),
        (Format::Oval, deep.as_bytes(), "more than 32 deep"),
        (
            Format::Oval,
            b"<oval_definitions><definitions>",
            "ends within an element",
        ),
        (Format::Oval, b"<html></html>", "has no oval_definitions"),
        (
            Format::Oval,
            b"<oval_definitions>&x;</oval_definitions>",
            "the entity \"x\"",
        ),
        (Format::Oval, b"<oval_definitions></b>", "can't be read"),
        (Format::Oval, b"{}", "has no oval_definitions"),
    ] {
        let said = refused(format, bytes);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn names_that_are_none_are_left_out_and_endless_records_refused() {
    let long = "x".repeat(NAME_BYTES + 1);
    let record = |package: &str| {
        format!(
            r#"{{"id":"X","affected":[{{"package":{{"ecosystem":"Debian:12","name":"{package}"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}}]}}]}}]}}"#
        )
    };
    for bad in [long.as_str(), "", "a b", "a\\u0000b"] {
        let (advisories, skipped) = all(Format::Osv, record(bad).as_bytes()).expect("read");
        assert_eq!((advisories.len(), skipped), (0, 1), "{bad}");
    }
    let endless = Read::chain(&b"{\"id\":\""[..], std::io::repeat(b'x'));
    let mut take = |_| Ok(());
    let said = read(Format::Osv, endless, &mut Sink::new(&mut take)).expect_err("refused");
    assert!(said.detail.contains("one record has more than"), "{said}");
    let endless = Read::chain(&b"<oval_definitions><a>"[..], std::io::repeat(b'x'));
    let said = read(Format::Oval, endless, &mut Sink::new(&mut take)).expect_err("refused");
    assert!(said.detail.contains("one record has more than"), "{said}");
}

#[test]
fn what_the_taker_refuses_ends_the_reading() {
    let document = include_bytes!("../../../tests/fixtures/advisories/tracker.json");
    let mut take = |_| Err(Refused::at("here", "is enough"));
    let mut sink = Sink::new(&mut take);
    let said = read(Format::DebianTracker, &document[..], &mut sink).expect_err("refused");
    assert_eq!(said.to_string(), "here: is enough");
}
