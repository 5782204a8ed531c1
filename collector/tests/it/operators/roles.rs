//! Every route with every kind of credential, against the running listener: the matrix is `roles.txt`.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use http::header::{LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use infratrack_collector::api::csrf;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::{Access, Role, Route, Scope, routes};
use infratrack_collector::secret::Source;
use infratrack_collector::store::sessions::{self, NewSession};
use infratrack_collector::store::users;
use sha2::{Digest, Sha256};
use time::Duration;
use uuid::Uuid;

use crate::harness::Collector;

/// What is sent, by whom.
#[derive(Clone, Copy)]
enum Credential {
    None,
    /// A browser that just logged in.
    Session(Role),
    /// One that logged in an hour ago.
    OldSession(Role),
    /// Without what its forms have.
    SessionAlone(Role),
    Token(Role),
    ScopeToken(Scope),
    Fixed(&'static str),
    Proxy(Role),
    /// The same headers with a wrong secret.
    FalseProxy(Role),
    ExpiredToken,
    RevokedToken,
    TokenFromElsewhere,
    Nonsense,
}

const COLUMNS: [(&str, Credential); 23] = [
    ("none", Credential::None),
    ("nonsense", Credential::Nonsense),
    ("expired", Credential::ExpiredToken),
    ("revoked", Credential::RevokedToken),
    ("elsewhere", Credential::TokenFromElsewhere),
    ("false proxy", Credential::FalseProxy(Role::Admin)),
    ("no csrf", Credential::SessionAlone(Role::Admin)),
    ("s.viewer", Credential::Session(Role::Viewer)),
    ("s.operator", Credential::Session(Role::Operator)),
    ("s.lead", Credential::Session(Role::Lead)),
    ("s.admin", Credential::Session(Role::Admin)),
    ("s.admin old", Credential::OldSession(Role::Admin)),
    ("t.viewer", Credential::Token(Role::Viewer)),
    ("t.operator", Credential::Token(Role::Operator)),
    ("t.lead", Credential::Token(Role::Lead)),
    ("t.admin", Credential::Token(Role::Admin)),
    ("t.backup", Credential::ScopeToken(Scope::Backup)),
    ("t.ingest", Credential::ScopeToken(Scope::Ingest)),
    ("f.read", Credential::Fixed("read")),
    ("f.backup", Credential::Fixed("backup")),
    ("f.admin", Credential::Fixed("admin")),
    ("p.viewer", Credential::Proxy(Role::Viewer)),
    ("p.admin", Credential::Proxy(Role::Admin)),
];

fn fixed(name: &str) -> String {
    format!("{name}-{}", "0123456789".repeat(4))
}

async fn collector() -> Collector {
    Collector::start_with(|config| {
        let file = |name: &str| {
            let path = config.data_dir.join(name);
            std::fs::write(&path, fixed(name)).unwrap();
            Some(Source::File(path))
        };
        let operators = &mut config.operators;
        operators.admin_token_file = file("admin");
        operators.backup_token_file = file("backup");
        operators.read_token_file = file("read");
        operators.users_from = vec!["127.0.0.0/8".parse().unwrap()];
        operators.users_from_secret_file = file("proxy");
        // More refusals than one address may have in a while.
        operators.requests_burst = 100_000;
    })
    .await
}

/// A session of a user with that role, as if they had logged in so long ago.
async fn session(collector: &Collector, role: Role, ago: Duration) -> String {
    let mut connection = collector.pool.acquire().await.unwrap();
    let now = collector.clock.now();
    let user = users::User {
        user_id: Uuid::new_v4(),
        name: Uuid::new_v4().to_string(),
        role: role.name().to_owned(),
        password_hash: None,
        created_at: now,
        disabled_at: None,
        must_change_password: false,
    };
    users::insert(&mut connection, &user, "test").await.unwrap();
    let secret = Uuid::new_v4().to_string();
    let session = NewSession {
        session_id: Uuid::new_v4(),
        secret_hash: &Sha256::digest(&secret),
        user_id: Some(user.user_id),
        token_id: None,
        now: now - ago,
        authenticated_at: now - ago,
        expires_at: now + Duration::HOUR,
        address: "127.0.0.1/32".parse().unwrap(),
        user_agent: "",
    };
    sessions::insert(&mut connection, &session).await.unwrap();
    sessions::touch(&mut connection, session.session_id, now)
        .await
        .unwrap();
    secret
}

async fn token(collector: &Collector, change: impl FnOnce(&mut NewToken)) -> (String, String) {
    let mut new = NewToken::of_role("matrix", Role::Admin, "test");
    change(&mut new);
    let mut connection = collector.pool.acquire().await.unwrap();
    let made = token::create(&mut connection, &new, collector.clock.now()).await;
    made.unwrap()
}

/// The headers of a credential.
async fn headers(collector: &Collector, credential: Credential) -> Vec<(&'static str, String)> {
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let proxy = |role: Role, secret: String| {
        vec![
            ("x-user", "ada".to_owned()),
            ("x-role", role.name().to_owned()),
            ("x-proxy-secret", secret),
        ]
    };
    let logged_in = async |role, ago, with_csrf: bool| {
        let secret = session(collector, role, ago).await;
        let mut headers = vec![("cookie", format!("infratrack={secret}"))];
        if with_csrf {
            headers.push(("x-csrf-token", csrf::token(&secret)));
        }
        headers
    };
    match credential {
        Credential::None => Vec::new(),
        Credential::Nonsense => bearer("nonsense"),
        Credential::Session(role) => logged_in(role, Duration::ZERO, true).await,
        Credential::OldSession(role) => logged_in(role, Duration::HOUR, true).await,
        Credential::SessionAlone(role) => logged_in(role, Duration::ZERO, false).await,
        Credential::Token(role) => bearer(&token(collector, |new| new.role = Some(role)).await.1),
        Credential::ScopeToken(scope) => {
            let of_scope = |new: &mut NewToken| (new.role, new.scopes) = (None, vec![scope]);
            bearer(&token(collector, of_scope).await.1)
        }
        Credential::Fixed(name) => vec![("x-api-token", fixed(name))],
        Credential::Proxy(role) => proxy(role, fixed("proxy")),
        Credential::FalseProxy(role) => proxy(role, fixed("other")),
        Credential::ExpiredToken => {
            let over = |new: &mut NewToken| new.lifetime = -Duration::SECOND;
            bearer(&token(collector, over).await.1)
        }
        Credential::RevokedToken => {
            let (id, text) = token(collector, |_| {}).await;
            let path = format!("/api/v1/tokens/{id}");
            collector.api(http::Method::DELETE, &path, "").await;
            bearer(&text)
        }
        Credential::TokenFromElsewhere => {
            let elsewhere = |new: &mut NewToken| new.cidr = Some("192.0.2.0/24".parse().unwrap());
            bearer(&token(collector, elsewhere).await.1)
        }
    }
}

fn path(route: &Route) -> String {
    let nil = Uuid::nil().to_string();
    let parts = route.path.split('/').map(|part| match part {
        "{file}" => "style.css",
        part if part.starts_with('{') => &nil,
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// What came of it, in a word.
fn outcome(response: &Response<Bytes>) -> &'static str {
    let headers = response.headers();
    let leaves = headers.contains_key(SET_COOKIE);
    let to = headers
        .get(LOCATION)
        .filter(|_| !leaves)
        .and_then(|to| to.to_str().ok());
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap_or_default();
    match (response.status(), to, problem["type"].as_str()) {
        (StatusCode::UNAUTHORIZED, ..) => "unknown",
        (StatusCode::SEE_OTHER, Some(to), _) if to.starts_with("/login") => "unknown",
        (StatusCode::FORBIDDEN, _, Some("step_up_required")) => "step-up",
        (StatusCode::SEE_OTHER, Some(to), _) if to.starts_with("/step-up") => "step-up",
        (StatusCode::FORBIDDEN, _, Some("csrf")) => "csrf",
        (StatusCode::FORBIDDEN, _, Some("forbidden")) => "no",
        (status, ..) if status.is_server_error() => "error",
        _ => "yes",
    }
}

/// Who gets through by the table alone.
fn may(route: &Route, credential: Credential) -> Option<bool> {
    let Access::Role(needed) = route.access else {
        return Some(true);
    };
    match credential {
        Credential::Session(role) | Credential::Token(role) | Credential::Proxy(role) => {
            Some(role >= needed)
        }
        Credential::ScopeToken(scope) => {
            Some(route.scope == Some(scope) || scope.role() >= Some(needed))
        }
        Credential::None
        | Credential::Nonsense
        | Credential::FalseProxy(_)
        | Credential::ExpiredToken
        | Credential::RevokedToken
        | Credential::TokenFromElsewhere => Some(false),
        Credential::OldSession(_) | Credential::SessionAlone(_) | Credential::Fixed(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_through_whom_the_matrix_says_and_nobody_else() {
    let collector = collector().await;
    let mut matrix = String::from(
        "# Who gets through to which route. INFRATRACK_RECORD=1 writes it; the change is to be read.\n",
    );
    for route in routes() {
        let mut outcomes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, credential) in COLUMNS {
            let mut request = Request::builder()
                .method(route.method.clone())
                .uri(path(route))
                .header("host", "test");
            for (header, value) in headers(&collector, credential).await {
                request = request.header(header, value);
            }
            let response = collector
                .request(request.body(Full::default()).unwrap())
                .await;
            let outcome = outcome(&response);
            let at = format!(
                "{} {} as {name}: {}",
                route.method,
                route.path,
                response.status()
            );
            assert_ne!(outcome, "error", "{at}");
            if let Some(may) = may(route, credential) {
                assert_eq!(outcome == "yes", may, "{at}");
            }
            outcomes.entry(outcome).or_default().push(name);
        }
        writeln!(matrix, "\n{} {}", route.method, route.path).unwrap();
        for (outcome, names) in outcomes {
            writeln!(matrix, "  {outcome:8} {}", names.join(", ")).unwrap();
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/operators/roles.txt");
    if std::env::var_os("INFRATRACK_RECORD").is_some() {
        std::fs::write(file, &matrix).unwrap();
    }
    let recorded = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        recorded == matrix,
        "collector/tests/it/operators/roles.txt is another matrix:\n{matrix}"
    );
}
