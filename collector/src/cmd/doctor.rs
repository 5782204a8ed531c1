//! `infratrack-collector doctor`.

use anyhow::bail;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::doctor::{self, Finding, Status};
use infratrack_collector::postgres::private_connect_options;
use infratrack_collector::server;
use infratrack_collector::store::failure;

/// Checks what the configuration says against reality; fails where something is wrong.
pub(crate) async fn run(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let clock = Clock::system();
    let mut findings = doctor::examine(config, clock.now()).await;
    findings.extend(database(config, &clock).await);
    if as_json {
        super::print(&serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(say);
    }
    let wrong = findings
        .iter()
        .filter(|finding| finding.status == Status::Fail);
    let wrong = wrong.count();
    if wrong > 0 {
        bail!("{wrong} checks failed");
    }
    Ok(())
}

async fn database(config: &Config, clock: &Clock) -> Vec<Finding> {
    let fail = |detail: String, advice: &str| vec![Finding::fail("database", detail, advice)];
    let options = match super::configured_database(config).await {
        Ok(Some(options)) => options,
        Ok(None) => match private_connect_options(&config.data_dir).await {
            Ok(options) => options,
            Err(error) => {
                let detail = format!("{:#}", anyhow::Error::from(error));
                return fail(detail, "the private Postgres runs only with `serve`");
            }
        },
        Err(error) => {
            let advice = "check database.url_file or DATABASE_URL";
            return fail(format!("{error:#}"), advice);
        }
    };
    let pool = match server::connect(options, config).await {
        Ok(pool) => pool,
        Err(error) => {
            // The error may quote parameters of the connection.
            let cause = error.chain().find_map(|cause| cause.downcast_ref());
            let words = cause.map_or("cannot connect", failure::words);
            let advice = "check that Postgres runs, and database.url_file or DATABASE_URL; the private one runs \
                          only with `serve`";
            return fail(words.to_owned(), advice);
        }
    };
    doctor::examine_database(config, &pool, clock).await
}

fn say(finding: &Finding) {
    let mark = match finding.status {
        Status::Ok => "ok  ",
        Status::Warn => "warn",
        Status::Fail => "FAIL",
    };
    super::print(&format!("{mark} {}: {}", finding.name, finding.detail));
    if let Some(advice) = &finding.advice {
        super::print(&format!("     {advice}"));
    }
}
