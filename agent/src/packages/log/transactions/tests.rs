//! Logs as apt 2.6, dpkg 1.21 and dnf 4.14 wrote them, with packages made for it.

use super::super::merge::read_whole;
use super::super::source::Source;
use super::*;

fn short(over: &Over) -> String {
    let it = &over.transaction;
    let seconds = |at: i64| at / 1000 % 3600;
    let end = it
        .ended_at
        .map_or("?".to_owned(), |at| seconds(at.0).to_string());
    let mut words = vec![format!("{}..{end}", seconds(it.started_at.0))];
    for change in &it.changes {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
        let (name, arch) = (&change.name, &change.arch);
        words.push(format!("{:?} {name}:{arch}", change.action));
        words.extend([version(&change.from), version(&change.to)]);
        words.extend(change.left.iter().map(|left| format!("left {left}")));
    }
    for (word, value) in [
        ("by", &it.requested_by),
        ("via", &it.via),
        ("error", &it.error),
    ] {
        words.extend(value.iter().map(|value| format!("{word} {value}")));
    }
    words.join(" ")
}

fn told(source: Source, front: &str, runs: &str) -> Vec<String> {
    let over = read_whole(source, [front, runs]);
    over.iter().map(short).collect()
}

/// Lines of a minute, each a second later than the one before.
fn at_13_26(lines: &str) -> String {
    let lines = lines.lines().enumerate();
    let dated =
        lines.map(|(second, line)| format!("2026-11-22 13:26:{second:02} {}\n", line.trim()));
    dated.collect()
}

#[test]
fn a_run_of_dpkg_alone_is_a_transaction() {
    let runs = at_13_26(
        "startup archives install
        install one:all <none> 1.0
        status half-installed one:all 1.0
        status unpacked one:all 1.0
        install two:all <none> 1.0
        status half-installed two:all 1.0
        status unpacked two:all 1.0
        configure one:all 1.0 1.0
        status half-configured one:all 1.0
        status installed one:all 1.0
        configure two:all 1.0 1.0
        status half-configured two:all 1.0
        status installed two:all 1.0
        startup archives install
        upgrade one:all 1.0 2.0
        status half-configured one:all 1.0
        status unpacked one:all 1.0
        status half-installed one:all 1.0
        status unpacked one:all 2.0
        configure one:all 2.0 2.0
        status half-configured one:all 2.0
        status installed one:all 2.0
        startup packages purge
        status config-files two:all 1.0
        purge two:all 1.0 <none>
        status not-installed two:all <none>
        status installed one:all 2.0
        remove one:all 2.0 <none>
        status half-configured one:all 2.0
        status half-installed one:all 2.0
        status config-files one:all 2.0
        purge one:all 2.0 <none>
        status not-installed one:all <none>",
    );
    assert_eq!(
        told(Source::Dpkg, "", &runs),
        [
            "1560..1572 Installed one:all - 1.0 Installed two:all - 1.0",
            "1573..1581 Upgraded one:all 1.0 2.0",
            "1582..1592 Purged two:all 1.0 - Purged one:all 2.0 -",
        ]
    );
}

#[test]
fn what_fails_is_told_with_the_state_that_it_was_left_in() {
    let runs = at_13_26(
        "startup archives install
        install fails:all <none> 1.0
        status half-installed fails:all 1.0
        status unpacked fails:all 1.0
        configure fails:all 1.0 1.0
        status half-configured fails:all 1.0
        startup packages configure
        configure fails:all 1.0 <none>
        status half-configured fails:all 1.0
        startup archives install
        upgrade one:all 1.0 3.0
        status half-configured one:all 1.0
        status unpacked one:all 1.0
        status half-installed one:all 1.0
        status unpacked one:all 1.0
        status installed one:all 1.0
        startup packages configure
        configure fails:all 1.0 <none>
        status half-configured fails:all 1.0
        status installed fails:all 1.0",
    );
    assert_eq!(
        told(Source::Dpkg, "", &runs),
        [
            "1560..? Installed fails:all - 1.0 left half-configured",
            "1566..? Other fails:all - 1.0 left half-configured",
            // Its preinst failed, and dpkg put the version before back.
            "1569..1575 Upgraded one:all 1.0 3.0 left installed 1.0",
            "1576..1579 Other fails:all - 1.0",
        ]
    );
}

