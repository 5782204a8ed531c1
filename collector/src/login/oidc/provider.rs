//! The provider of logins: what it says of itself, its keys, and the conversation with it (OpenID Connect Core 1.0,
//! authorization code with PKCE).
//!
//! What it says is fetched at start and every ten minutes; its keys also when a token names one that is unknown, but
//! not more often than every 30 seconds. Without it the collector runs, and nobody logs in by it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm,
    CoreResponseMode, CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreSubjectIdentifierType, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::url::Url;
use openidconnect::{
    AccessToken, AdditionalClaims, AdditionalProviderMetadata, AuthType, AuthenticationFlow,
    AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, IdToken, IdTokenFields, IssuerUrl,
    JsonWebKeySet, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier,
    ProviderMetadata, RedirectUrl, RequestTokenError, Scope, StandardErrorResponse,
    StandardTokenResponse, SubjectIdentifier, TokenResponse, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::OidcError;
use super::token::{self, Expected};
use crate::app::App;
use crate::config::Config;
use crate::config::Oidc;
use crate::fetch::Fetch;
use crate::secret::Secret;

/// Where it sends browsers back to.
pub const CALLBACK: &str = "/login/oidc/callback";
/// How often what it says of itself is fetched again.
const REFRESH: Duration = Duration::from_mins(10);
/// The waits before it is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How often unknown keys make its keys be fetched again.
const REFETCH: Duration = Duration::from_secs(30);

/// Claims that are not among the standard ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct OtherClaims(Map<String, Value>);
impl AdditionalClaims for OtherClaims {}

/// What a provider says of itself beyond OpenID Connect Discovery.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OtherMetadata {
    /// RFC 9207: it says who it is when it sends a browser back.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}
impl AdditionalProviderMetadata for OtherMetadata {}

type Metadata = ProviderMetadata<
    OtherMetadata,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

pub(super) type Token = IdToken<
    OtherClaims,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

type Answer = StandardTokenResponse<
    IdTokenFields<
        OtherClaims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

type OidcClient = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Answer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// The provider, as far as it is known.
#[derive(Debug)]
pub struct Provider {
    pub(super) config: Oidc,
    issuer: IssuerUrl,
    redirect: RedirectUrl,
    secret: Secret,
    fetch: Fetch,
    known: RwLock<Option<Arc<Metadata>>>,
    refetched_at: Mutex<Option<OffsetDateTime>>,
}

/// A browser's way to the provider, and what is to be remembered until it is back.
pub(super) struct Sent {
    pub(super) url: Url,
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) pkce_verifier: String,
}

impl Provider {
    /// The configured one, nothing of it fetched yet; `None` where nobody logs in by one.
    pub async fn open(config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        let oidc = &config.oidc;
        let Some(secret) = oidc.client_secret().await? else {
            return Ok(None);
        };
        let base = config.operators.url.trim_end_matches('/');
        let is_plain = !oidc.issuer.starts_with("https://");
        Ok(Some(Arc::new(Self {
            config: oidc.clone(),
            issuer: IssuerUrl::new(oidc.issuer.clone())?,
            redirect: RedirectUrl::new(format!("{base}{CALLBACK}"))?,
            secret,
            fetch: Fetch::new(oidc.ca_file.as_deref(), is_plain)?,
            known: RwLock::default(),
            refetched_at: Mutex::default(),
        })))
    }

    /// What stands on the button.
    pub fn label(&self) -> &str {
        &self.config.label
    }

    /// Whether it has been reached.
    pub fn is_available(&self) -> bool {
        self.known().is_ok()
    }

    pub(super) fn issuer(&self) -> &str {
        self.issuer.as_str()
    }

