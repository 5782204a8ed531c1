//! One collector, from configuration to running listeners and back down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response};
use hyper::body::Incoming;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::agents::service::{Agents, Enrollment};
use crate::agents::tls::{self, FleetTls};
use crate::api::problem::Problem;
use crate::api::requests::Asked;
use crate::app::App;
use crate::blob::BlobStore;
use crate::ca::live::LiveCa;
use crate::ca::{Ca, Place};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::http::body::{BodyError, MinRate, Paced};
use crate::http::drain::{self, Drain, Drainer};
use crate::http::{Handler, Limits, Listener, Peer, Stats, serve};
use crate::jobs;
use crate::login::Trust;
use crate::roles;
use crate::store::{pool, schema};

/// Held answers are ended over this long.
const SPREAD: Duration = Duration::from_secs(5);
/// Steps of it.
const STEPS: u32 = 20;
/// What is left after this is cut.
const DRAIN: Duration = Duration::from_secs(20);
/// The database has this long to take its connections back.
const CLOSE: Duration = Duration::from_secs(5);

/// A running collector.
#[derive(Debug)]
pub struct Server {
    pub app: Arc<App>,
    pub addresses: Addresses,
    drainer: Drainer,
    jobs: JoinSet<()>,
    listeners: JoinSet<()>,
}

/// The addresses really listened on.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub agents: SocketAddr,
    pub enroll: SocketAddr,
    pub operators: SocketAddr,
}

/// A pool with every time limit set.
pub async fn connect(options: PgConnectOptions, config: &Config) -> anyhow::Result<PgPool> {
    let options = options.application_name("infratrack-collector").options([
        ("statement_timeout", "5s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("timezone", "UTC"),
        // Sums over the fleet group some hundred thousand rows, which the server's 4 MB send to disk.
        ("work_mem", "16MB"),
        // Where a firewall on the way forgot a connection, the server is to notice too, in half a minute and not
        // in two hours: it has only so many.
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "4"),
        ("tcp_user_timeout", "30s"),
    ]);
    pool::options(config.database.max_connections)
        .connect_with(options)
        .await
        .context("cannot connect to the database")
}

/// Brings the database to this release, without the time limits of requests.
pub async fn migrate(options: PgConnectOptions) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(options.options([("timezone", "UTC"), ("lock_timeout", "30s")]))
        .await
        .context("cannot connect to the database")?;
    let migrated = schema::migrate(&pool)
        .await
        .context("cannot migrate the database");
    pool.close().await;
    migrated
}

impl Server {
    /// Starts a collector over a migrated database.
    pub async fn start(config: Config, clock: Clock, pool: PgPool) -> anyhow::Result<Self> {
        let operators = bind(config.operators.listen).await?;
        Self::start_on(config, clock, pool, operators).await
    }

    /// Likewise, with the operators' socket that is open already.
    pub async fn start_on(
        mut config: Config,
        clock: Clock,
        pool: PgPool,
        operators: TcpListener,
    ) -> anyhow::Result<Self> {
        let trust = Trust::load(&config).await?;
        let place = Place::of(&config).await?;
        let ca = Ca::open_or_create_at(&place, &config.trust_domain, clock.now())?;
        let fleet = FleetTls::of(&ca, clock.now())?;
        let ca = LiveCa::new(place, ca);
        let operators_tls = operators_tls(&config).await?;
        let agents = bind(config.agents.listen).await?;
        let enroll = bind(config.enroll.listen).await?;
        let addresses = Addresses {
            agents: agents.local_addr()?,
            enroll: enroll.local_addr()?,
            operators: operators.local_addr()?,
        };
        // A port of 0 is any: from here on it is the one that was given.
        config.agents.listen = addresses.agents;
        config.enroll.listen = addresses.enroll;
        config.operators.listen = addresses.operators;
        let blob = BlobStore::open(&config).await?;
        let app = App::new(config, clock, pool, ca, blob, trust);
        // Before the first batch: partitions to put it in, the downtime that ends now, and the certificates
        // that a restored database forgot.
        jobs::run::once(&app, "partitions", jobs::partitions::run)
            .await
            .context("cannot prepare partitions")?;
        jobs::alive::run(Arc::clone(&app))
            .await
            .context("cannot write to the database")?;
        jobs::ca_log::replay_at_start(&app).await;
        let (drainer, drain) = drain::channel();
        let sockets = Sockets {
            agents,
            enroll,
            operators,
        };
        let listeners = listen(&app, sockets, &fleet, operators_tls, &drain)?;
        drop(drain);
        let jobs = jobs::start(&app, fleet);
        Ok(Self {
            app,
            addresses,
            drainer,
            jobs,
            listeners,
        })
    }

