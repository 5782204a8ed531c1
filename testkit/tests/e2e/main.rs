//! One fleet on hosts that really boot, from nothing to nothing: installed as the README says, then looked at,
//! attacked, upgraded, and removed. `make e2e` builds what it needs, and tells it in short; with
//! `INFRATRACK_E2E_FULL` set it is told at its whole length.

mod backups;
mod clone;
mod control;
mod faults;
mod install;
mod lifecycle;
mod load;
mod packages;
mod repository;
mod sandbox;
mod serving;

use infratrack_testkit::rig::Rig;

use crate::control::Control;

/// The names that the README uses, h1 being the collector; and a machine to copy a disk to.
const NAMES: [&str; 5] = [
    "collector.example",
    "web1.example",
    "web2.example",
    "db1.example",
    "spare.example",
];
const COLLECTOR: &str = "h1";
const HOSTS: [&str; 3] = ["h2", "h3", "h4"];
const SPARE: &str = "h5";

#[test]
fn a_fleet_from_nothing_to_nothing() -> anyhow::Result<()> {
    let Some(rig) = Rig::up(&NAMES)? else {
        return Ok(());
    };
    let control = Control::new(&rig)?;
    step("check mode on empty hosts changes nothing", || {
        install::check_mode(&control)
    })?;
    step("the README's install section", || {
        install::as_the_readme_says(&control)
    })?;
    step("every host is healthy and has facts", || {
        install::all_healthy(&control)
    })?;
    step("the second run changes nothing", || {
        install::again(&control)
    })?;
    step("the sandbox holds", || sandbox::holds(&control))?;
    step("limits bite", || sandbox::limits_bite(&control))?;
    step("faults lose nothing", || faults::lose_nothing(&control))?;
    step("there and back: a newer and an older version", || {
        lifecycle::upgrade_and_back(&control)
    })?;
    if is_full() {
        step("the other ways to serve", || serving::all_ways(&control))?;
    }
    let repository = repository::Repository::serve(&control)?;
    step("a host is installed anew, from the repository", || {
        lifecycle::reinstalled(&control, &repository)
    })?;
    step("what apt does is told", || {
        packages::are_told(&control, &repository, HOSTS[2])
    })?;
    step("volumes are backed up", || {
        backups::are_made(&control, HOSTS[2])
    })?;
    step("dnf takes what is signed", || {
        repository::dnf_takes_what_is_signed(&control, &repository)
    })?;
    step("a copied disk is set apart and split", || {
        clone::is_set_apart(&control)
    })?;
    step("nothing is left", || lifecycle::removed(&control))
}

/// Not the short form.
fn is_full() -> bool {
    std::env::var_os("INFRATRACK_E2E_FULL").is_some()
}

/// Runs a part of the story, and says how long it took.
#[expect(clippy::print_stderr, reason = "a long test says where it is")]
fn step(name: &str, part: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    use anyhow::Context;
    let begun = std::time::Instant::now();
    eprintln!("{name} …");
    part().with_context(|| name.to_owned())?;
    eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f32());
    Ok(())
}
