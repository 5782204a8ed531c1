//! The files of a package that are made of the programs themselves: man pages, completions, example configurations.
//! What packages hold and what the programs do can so not differ.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use documented::DocumentedFields;
use infratrack_agent::config::Config as AgentConfig;
use infratrack_collector::config::{self as collector, Config as CollectorConfig};
use serde::Serialize;

/// Writes everything into `directory`: `man/`, `completions/`, `agent.toml`, `collector.toml`.
pub fn write_all(directory: &Path) -> anyhow::Result<()> {
    let commands = [
        infratrack_agent::cli::Cli::command(),
        infratrack_collector::cli::Cli::command(),
    ];
    for command in commands {
        man_pages(command.clone(), &directory.join("man"))?;
        completions(command, &directory.join("completions"))?;
    }
    put(&directory.join("agent.toml"), agent_example()?.as_bytes())?;
    put(
        &directory.join("collector.toml"),
        collector_example()?.as_bytes(),
    )
}

fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let parent = path.parent().context("a path without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// One page for the program and one for each subcommand, section 8: commands for administrators (man-pages(7)).
fn man_pages(command: Command, directory: &Path) -> anyhow::Result<()> {
    let mut open = vec![command.disable_help_subcommand(true)];
    while let Some(mut command) = open.pop() {
        // Gives the subcommands their full names.
        command.build();
        if command.is_hide_set() {
            continue;
        }
        let name = command
            .get_display_name()
            .unwrap_or(command.get_name())
            .to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .section("8")
            .title(name.clone())
            .render(&mut page)?;
        put(&directory.join(format!("{name}.8")), &page)?;
        open.extend(command.get_subcommands().cloned());
    }
    Ok(())
}

/// For bash, zsh and fish, named as each of them looks for them.
fn completions(mut command: Command, directory: &Path) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let shells = [
        (Shell::Bash, name.clone()),
        (Shell::Zsh, format!("_{name}")),
        (Shell::Fish, format!("{name}.fish")),
    ];
    for (shell, file) in shells {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        put(&directory.join(shell.to_string()).join(file), &script)?;
    }
    Ok(())
}

/// `agent.toml` with every setting, each a comment with its default.
pub fn agent_example() -> anyhow::Result<String> {
    let intro = "# The agent's configuration. Everything has a default, shown here; files in conf.d beside this one\n\
                 # come after it, in order of name.\n";
    Ok(format!("{intro}\n{}", settings::<AgentConfig>()?))
}

/// Likewise `collector.toml`.
pub fn collector_example() -> anyhow::Result<String> {
    let intro = "# The collector's configuration. Everything has a default, shown here.\n";
    let sections = [
        ("agents", settings::<collector::Agents>()?),
        ("enroll", settings::<collector::Enroll>()?),
        ("operators", settings::<collector::Operators>()?),
        ("database", settings::<collector::Database>()?),
        ("s3", settings::<collector::s3::S3>()?),
        ("oidc", settings::<collector::Oidc>()?),
        ("ca", settings::<collector::CertificateAuthority>()?),
        ("certificates", settings::<collector::Certificates>()?),
        ("ingest", settings::<collector::Ingest>()?),
        ("liveness", settings::<collector::Liveness>()?),
        ("retention", settings::<collector::Retention>()?),
        ("jobs", settings::<collector::Jobs>()?),
        ("patches.within", settings::<collector::Within>()?),
        (
            "advisories",
            settings::<collector::advisories::Advisories>()?,
        ),
        ("changes", settings::<collector::Changes>()?),
        ("backups", settings::<collector::Backups>()?),
        ("telemetry", settings::<collector::Telemetry>()?),
        ("inventory", settings::<collector::inventory::Inventory>()?),
        ("probes", settings::<collector::inventory::Probes>()?),
    ];
    let mut text = format!("{intro}\n{}", settings::<CollectorConfig>()?);
    for (name, settings) in sections {
        let section = name.split('.').next().unwrap_or(name);
        let doc = CollectorConfig::get_field_docs(section)
            .ok()
            .with_context(|| format!("the configuration has no section {name}"))?;
        write!(text, "\n{}[{name}]\n\n{settings}", comment(doc))?;
    }
    Ok(text)
}

/// The settings of a struct that are no sections themselves.
fn settings<T: DocumentedFields + Default + Serialize>() -> anyhow::Result<String> {
    let defaults = toml::Table::try_from(T::default())?;
    let mut text = String::new();
    for (name, doc) in T::FIELD_NAMES.iter().zip(T::FIELD_DOCS) {
        let value = match defaults.get(*name) {
            // A section; these are maps of the user's own.
            Some(value) if value.is_table() && !["roles", "intervals"].contains(name) => continue,
            Some(value) => value.to_string(),
            // It has none.
            None => "\"\"".to_owned(),
        };
        write!(text, "{}# {name} = {value}\n\n", comment(doc))?;
    }
    Ok(text)
}

fn comment(doc: &str) -> String {
    let lines = doc.lines().flat_map(|line| ["# ", line, "\n"]);
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example with its settings in effect, less those that have no default.
    fn in_effect(example: &str) -> String {
        let setting = |line: &str| {
            let line = line.strip_prefix("# ")?;
            let (name, value) = line.split_once(" = ")?;
            let is_name = |name: &str| {
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || b"_5".contains(&byte))
            };
            let has_no_default = value == "\"\"" && name.ends_with("_file")
                || matches!(name, "enroll_endpoint" | "instance_metadata");
            (is_name(name) && !has_no_default).then(|| line.to_owned())
        };
        let section = |line: &str| line.starts_with('[').then(|| line.to_owned());
        let lines = example
            .lines()
            .filter_map(|line| setting(line).or_else(|| section(line)));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_examples_show_every_default() {
        let agent: AgentConfig = toml::from_str(&in_effect(&agent_example().unwrap())).unwrap();
        assert_eq!(agent, AgentConfig::default());
        let text = in_effect(&collector_example().unwrap());
        let collector: CollectorConfig = toml::from_str(&text).unwrap();
        assert_eq!(
            toml::Table::try_from(&collector).unwrap(),
            toml::Table::try_from(CollectorConfig::default()).unwrap()
        );
        assert_eq!(
            text.parse::<toml::Table>().unwrap(),
            toml::Table::try_from(CollectorConfig::default()).unwrap(),
            "a setting is missing"
        );
    }

    #[test]
    fn every_subcommand_that_is_shown_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path()).unwrap();
        for page in [
            "infratrack-agent",
            "infratrack-agent-enroll",
            "infratrack-collector-token-enroll",
        ] {
            let page = directory.path().join("man").join(format!("{page}.8"));
            assert!(
                fs::read_to_string(&page).unwrap().contains(".TH"),
                "{}",
                page.display()
            );
        }
        assert!(
            !directory
                .path()
                .join("man/infratrack-agent-spool-probe.8")
                .exists()
        );
        assert!(
            directory
                .path()
                .join("completions/zsh/_infratrack-agent")
                .exists()
        );
    }
}
