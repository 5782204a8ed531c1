//! The checks of an ID token (OpenID Connect Core 1.0, section 3.1.3.7).
//!
//! Only keys of the provider count, and only signatures that the key's other half alone can make: whatever the token
//! says of itself.

use openidconnect::core::{CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{
    ClaimsVerificationError, ClientId, IdTokenVerifier, IssuerUrl, Nonce,
    SignatureVerificationError,
};
use serde_json::{Map, Value};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::provider::Token;

/// Clocks of provider and collector may differ by this.
const LEEWAY: Duration = Duration::seconds(60);

/// Signatures of public keys. No `none`, and none of the HMACs: their key is no secret of the provider's.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What a token must be about.
pub(super) struct Expected<'a> {
    pub(super) nonce: &'a str,
    pub(super) begun_at: OffsetDateTime,
    pub(super) now: OffsetDateTime,
    /// They had to prove who they are after `begun_at`.
    pub(super) again: bool,
}

/// Why a token is not believed.
#[derive(Debug, Error)]
pub(super) enum TokenError {
    #[error(transparent)]
    Claims(#[from] ClaimsVerificationError),
    #[error("its claims can't be read")]
    Unreadable,
    #[error("it was made for another party (azp)")]
    AnotherParty,
    #[error("it is not valid yet (nbf)")]
    NotYet,
}

impl TokenError {
    /// Whether other keys could change it.
    pub(super) fn is_about_keys(&self) -> bool {
        matches!(
            self,
            Self::Claims(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey
            ))
        )
    }
}

/// Checks a token; answers its claims.
pub(super) fn check(
    token: &Token,
    client_id: &ClientId,
    issuer: &IssuerUrl,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<Map<String, Value>, TokenError> {
    let (now, begun_at, again) = (expected.now, expected.begun_at, expected.again);
    let verifier =
        IdTokenVerifier::new_public_client(client_id.clone(), issuer.clone(), keys.clone())
            .set_allowed_algs(ALGORITHMS)
            .set_time_fn(move || std::time::SystemTime::from(now).into())
            .set_issue_time_verifier_fn(move |at| {
                let at = at.timestamp();
                if at > (now + LEEWAY).unix_timestamp() {
                    return Err("issued in the future (iat)".to_owned());
                }
                if at < (begun_at - LEEWAY).unix_timestamp() {
                    return Err("issued before this login began (iat)".to_owned());
                }
                Ok(())
            })
            .set_auth_time_verifier_fn(move |at| {
                let since = (begun_at - LEEWAY).unix_timestamp();
                if again && at.is_none_or(|at| at.timestamp() < since) {
                    return Err("the provider did not ask again who it is".to_owned());
                }
                Ok(())
            });
    let nonce = Nonce::new(expected.nonce.to_owned());
    let claims = token.claims(&verifier, &nonce)?;
    if let Some(party) = claims.authorized_party()
        && party != client_id
    {
        return Err(TokenError::AnotherParty);
    }
    let Ok(Value::Object(claims)) = serde_json::to_value(claims) else {
        return Err(TokenError::Unreadable);
    };
    let limit = (now + LEEWAY).unix_timestamp();
    if let Some(from) = claims.get("nbf")
        && from.as_f64().is_none_or(|from| from > limit as f64)
    {
        return Err(TokenError::NotYet);
    }
    Ok(claims)
}
