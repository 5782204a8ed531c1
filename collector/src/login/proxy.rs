//! Users that a reverse proxy before the collector has logged in: `X-User` and `X-Role`, believed only from its addresses
//! and with its secret or its client certificate. From anyone else both headers are as if not there.

use std::sync::Arc;

use axum::extract::Request;
use http::{HeaderMap, HeaderName, StatusCode};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::problem::Problem;
use crate::audit::ActorKind;
use crate::caller::Caller;
use crate::config::Operators;
use crate::http::Peer;
use crate::login::session::Client;
use crate::roles::Role;

const USER: HeaderName = HeaderName::from_static("x-user");
const ROLE: HeaderName = HeaderName::from_static("x-role");
const SECRET: HeaderName = HeaderName::from_static("x-proxy-secret");
/// A secret has at least so many bytes.
const MIN_BYTES: usize = 32;
/// A user's name at most.
const MAX_NAME_CHARS: usize = 128;

/// Which proxy is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxy {
    from: Vec<IpNet>,
    /// `None`: its client certificate says who it is.
    secret_hash: Option<[u8; 32]>,
}

/// What a proxy said of a request.
#[derive(Clone, Debug)]
pub struct Claim {
    user: String,
    role: Option<String>,
}

impl TrustedProxy {
    /// Reads the secret. What is only half configured was refused before, by the configuration.
    pub async fn load(operators: &Operators) -> anyhow::Result<Self> {
        let mut proxy = Self {
            from: operators.users_from.clone(),
            secret_hash: None,
        };
        if let Some(source) = &operators.users_from_secret_file {
            let name = "operators.users_from_secret_file";
            let secret = source.read(name).await?;
            anyhow::ensure!(
                secret.expose().len() >= MIN_BYTES,
                "{name}: {source} has fewer than {MIN_BYTES} characters"
            );
            proxy.secret_hash = Some(Sha256::digest(secret.expose()).into());
        }
        Ok(proxy)
    }

    /// Takes the headers off a request, whoever sent it; answers what they say where its sender is believed.
    pub fn take(&self, request: &mut Request) -> Option<Claim> {
        let trusted = self.trusts(request);
        let headers = request.headers_mut();
        let user = text(headers, &USER);
        let role = text(headers, &ROLE);
        for header in [USER, ROLE, SECRET] {
            headers.remove(header);
        }
        user.filter(|_| trusted).map(|user| Claim { user, role })
    }

    fn trusts(&self, request: &Request) -> bool {
        let Some(peer) = request.extensions().get::<Arc<Peer>>() else {
            return false;
        };
        let address = peer.address.ip().to_canonical();
        if !self.from.iter().any(|network| network.contains(&address)) {
            return false;
        }
        match &self.secret_hash {
            Some(hash) => {
                let said = request
                    .headers()
                    .get(&SECRET)
                    .map(|secret| Sha256::digest(secret.as_bytes()));
                said.is_some_and(|said| bool::from(hash.ct_eq(&said[..])))
            }
            // The handshake verified it.
            None => peer.has_certificate,
        }
    }
}

impl Claim {
    /// The caller it names; without a role, one who may look.
    pub fn caller(self, client: &Client) -> Result<Caller, Problem> {
        let refused = |detail: &str| Problem::new(StatusCode::FORBIDDEN, "proxy_identity", detail);
        if self.user.is_empty() || self.user.chars().count() > MAX_NAME_CHARS {
            return Err(refused("X-User has to have from 1 to 128 characters"));
        }
        let role = match self.role.as_deref() {
            None | Some("") => Role::Viewer,
            Some(name) => Role::parse(name)
                .ok_or_else(|| refused("X-Role has to be viewer, operator, lead or admin"))?,
        };
        Ok(Caller {
            kind: ActorKind::Proxy,
            id: self.user.clone(),
            name: self.user,
            role: Some(role),
            scopes: Vec::new(),
            repository: None,
            address: client.address,
            session: None,
        })
    }
}

/// A header that stands there once; twice, nobody knows which one the proxy wrote.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim().to_owned();
    values.next().is_none().then_some(value)
}
