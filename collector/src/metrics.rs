//! What Prometheus scrapes of a collector: requests, jobs, queues, connections, and the state of the fleet.
//!
//! Labels have few values each: routes as the router has them, never paths; hosts and volumes by name only up to a configured
//! number.

mod now;
mod volumes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::http::Stats;
use now::Now;
use volumes::VolumeMetrics;

/// As `GET /metrics` sends it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a page out of memory to the time limit of a request, in seconds.
const REQUEST_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];
/// From a look at the clock to the time limit of a job, in seconds.
const JOB_SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    listener: &'static str,
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    listener: &'static str,
    method: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    job: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    job: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DocumentLabels {
    tool: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LinkLabels {
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HostLabels {
    host_id: String,
    host: String,
}

/// A host as its gauge shows it.
#[derive(Clone, Debug)]
pub struct HostStatus {
    pub host_id: String,
    pub name: String,
    pub is_healthy: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    listeners: Mutex<Vec<(&'static str, Arc<Stats>)>>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<RouteLabels>,
    job_seconds: Histograms<RunLabels>,
    job_failures: Family<JobLabels, Counter>,
    audit_unsealed: Gauge,
    audit_checkpoint_age: Gauge,
    change_documents: Family<DocumentLabels, Counter>,
    change_bytes: Family<DocumentLabels, Counter>,
    change_redactions: Counter,
    change_links: Family<LinkLabels, Gauge>,
    backup_packs: Family<OutcomeLabels, Counter>,
    backup_pack_bytes: Family<OutcomeLabels, Counter>,
    /// Of volumes.
    pub volumes: VolumeMetrics,
    backup_drills: Family<OutcomeLabels, Counter>,
    backup_drills_overdue: Gauge,
    backup_packs_verified: Family<OutcomeLabels, Counter>,
    backup_packs_overdue: Gauge,
    backup_chunks_lost: Gauge,
    hosts: Family<StatusLabels, Gauge>,
    host_status: Family<HostLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            listeners: Mutex::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            job_seconds: Family::new_with_constructor(|| Histogram::new(JOB_SECONDS)),
            job_failures: Family::default(),
            audit_unsealed: Gauge::default(),
            audit_checkpoint_age: Gauge::default(),
            change_documents: Family::default(),
            change_bytes: Family::default(),
            change_redactions: Counter::default(),
            change_links: Family::default(),
            backup_packs: Family::default(),
            backup_pack_bytes: Family::default(),
            volumes: VolumeMetrics::default(),
            backup_drills: Family::default(),
            backup_drills_overdue: Gauge::default(),
            backup_packs_verified: Family::default(),
            backup_packs_overdue: Gauge::default(),
            backup_chunks_lost: Gauge::default(),
            hosts: Family::default(),
            host_status: Family::default(),
        };
        metrics.register();
        // What never happened is 0, and not missing.
        for tool in ["terraform", "ansible"] {
            for outcome in ["stored", "known", "refused", "failed"] {
                let labels = DocumentLabels { tool, outcome };
                drop(metrics.change_documents.get_or_create(&labels));
                drop(metrics.change_bytes.get_or_create(&labels));
            }
        }
        for outcome in ["stored", "known", "refused", "failed"] {
            metrics.backup_pack(outcome, None);
        }
        for outcome in ["ok", "failed", "cancelled"] {
            let labels = OutcomeLabels { outcome };
            drop(metrics.backup_drills.get_or_create(&labels));
        }
        for outcome in ["ok", "damaged", "missing", "failed"] {
            let labels = OutcomeLabels { outcome };
            drop(metrics.backup_packs_verified.get_or_create(&labels));
        }
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry();
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From a request's head to its answer's; of answers that are held, to their beginning",
            self.request_seconds.clone(),
        );
        registry.register(
            "background_job_duration_seconds",
            "Runs of what a collector does by itself",
            self.job_seconds.clone(),
        );
        registry.register(
            "background_job_failures",
            "Runs that failed or took too long",
            self.job_failures.clone(),
        );
        registry.register(
            "audit_unsealed_rows",
            "Rows of the audit log that wait for their seal",
            self.audit_unsealed.clone(),
        );
        registry.register(
            "audit_checkpoint_age_seconds",
            "Since the end of the audit log was signed; 0 where it never was. It grows while nothing happens, too",
            self.audit_checkpoint_age.clone(),
        );
        registry.register(
            "change_documents",
            "Plans, states, applies and batches of plays' records that were posted",
            self.change_documents.clone(),
        );
        registry.register(
            "change_document_bytes",
            "Of these, unpacked",
            self.change_bytes.clone(),
        );
        registry.register(
            "change_redactions",
            "Places in documents where something secret was taken out",
            self.change_redactions.clone(),
        );
        registry.register(
            "change_links",
            "Links of runs to hosts by state",
            self.change_links.clone(),
        );
        self.register_backups(&mut registry);
        registry.register("hosts", "Hosts by status", self.hosts.clone());
        registry.register(
            "host_status_gauge",
            "1: healthy, 0: not; only while there are no more hosts than operators.metrics_hosts",
            self.host_status.clone(),
        );
    }

    fn register_backups(&self, registry: &mut Registry) {
        registry.register(
            "backup_packs",
            "Packs of backups that hosts sent",
            self.backup_packs.clone(),
        );
        registry.register(
            "backup_pack_bytes",
            "Of these",
            self.backup_pack_bytes.clone(),
        );
        registry.register_collector(Box::new(self.volumes.clone()));
        registry.register(
            "backup_drills",
            "Restore drills that ended",
            self.backup_drills.clone(),
        );
        registry.register(
            "backup_drills_overdue",
            "Volumes that were not restored for more than their period and a quarter",
            self.backup_drills_overdue.clone(),
        );
        registry.register(
            "backup_packs_verified",
            "Packs and snapshots of backups that were read again",
            self.backup_packs_verified.clone(),
        );
        registry.register(
            "backup_packs_overdue",
            "Packs that were not read for 90 days",
            self.backup_packs_overdue.clone(),
        );
        registry.register(
            "backup_chunks_lost",
            "Chunks that are lost and that nothing stands for",
            self.backup_chunks_lost.clone(),
        );
    }

    /// A request was answered; its method by [`method_name`].
    pub fn request(
        &self,
        listener: &'static str,
        method: &'static str,
        route: &'static str,
        status: StatusCode,
        took: Duration,
    ) {
        let status = status.as_u16();
        let labels = RequestLabels {
            listener,
            method,
            route,
            status,
        };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels {
            listener,
            method,
            route,
        };
        let seconds = self.request_seconds.get_or_create(&labels);
        seconds.observe(took.as_secs_f64());
    }

    /// A job that has not run yet did not fail yet.
    pub fn declare_job(&self, job: &'static str) {
        drop(self.job_failures.get_or_create(&JobLabels { job }));
    }

    /// A job ran.
    pub fn job(&self, job: &'static str, took: Duration, outcome: &'static str) {
        let labels = RunLabels { job, outcome };
        let seconds = self.job_seconds.get_or_create(&labels);
        seconds.observe(took.as_secs_f64());
        let failures = self.job_failures.get_or_create(&JobLabels { job });
        if outcome != "ok" {
            failures.inc();
        }
    }

    /// A document of a tool was posted: `stored`, `known` already, `refused`, or `failed` here.
    pub fn change_document(
        &self,
        tool: &'static str,
        outcome: &'static str,
        bytes: usize,
        redactions: i64,
    ) {
        let labels = DocumentLabels { tool, outcome };
        self.change_documents.get_or_create(&labels).inc();
        let sum = self.change_bytes.get_or_create(&labels);
        sum.inc_by(bytes as u64);
        self.change_redactions
            .inc_by(u64::try_from(redactions).unwrap_or_default());
    }

    /// A host sent a pack of so many bytes: `stored`, `known` already, `refused`, or `failed` here. None: none did yet.
    pub fn backup_pack(&self, outcome: &'static str, bytes: Option<usize>) {
        let labels = OutcomeLabels { outcome };
        let (packs, sum) = (
            self.backup_packs.get_or_create(&labels),
            self.backup_pack_bytes.get_or_create(&labels),
        );
        if let Some(bytes) = bytes {
            packs.inc();
            sum.inc_by(bytes as u64);
        }
    }

    /// A drill ended: `ok`, `failed` or `cancelled`.
    pub fn backup_drill(&self, outcome: &'static str) {
        let labels = OutcomeLabels { outcome };
        self.backup_drills.get_or_create(&labels).inc();
    }

    /// How many volumes are overdue.
    pub fn backup_drills_overdue(&self, volumes: i64) {
        self.backup_drills_overdue.set(volumes);
    }

    /// A pack or a snapshot was read again: `ok`, `damaged`, `missing`, or `failed` where the store did not answer.
    pub fn backup_verified(&self, outcome: &'static str) {
        let labels = OutcomeLabels { outcome };
        self.backup_packs_verified.get_or_create(&labels).inc();
    }

    /// How many packs were not read for too long, and how many chunks are lost.
    pub fn backup_packs(&self, overdue: i64, lost_chunks: i64) {
        self.backup_packs_overdue.set(overdue);
        self.backup_chunks_lost.set(lost_chunks);
    }

    /// How links stand.
    pub fn change_links(&self, by_state: Vec<(String, i64)>) {
        self.change_links.clear();
        for (state, count) in by_state {
            let labels = LinkLabels { state };
            self.change_links.get_or_create(&labels).set(count);
        }
    }

    /// The audit log's state.
    pub fn audit(&self, unsealed: i64, checkpoint_age: Option<time::Duration>) {
        self.audit_unsealed.set(unsealed);
        let seconds = checkpoint_age.map_or(0, time::Duration::whole_seconds);
        self.audit_checkpoint_age.set(seconds);
    }

    /// The fleet's state. Of hosts and statuses that are no longer there nothing is left.
    pub fn fleet(&self, by_status: Vec<(String, i64)>, hosts: Vec<HostStatus>) {
        self.hosts.clear();
        for (status, count) in by_status {
            self.hosts
                .get_or_create(&StatusLabels { status })
                .set(count);
        }
        self.host_status.clear();
        for host in hosts {
            let labels = HostLabels {
                host_id: host.host_id,
                host: host.name,
            };
            let gauge = self.host_status.get_or_create(&labels);
            gauge.set(i64::from(host.is_healthy));
        }
    }

    /// Adds a listener's counters.
    pub fn listener(&self, name: &'static str, stats: Arc<Stats>) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push((name, stats));
    }

    /// Everything, with the queues and connections of this moment.
    pub fn encode(&self, app: &App) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry())?;
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Now::of(app, listeners.clone());
        drop(listeners);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(now));
        encode_registry(&mut text, &registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Anybody may send any word as a method.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