#[test]
fn an_entry_of_apt_and_the_runs_of_dpkg_within_it_are_one() {
    let history = "\nStart-Date: 2026-11-22  13:26:00\nCommandline: /usr/bin/unattended-upgrade\n\
        Install: two:amd64 (1.0, automatic), three:amd64 (1.0)\nUpgrade: one:amd64 (1.0, 2.0)\n\
        Error: Sub-process /usr/bin/dpkg returned an error code (1)\nEnd-Date: 2026-11-22  13:26:09\n\
        \nStart-Date: 2026-11-22  13:26:12\nCommandline: apt purge one\nRequested-By: alice (1000)\n\
        Purge: one:amd64 (2.0)\nEnd-Date: 2026-11-22  13:26:15\n";
    let runs = at_13_26(
        "startup archives unpack
        upgrade one:all 1.0 2.0
        status unpacked one:all 2.0
        install two:amd64 <none> 1.0
        status half-installed two:amd64 1.0
        status unpacked two:amd64 1.0
        startup packages configure
        status half-configured two:amd64 1.0
        configure one:all 2.0 2.0
        status installed one:all 2.0
        startup archives install
        install four:all <none> 1.0
        status installed four:all 1.0
        startup packages purge
        remove one:all 2.0 <none>
        status not-installed one:all <none>",
    );
    assert_eq!(
        told(Source::Dpkg, history, &runs),
        [
            // Of three, nothing was begun.
            "1560..1569 Installed two:amd64 - 1.0 left half-configured Upgraded one:all 1.0 2.0 via unattended-upgrades \
             error Sub-process /usr/bin/dpkg returned an error code (1)",
            "1570..1572 Installed four:all - 1.0",
            "1572..1575 Purged one:all 2.0 - by alice",
        ]
    );
}

#[test]
fn without_the_log_of_dpkg_the_history_stands_alone_and_the_other_way_round() {
    let history = "Start-Date: 2026-11-22  13:26:00\nInstall: two:amd64 (1.0, automatic)\nEnd-Date: 2026-11-22  13:26:09\n";
    assert_eq!(
        told(Source::Dpkg, history, ""),
        ["1560..1569 Installed two:amd64 - 1.0"]
    );
    let runs = "2026-11-22 13:26:00 startup packages configure\n2026-11-22 13:26:00 trigproc man-db:amd64 1 <none>\n";
    assert!(told(Source::Dpkg, "", runs).is_empty(), "nothing changed");
}

#[test]
fn what_never_ends_is_told_when_another_begins() {
    let history = "Start-Date: 2026-11-22  13:26:00\nRemove: one:amd64 (1.0), two:amd64 (1.0)\n\
        Start-Date: 2026-11-22  13:28:00\nRemove: one:amd64 (1.0)\n";
    let runs = "2026-11-22 13:26:01 startup packages remove\n2026-11-22 13:26:01 remove one:amd64 1.0 <none>\n\
        2026-11-22 13:26:01 status half-configured one:amd64 1.0\n";
    assert_eq!(
        told(Source::Dpkg, history, runs),
        [
            "1560..? Removed one:amd64 1.0 - left half-configured",
            "1680..? Removed one:amd64 1.0 -",
        ]
    );
}

#[test]
fn a_front_takes_over_what_its_run_was_read_of_first() {
    let mut transactions = Transactions::new(Source::Dpkg.settings());
    let spot = |offset| Spot { file: 3, offset };
    let change = |name: &str| {
        Said::Change(infratrack_shared::wire::event::PackageChange {
            name: name.to_owned(),
            ..Default::default()
        })
    };
    transactions.add(RUNS, spot(10), 5_000, 9_000, Said::Run);
    transactions.add(RUNS, spot(20), 5_000, 9_000, change("one"));
    assert_eq!(
        (transactions.held(FRONT), transactions.held(RUNS)),
        (None, Some(spot(10)))
    );
    transactions.add(FRONT, spot(70), 4_000, 9_000, Said::Begin);
    assert_eq!(
        (transactions.held(FRONT), transactions.held(RUNS)),
        (Some(spot(70)), Some(spot(10)))
    );
    transactions.add(FRONT, spot(90), 6_000, 9_000, Said::End);
    assert_eq!(transactions.held(RUNS), None);
    let over = transactions.take();
    assert_eq!(over.len(), 1);
    assert_eq!(over[0].transaction.started_at.0, 4_000);
}

#[test]
fn a_settled_run_is_over_after_two_seconds_and_another_after_ten_minutes() {
    let mut transactions = Transactions::new(Source::Dpkg.settings());
    let mut parser = Source::Dpkg
        .logs()
        .into_iter()
        .flatten()
        .last()
        .unwrap()
        .parser;
    let mut add = |transactions: &mut Transactions, line: &str| {
        let mut said = Vec::new();
        parser.line(&format!("1990-01-01 00:00:00 {line}"), &mut said);
        for (_, said) in said {
            let spot = Spot { file: 0, offset: 0 };
            transactions.add(RUNS, spot, 100_000, 50_000, said);
        }
    };
    add(&mut transactions, "install one:all <none> 1.0");
    // Its clock is ahead of ours: it counts from when it was read.
    assert_eq!(transactions.due(), Some(50_000 + CUT_OFF_MS));
    add(&mut transactions, "status installed one:all 1.0");
    assert_eq!(transactions.due(), Some(52_000));
    transactions.rest(51_999);
    assert!(transactions.take().is_empty());
    transactions.rest(52_000);
    assert_eq!(transactions.take().len(), 1);
    assert_eq!(transactions.due(), None);
}

