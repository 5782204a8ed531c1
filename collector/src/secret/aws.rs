//! Secrets of AWS: Secrets Manager and the parameters of Systems Manager.
//!
//! Errors say what AWS says, and never what it gave.

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use secrecy::zeroize::Zeroizing;
use tokio::time::timeout;

use crate::aws::{CONNECT, WHOLE, config, reason};

/// A secret of Secrets Manager, by name or ARN, in its current version.
pub(super) async fn secret(id: &str) -> Result<Zeroizing<String>, String> {
    within(Box::pin(async {
        let client = aws_sdk_secretsmanager::Client::new(config().await);
        let answer = client.get_secret_value().secret_id(id).send().await;
        let answer = answer.map_err(|error| words(&error))?;
        match (answer.secret_string, answer.secret_binary) {
            (Some(text), _) => Ok(Zeroizing::new(text)),
            (None, Some(bytes)) => {
                let bytes = Zeroizing::new(bytes.into_inner());
                let text = std::str::from_utf8(&bytes).map_err(|_| "is no text".to_owned())?;
                Ok(Zeroizing::new(text.to_owned()))
            }
            (None, None) => Err("is empty".to_owned()),
        }
    }))
    .await
}

/// A parameter of Systems Manager, decrypted.
pub(super) async fn parameter(name: &str) -> Result<Zeroizing<String>, String> {
    within(Box::pin(async {
        let client = aws_sdk_ssm::Client::new(config().await);
        let request = client.get_parameter().name(name).with_decryption(true);
        let answer = request.send().await;
        let answer = answer.map_err(|error| words(&error))?;
        let value = answer.parameter.and_then(|parameter| parameter.value);
        value
            .map(Zeroizing::new)
            .ok_or_else(|| "is empty".to_owned())
    }))
    .await
}

/// The SDK's limit is for a call; looking for region and credentials comes before.
async fn within(
    call: impl Future<Output = Result<Zeroizing<String>, String>>,
) -> Result<Zeroizing<String>, String> {
    let ended = timeout(WHOLE + CONNECT, call).await;
    ended.unwrap_or_else(|_| Err("can't be had from AWS: no answer in time".to_owned()))
}

fn words(error: &(impl ProvideErrorMetadata + std::error::Error)) -> String {
    format!("can't be had from AWS: {}", reason(error))
}
