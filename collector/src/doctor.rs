//! What `infratrack-collector doctor` looks at: each finding says how it is, and what to do where that is not well.
//!
//! It changes nothing but for a file and an object that it makes and removes.

mod database;
mod files;
mod objects;

use serde::Serialize;
use sqlx::PgPool;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::config::Config;
use crate::login::oidc::provider::Provider;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It works; not for long, or not as well as it could.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Finding {
    pub name: &'static str,
    pub status: Status,
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub advice: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            detail: detail.into(),
            advice: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            advice: Some(advice.into()),
            ..Self::ok(name, detail)
        }
    }

    /// Something is wrong.
    pub fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::warn(name, detail, advice)
        }
    }
}

/// Everything that needs no database.
pub async fn examine(config: &Config, now: OffsetDateTime) -> Vec<Finding> {
    let mut findings = vec![match config.check() {
        Ok(()) => Finding::ok("configuration", "valid"),
        Err(error) => Finding::fail("configuration", format!("{error:#}"), "correct it"),
    }];
    findings.extend(files::disk(&config.data_dir));
    findings.extend(files::permissions(config));
    findings.extend(files::authority(config, now).await);
    findings.extend(files::operators_tls(config, now).await);
    findings.extend(login_provider(config).await);
    findings.push(objects::blobs(config).await);
    for source in &config.inventory.sources {
        findings.push(objects::inventory(config, source).await);
    }
    findings
}

/// The database, its migrations, and its clock beside ours.
pub async fn examine_database(
    config: &Config,
    pool: &PgPool,
    clock: &crate::clock::Clock,
) -> Vec<Finding> {
    database::examine(config, pool, clock).await
}

/// Asks the provider for what it says of itself, where there is one.
async fn login_provider(config: &Config) -> Option<Finding> {
    const NAME: &str = "login provider";
    let advice = "check the section oidc, and that the provider can be reached from here";
    let provider = match Provider::open(config).await {
        Ok(provider) => provider?,
        Err(error) => return Some(Finding::fail(NAME, format!("{error:#}"), advice)),
    };
    let found = provider.discover().await;
    Some(match found {
        Ok(()) => Finding::ok(NAME, config.oidc.issuer.clone()),
        Err(error) => Finding::fail(NAME, format!("{}: {error:#}", config.oidc.issuer), advice),
    })
}
