//! `infratrack-collector doctor`.

use anyhow::bail;
use infratrack_collector::api::health;
use infratrack_collector::ca::Ca;
use infratrack_collector::config::Config;
use infratrack_collector::postgres::private_connect_options;
use infratrack_collector::server;

/// Checks what the configuration says against reality; fails where something is wrong.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let mut wrong = 0;
    let mut say = |what: &str, result: Result<String, String>| {
        let (mark, text) = match result {
            Ok(text) => ("ok  ", text),
            Err(text) => {
                wrong += 1;
                ("FAIL", text)
            }
        };
        super::print(&format!("{mark} {what}: {text}"));
    };
    say("data directory", writable(&config.data_dir));
    let ca = Ca::open(&config.data_dir.join("ca"));
    say(
        "certificate authority",
        ca.map(|ca| format!("trust domain {}", ca.trust_domain())).map_err(|error| {
            format!("{error}; `serve` makes one where there is none, several collectors share the files")
        }),
    );
    let options = match super::configured_database(config) {
        Ok(Some(options)) => Ok(options),
        Ok(None) => private_connect_options(&config.data_dir)
            .await
            .map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match options {
        Ok(options) => match server::connect(options, config).await {
            Ok(pool) => {
                for check in health::check(&pool).await {
                    let detail = check.detail;
                    say(check.name, if check.ok { Ok(detail) } else { Err(detail) });
                }
            }
            Err(_) if config.database_url()?.is_none() => {
                say(
                    "database",
                    Err(
                        "the private Postgres does not answer; it runs only with `serve`"
                            .to_owned(),
                    ),
                );
            }
            Err(error) => say("database", Err(format!("{error:#}"))),
        },
        Err(error) => say("database", Err(format!("{error:#}"))),
    }
    if wrong > 0 {
        bail!("{wrong} checks failed");
    }
    Ok(())
}

fn writable(dir: &std::path::Path) -> Result<String, String> {
    let probe = dir.join(".doctor");
    let tried = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => Ok(dir.display().to_string()),
        Err(error) => Err(format!("{} can't be written to: {error}", dir.display())),
    }
}
