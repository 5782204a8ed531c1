//! A provider that lies: real HTTP, and whatever tokens a test wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "the secret of the rig";

/// A signing key with its name.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pair: Arc<EcdsaKeyPair>,
}

impl Key {
    pub(crate) fn new(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self {
            id: id.to_owned(),
            pair: Arc::new(pair),
        }
    }

    /// The public half, an uncompressed point.
    pub(crate) fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.public()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let input = signed_part(&json!({ "alg": "ES256", "kid": self.id }), claims);
        let signature = self
            .pair
            .sign(&SystemRandom::new(), input.as_bytes())
            .unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Header and claims of a token, encoded.
pub(crate) fn signed_part(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// What it does at the moment.
pub(crate) struct Ways {
    pub(crate) keys: Vec<Key>,
    /// The ID token that is given for any code.
    pub(crate) token: String,
    pub(crate) metadata: Value,
    /// What is answered in place of the metadata.
    pub(crate) instead: Option<fn() -> Response>,
    pub(crate) user_info: Option<Value>,
    /// How often each path was asked for.
    pub(crate) hits: BTreeMap<String, u32>,
    /// The last body of a request for a token.
    pub(crate) token_request: String,
}

type Shared = Arc<Mutex<Ways>>;

pub(crate) struct Rig {
    pub(crate) issuer: String,
    pub(crate) ways: Shared,
    serving: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": true,
        });
        let ways = Arc::new(Mutex::new(Ways {
            keys: vec![Key::new("first")],
            token: String::new(),
            metadata,
            instead: None,
            user_info: None,
            hits: BTreeMap::new(),
            token_request: String::new(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata_of))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(user_info))
            .route("/authorize", get(authorize))
            .route("/start", get(start_page))
            .fallback(elsewhere)
            .with_state(Arc::clone(&ways));
        let serving = tokio::spawn(serve(listener, router));
        Self {
            issuer,
            ways,
            serving,
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Ways)) {
        change(&mut self.ways.lock().unwrap());
    }

    pub(crate) fn key(&self) -> Key {
        self.ways.lock().unwrap().keys[0].clone()
    }

    pub(crate) fn hits(&self, path: &str) -> u32 {
        let ways = self.ways.lock().unwrap();
        ways.hits.get(path).copied().unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

fn hit(ways: &Shared, path: &str) {
    let mut ways = ways.lock().unwrap();
    *ways.hits.entry(path.to_owned()).or_default() += 1;
}

async fn metadata_of(State(ways): State<Shared>) -> Response {
    hit(&ways, "metadata");
    let ways = ways.lock().unwrap();
    match ways.instead {
        Some(instead) => instead(),
        None => axum::Json(ways.metadata.clone()).into_response(),
    }
}

async fn keys(State(ways): State<Shared>) -> Response {
    hit(&ways, "jwks");
    let ways = ways.lock().unwrap();
    let keys: Vec<_> = ways.keys.iter().map(Key::jwk).collect();
    axum::Json(json!({ "keys": keys })).into_response()
}

async fn token(State(ways): State<Shared>, body: String) -> Response {
    hit(&ways, "token");
    let mut ways = ways.lock().unwrap();
    ways.token_request = body;
    axum::Json(json!({
        "access_token": "an access token", "token_type": "Bearer", "expires_in": 60, "id_token": ways.token,
    }))
    .into_response()
}

async fn user_info(State(ways): State<Shared>) -> Response {
    hit(&ways, "userinfo");
    let ways = ways.lock().unwrap();
    axum::Json(
        ways.user_info
            .clone()
            .unwrap_or_else(|| json!({ "sub": "1" })),
    )
    .into_response()
}

/// Whoever comes is logged in already.
async fn authorize(State(ways): State<Shared>, uri: http::Uri) -> Redirect {
    let url = openidconnect::url::Url::parse(&format!("http://rig{uri}")).unwrap();
    let asked = |wanted: &str| {
        let mut pairs = url.query_pairs();
        pairs
            .find(|(name, _)| name == wanted)
            .unwrap()
            .1
            .into_owned()
    };
    let mut ways = ways.lock().unwrap();
    let issuer = ways.metadata["issuer"].clone();
    let key = ways.keys[0].clone();
    ways.token = key.sign(&super::hostile::claims(
        issuer.as_str().unwrap(),
        &asked("nonce"),
    ));
    let mut back = openidconnect::url::Url::parse(&asked("redirect_uri")).unwrap();
    back.query_pairs_mut()
        .append_pair("state", &asked("state"))
        .append_pair("code", "a-code")
        .append_pair("iss", issuer.as_str().unwrap());
    Redirect::to(back.as_str())
}

/// A page of another site from which a login begins.
async fn start_page(uri: http::Uri) -> Response {
    let to = uri.query().unwrap_or_default();
    axum::response::Html(format!(
        "<meta http-equiv=\"refresh\" content=\"0;url={to}\">"
    ))
    .into_response()
}

async fn elsewhere(State(ways): State<Shared>, uri: http::Uri) -> Response {
    hit(&ways, uri.path());
    axum::Json(json!({})).into_response()
}