    fn known(&self) -> Result<Arc<Metadata>, OidcError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone().ok_or(OidcError::Unavailable)
    }

    fn learn(&self, metadata: Metadata) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(metadata));
    }

    /// Fetches what it says of itself, and its keys.
    pub async fn discover(&self) -> anyhow::Result<()> {
        let found = Metadata::discover_async(self.issuer.clone(), &self.fetch).await?;
        anyhow::ensure!(
            found.token_endpoint().is_some(),
            "it says nothing of its token endpoint"
        );
        self.learn(found);
        Ok(())
    }

    /// Fetches its keys; `false` where that was done just now.
    async fn refetch_keys(&self, now: OffsetDateTime) -> Result<bool, OidcError> {
        {
            let refetched = self.refetched_at.lock();
            let mut refetched = refetched.unwrap_or_else(PoisonError::into_inner);
            if refetched.is_some_and(|at| (now - at).unsigned_abs() < REFETCH) {
                return Ok(false);
            }
            *refetched = Some(now);
        }
        let known = self.known()?;
        let keys = JsonWebKeySet::fetch_async(known.jwks_uri(), &self.fetch).await;
        let keys = keys.map_err(|error| {
            let error = anyhow::Error::new(error);
            tracing::warn!(
                error = format!("{error:#}"),
                "the login provider's keys can't be fetched"
            );
            OidcError::Unavailable
        })?;
        self.learn(Metadata::clone(&known).set_jwks(keys));
        Ok(true)
    }

    fn client(&self, known: &Metadata) -> OidcClient {
        let id = ClientId::new(self.config.client_id.clone());
        let secret = ClientSecret::new(self.secret.expose().to_owned());
        let client = OidcClient::from_provider_metadata(known.clone(), id, Some(secret))
            .set_redirect_uri(self.redirect.clone());
        let methods = known.token_endpoint_auth_methods_supported();
        // Where it says nothing it takes the header (Discovery 1.0, section 3).
        let takes_header = methods
            .is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
        client.set_auth_type(if takes_header {
            AuthType::BasicAuth
        } else {
            AuthType::RequestBody
        })
    }

    /// The way there. `again`: who is logged in there already has to prove who they are once more.
    pub(super) fn send(&self, again: bool) -> Result<Sent, OidcError> {
        let client = self.client(&*self.known()?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge);
        for scope in self.config.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        if again {
            request = request
                .add_prompt(CoreAuthPrompt::Login)
                .set_max_age(Duration::ZERO);
        }
        let (url, state, nonce) = request.url();
        Ok(Sent {
            url,
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            pkce_verifier: verifier.into_secret(),
        })
    }

    /// RFC 9207: whether it was this provider that sent the browser back.
    pub(super) fn check_sender(&self, iss: Option<&str>) -> Result<(), OidcError> {
        let metadata = self.known()?;
        let says = metadata
            .additional_metadata()
            .authorization_response_iss_parameter_supported;
        match iss {
            Some(iss) if iss == self.issuer() => Ok(()),
            None if !says => Ok(()),
            _ => Err(OidcError::AnotherProvider),
        }
    }

    /// Exchanges the code that a browser came back with; answers the claims, checked.
    pub(super) async fn redeem(
        &self,
        code: &str,
        pkce_verifier: &str,
        expected: &Expected<'_>,
    ) -> Result<Map<String, Value>, OidcError> {
        let client = self.client(&*self.known()?);
        let verifier = PkceCodeVerifier::new(pkce_verifier.to_owned());
        let request = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|_| OidcError::Unavailable)?
            .set_pkce_verifier(verifier);
        let answer = request.request_async(&self.fetch).await;
        let answer = answer.map_err(|error| match error {
            RequestTokenError::ServerResponse(said) => OidcError::Exchange(said.to_string()),
            // Its bytes may have tokens in them.
            RequestTokenError::Parse(..) => {
                OidcError::Exchange("an answer that is none".to_owned())
            }
            RequestTokenError::Request(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the login provider does not answer"
                );
                OidcError::Unavailable
            }
            RequestTokenError::Other(_) => OidcError::Exchange("no answer to read".to_owned()),
        })?;
        let token = answer
            .id_token()
            .ok_or_else(|| OidcError::Token("there is none".to_owned()))?;
        let mut claims = self.checked(token, expected).await?;
        if !claims.contains_key(&self.config.groups_claim) {
            self.add_user_info(&client, answer.access_token(), &mut claims)
                .await?;
        }
        Ok(claims)
    }

    async fn checked(
        &self,
        token: &Token,
        expected: &Expected<'_>,
    ) -> Result<Map<String, Value>, OidcError> {
        let check = |known: &Metadata| {
            let id = ClientId::new(self.config.client_id.clone());
            token::check(token, &id, &self.issuer, known.jwks(), expected)
        };
        let checked = check(&*self.known()?);
        match checked {
            Err(error) if error.is_about_keys() && self.refetch_keys(expected.now).await? => {
                check(&*self.known()?).map_err(OidcError::from)
            }
            other => other.map_err(OidcError::from),
        }
    }

    /// Some providers have the groups only there.
    async fn add_user_info(
        &self,
        client: &OidcClient,
        access: &AccessToken,
        claims: &mut Map<String, Value>,
    ) -> Result<(), OidcError> {
        let subject = claims
            .get("sub")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let subject = SubjectIdentifier::new(subject.to_owned());
        let Ok(request) = client.user_info(access.clone(), Some(subject)) else {
            return Ok(());
        };
        let info: UserInfoClaims<OtherClaims, CoreGenderClaim> =
            request.request_async(&self.fetch).await.map_err(|error| {
                let error = anyhow::Error::new(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the login provider does not say who it is"
                );
                OidcError::Exchange("nothing of the user".to_owned())
            })?;
        if let Ok(Value::Object(info)) = serde_json::to_value(&info) {
            for (name, value) in info {
                claims.entry(name).or_insert(value);
            }
        }
        Ok(())
    }
}

/// Learns of the provider, and goes on learning.
pub async fn keep(app: Arc<App>) {
    let Some(provider) = &app.oidc else {
        return;
    };
    let mut retry = RETRY.0;
    loop {
        let wait = match provider.discover().await {
            Ok(()) => {
                retry = RETRY.0;
                REFRESH
            }
            Err(error) => {
                let wait = retry;
                retry = RETRY.1.min(retry * 2);
                tracing::warn!(
                    issuer = provider.issuer(),
                    error = format!("{error:#}"),
                    "the login provider can't be reached"
                );
                wait
            }
        };
        // So that collectors that lost it together don't come back together.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.75..1.25))).await;
    }
}