    /// Stops in order: no new connections, held answers ended one after another, then the rest.
    pub async fn stop(mut self) {
        self.app.draining.store(true, Ordering::Relaxed);
        self.drainer.begin();
        let answers = &self.app.answers;
        let share = answers.held_count().div_ceil(STEPS as usize).max(1);
        let within_ms = u32::try_from(SPREAD.as_millis()).unwrap_or(u32::MAX);
        while answers.held_count() > 0 && answers.go_away(share, within_ms) > 0 {
            tokio::time::sleep(SPREAD / STEPS).await;
        }
        self.listeners.join_all().await;
        if !self.drainer.finish(DRAIN).await {
            tracing::warn!("connections were cut at the end of the drain");
        }
        if let Err(error) = jobs::alive::stopped(&self.app).await {
            tracing::warn!(%error, "the last sign of life was not written");
        }
        self.jobs.shutdown().await;
        if tokio::time::timeout(CLOSE, self.app.pool.close())
            .await
            .is_err()
        {
            tracing::warn!("the database did not take its connections back; they are cut");
        }
    }
}

struct Sockets {
    agents: TcpListener,
    enroll: TcpListener,
    operators: TcpListener,
}

fn listen(
    app: &Arc<App>,
    sockets: Sockets,
    fleet: &Arc<FleetTls>,
    operators_tls: Option<Arc<rustls::ServerConfig>>,
    drain: &Drain,
) -> anyhow::Result<JoinSet<()>> {
    let config = &app.config;
    let mut listeners = JoinSet::new();
    let tls = Arc::new(tls::mutual(Arc::clone(fleet), app.clock.clone())?);
    let agents = listener("agents", Some(tls), &config.agents.proxy_protocol_from, app);
    listeners.spawn(serve(
        sockets.agents,
        agents,
        Agents(Arc::clone(app)),
        drain.clone(),
    ));
    let tls = Arc::new(tls::server_only(Arc::clone(fleet))?);
    let enroll = listener("enroll", Some(tls), &config.enroll.proxy_protocol_from, app);
    listeners.spawn(serve(
        sockets.enroll,
        enroll,
        Enrollment(Arc::clone(app)),
        drain.clone(),
    ));
    let proxies = &config.operators.proxy_protocol_from;
    let operators = listener("operators", operators_tls, proxies, app);
    let handler = Operators {
        app: Arc::clone(app),
        router: roles::router(Arc::clone(app)),
    };
    listeners.spawn(serve(sockets.operators, operators, handler, drain.clone()));
    Ok(listeners)
}

pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

fn listener(
    name: &'static str,
    tls: Option<Arc<rustls::ServerConfig>>,
    proxy_from: &[ipnet::IpNet],
    app: &App,
) -> Listener {
    let limits = Limits {
        connections: app.config.ingest.connections,
        ..Limits::default()
    };
    let stats = Arc::new(Stats::default());
    app.metrics.listener(name, Arc::clone(&stats));
    Listener {
        name,
        tls,
        proxy_from: proxy_from.to_vec(),
        limits,
        stats,
    }
}

pub(crate) async fn operators_tls(
    config: &Config,
) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    let operators = &config.operators;
    let (Some(certificate), Some(key)) = (&operators.tls_certificate_file, &operators.tls_key_file)
    else {
        return Ok(None);
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read {}", certificate.display()))?;
    let secret = key.read("operators.tls_key_file").await?;
    let key = PrivateKeyDer::from_pem_slice(secret.expose().as_bytes())
        .with_context(|| format!("operators.tls_key_file: {key} is no key"))?;
    let mut tls = tls::builder()?
        .with_client_cert_verifier(proxy_certificates(operators)?)
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(tls)))
}

/// A proxy that names users may have to show a certificate; browsers never do.
fn proxy_certificates(
    operators: &config::Operators,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let Some(path) = &operators.users_from_client_ca_file else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)
        .with_context(|| format!("cannot read {}", path.display()))?
    {
        roots.add(certificate.with_context(|| format!("cannot read {}", path.display()))?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .with_context(|| format!("{} has no certificate", path.display()))?;
    Ok(verifier)
}

/// The operators' router on the one accept loop.
#[derive(Clone)]
struct Operators {
    app: Arc<App>,
    router: axum::Router,
}

impl Handler for Operators {
    type Body = Body;

    async fn handle(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let asked = Asked::of(&request);
        let answer = self.answer(peer, request);
        asked.answer(&self.app.metrics, answer).await
    }
}

impl Operators {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let rate = MinRate::default();
        let mut request = request.map(|body| Paced::new(body, rate));
        let too_slow = request.body_mut().too_slow();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if too_slow.load(Ordering::Relaxed) {
            return Problem::too_slow(BodyError::TooSlow { rate }).into_response();
        }
        response
    }
}