#[test]
fn dnf_4_is_told_by_two_logs() {
    let lines = |text: &str| -> String {
        let lines = text
            .lines()
            .map(|line| format!("2026-11-22T13:26:{}\n", line.trim()));
        lines.collect()
    };
    let front = lines(
        "19+0000 INFO --- logging initialized ---
        19+0000 DDEBUG Command: dnf -y downgrade one
        21+0000 DDEBUG RPM transaction start.
        22+0000 DDEBUG RPM transaction over.
        22+0000 DDEBUG Cleaning up.",
    );
    let runs = lines(
        "19+0000 INFO --- logging initialized ---
        21+0000 SUBDEBUG Downgrade: one-1.0-1.noarch
        21+0000 SUBDEBUG Installed: three-1.0-1.noarch
        21+0000 SUBDEBUG Downgraded: one-2.0-1.noarch
        40+0000 INFO --- logging initialized ---
        41+0000 SUBDEBUG Erase: two-1.0-1.noarch
        41+0000 INFO --- logging initialized ---",
    );
    assert_eq!(
        told(Source::Dnf, &front, &runs),
        [
            "1581..1582 Downgraded one:noarch 2.0-1 1.0-1 Installed three:noarch - 1.0-1",
            "1600..1601 Removed two:noarch 1.0-1 -",
        ]
    );
}

#[test]
fn transactions_of_dnf_4_within_one_second_are_told_apart() {
    let line = |text: &str| format!("2026-11-22T13:26:20+0000 {text}\n");
    let front = ["install two", "remove two"].map(|command| {
        line("INFO --- logging initialized ---")
            + &line(&format!("DDEBUG Command: dnf -y {command}"))
            + &line("DDEBUG RPM transaction start.")
            + &line("DDEBUG RPM transaction over.")
            + &line("DDEBUG Cleaning up.")
    });
    let runs = ["Installed: two-1.0-1.noarch", "Erase: two-1.0-1.noarch"].map(|change| {
        line("INFO --- logging initialized ---") + &line(&format!("SUBDEBUG {change}"))
    });
    let over = read_whole(Source::Dnf, [&front.concat(), &runs.concat()]);
    let commands = over.iter().map(|over| over.transaction.command.as_deref());
    let commands: Vec<_> = commands.collect();
    assert_eq!(
        commands,
        [Some("dnf -y install two"), Some("dnf -y remove two")]
    );
    assert_eq!(short(&over[1]), "1580..1580 Removed two:noarch 1.0-1 -");
}

#[test]
fn a_run_of_dnf_5_is_over_with_its_last_package_and_script() {
    let line = |text: &str| format!("2026-11-22T13:26:20+0000 [7] INFO {text}\n");
    let mut text = line("--- DNF5 launched with arguments: \"dnf5 automatic --timer\" ---")
        + &line(
            "Implicitly added element one-0:1-1.noarch type remove package (caused by one-0:2-1.noarch)",
        )
        + &line("RPM callback transaction start, total 2")
        + &line("RPM callback transaction start, total 2")
        + &line("RPM callback install stop \"one-0:2-1.noarch\" amount 1 total 1");
    let open = told(Source::Dnf5, "", &text);
    assert_eq!(
        open,
        ["1580..? Installed one:noarch - 2-1 via dnf-automatic"]
    );
    text += &line("RPM callback uninstall stop \"one-0:1-1.noarch\" amount 1 total 1");
    let over = told(Source::Dnf5, "", &text);
    assert_eq!(
        over,
        ["1580..1580 Upgraded one:noarch 1-1 2-1 via dnf-automatic"]
    );
}

#[test]
fn of_zypp_each_command_is_one() {
    let text = "2026-11-22 13:26:00|command|root@host|'zypper' 'in' 'one'|\n\
        2026-11-22 13:26:05|install|one|1.0-1|noarch|root@host|l|abc|\n\
        2026-11-22 13:26:30|command|root@host|'zypper' 'lr'|\n\
        2026-11-22 13:26:40|command|root@host|'zypper' 'rm' 'one'|\n\
        2026-11-22 13:26:45|remove |one|1.0-1|noarch|root@host|\n";
    assert_eq!(
        told(Source::Zypp, "", text),
        [
            "1560..1565 Installed one:noarch - 1.0-1 by root",
            "1600..1605 Removed one:noarch 1.0-1 - by root",
        ]
    );
}

#[test]
fn a_hostile_log_takes_no_more_than_its_share() {
    let long = "x".repeat(900);
    let mut lines = String::new();
    for number in 0..20_000 {
        for word in ["install", "status half-installed"] {
            let package = format!("{long}{number}:{}", number % 7);
            lines += &["2026-11-22 13:26:00", word, &package, "1.0 1.0\n"].join(" ");
        }
    }
    let over = read_whole(Source::Dpkg, ["", &lines]);
    let [told] = over.as_slice() else {
        panic!("{} transactions", over.len());
    };
    let transaction = &told.transaction;
    let bytes: usize = transaction
        .changes
        .iter()
        .map(|change| change.name.len())
        .sum();
    assert!(
        (100_000..super::super::TRANSACTION_BYTES).contains(&bytes),
        "{bytes}"
    );
    let left_out = 20_000 - transaction.changes.len();
    assert_eq!(
        transaction.error.as_deref(),
        Some(&*format!("{left_out} more changes are not listed"))
    );
}
