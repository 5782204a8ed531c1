//! AWS: where it is and who we are there, found once, and what its errors say.
//!
//! Region and credentials are found as every program of AWS finds them: environment, profile, web identity, container,
//! instance; `AWS_ENDPOINT_URL` leads elsewhere.

pub mod s3;

use std::error::Error;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use tokio::sync::OnceCell;

/// For a connection.
pub const CONNECT: Duration = Duration::from_secs(5);
/// All tries of a call together.
pub const WHOLE: Duration = Duration::from_secs(15);
const TRIES: u32 = 3;

static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();

/// What every client is made of. The time limits are for calls; looking for region and credentials comes before.
pub async fn config() -> &'static SdkConfig {
    let load = || {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_timeout(WHOLE)
            .build();
        aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            .load()
    };
    CONFIG.get_or_init(load).await
}

/// What AWS says, or why it says nothing.
pub fn reason(error: &(impl ProvideErrorMetadata + Error)) -> String {
    if let Some(code) = error.code() {
        let message = error.message().unwrap_or("without more words");
        return format!("{code}: {message}");
    }
    chain(error)
}

/// An error and its causes. Not its debug output: that may have the answer in it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
