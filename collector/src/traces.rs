//! Spans for OpenTelemetry: operators' requests, some of the agents' batches with the flush that stores them, jobs.
//!
//! `main` sets this up for the process, where an endpoint is configured. Where none is, no span is ever made: all here
//! asks [`state`] first. Spans say who and what, never a query, a header or a body. The log sees no span but one that
//! has the trace's id.

mod export;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::Either;
use http::{HeaderMap, Method, StatusCode};
use infratrack_shared::ids::HostId;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Empty;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

pub use export::Counts;

use crate::caller::Caller;
use crate::config::Telemetry;
use crate::metrics::method_name;

/// What these spans are known by; the log leaves them out.
pub const TARGET: &str = "infratrack_trace";

/// At the end, what has not been sent within this is lost.
const STOP: Duration = Duration::from_secs(2);

/// Set where this process traces; as the log, it is one for all collectors in it.
static STATE: OnceLock<State> = OnceLock::new();

#[derive(Debug)]
struct State {
    counts: Arc<Counts>,
    sample_ratio: f64,
}

fn state() -> Option<&'static State> {
    STATE.get()
}

/// What became of the spans so far; `None`: nothing is traced.
pub fn counts() -> Option<&'static Counts> {
    state().map(|state| &*state.counts)
}

/// The way out for spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sets the process up, where an endpoint is configured. Needs a tokio runtime.
    pub fn set_up(config: &Telemetry) -> anyhow::Result<Option<Self>> {
        let Some(url) = config.traces_url()? else {
            return Ok(None);
        };
        let counts = Arc::new(Counts::default());
        let provider = export::provider(&url, &counts)?;
        let state = State {
            counts,
            sample_ratio: config.sample_ratio,
        };
        anyhow::ensure!(STATE.set(state).is_ok(), "traces are set up already");
        Ok(Some(Self(provider)))
    }

    /// For the process' subscriber.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("infratrack-collector"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
    }

    /// Sends what waits, for a short while.
    pub async fn stop(self) {
        let provider = self.0;
        let stopped =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(STOP)).await;
        if !matches!(stopped, Ok(Ok(()))) {
            tracing::warn!("some spans were not sent before the end");
        }
    }
}

/// The span of an operator's request, below the one that its `traceparent` names.
pub fn request(method: &Method, path: &str, headers: &HeaderMap, id: &str) -> Span {
    if state().is_none() {
        return Span::none();
    }
    let method = known(method);
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
        url.path = path,
        infratrack.request_id = id,
        enduser.id = Empty,
        enduser.role = Empty,
    );
    let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // Only a layer that is not there refuses it.
    drop(span.set_parent(parent));
    span
}

/// Of some of the agents' batches.
pub fn batch(route: &'static str) -> Span {
    let is_sampled = |state: &State| rand::random::<f64>() < state.sample_ratio;
    if !state().is_some_and(is_sampled) {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        "batch",
        otel.name = format!("POST {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = "POST",
        http.route = route,
        http.response.status_code = Empty,
        error.type = Empty,
        infratrack.host_id = Empty,
    )
}

/// Of the flush that stores batches, where one of them is traced: below the first of those, linked with the others.
pub fn flush(batches: &[Span], rows: usize) -> Span {
    let mut traced = batches.iter().filter(|span| !span.is_none());
    let Some(first) = traced.next() else {
        return Span::none();
    };
    let span = tracing::info_span!(
        target: TARGET,
        parent: first,
        "flush",
        otel.status_code = Empty,
        error.type = Empty,
        infratrack.batches = batches.len(),
        infratrack.rows = rows,
    );
    for other in traced {
        span.follows_from(other);
    }
    span
}

/// Of a job's run.
pub fn job(name: &'static str) -> Span {
    if state().is_none() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        "job",
        otel.name = format!("job {name}"),
        otel.status_code = Empty,
        error.type = Empty,
        infratrack.job = name,
        infratrack.job.outcome = Empty,
    )
}

/// Does `work` within `span`. Boxed where there is one: work without is not to hold room for it.
pub fn within<F: Future>(
    span: Span,
    work: F,
) -> Either<F, Pin<Box<Instrumented<Instrumented<F>>>>> {
    if span.is_none() {
        return Either::Left(work);
    }
    let id = span.context().span().span_context().trace_id();
    // At the level of errors, for no filter is to keep it from lines that pass.
    let of_log = tracing::error_span!(parent: None, "trace", trace_id = %id);
    Either::Right(Box::pin(work.instrument(span).instrument(of_log)))
}

/// The span of the work that is done here.
pub fn current() -> Span {
    match state() {
        Some(_) => Span::current(),
        None => Span::none(),
    }
}

/// The host is known whose batch this is.
pub fn is_of_host(host: HostId) {
    if state().is_some() {
        Span::current().record("infratrack.host_id", tracing::field::display(host));
    }
}

/// The request is answered.
pub fn is_answered(status: StatusCode) {
    if state().is_none() {
        return;
    }
    let span = Span::current();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        has_failed(&span, status.as_str());
    }
}

/// An operator's request is answered, by a route or by none.
pub fn is_answered_by(
    method: &Method,
    route: Option<&'static str>,
    caller: Option<&Caller>,
    status: StatusCode,
) {
    if state().is_none() {
        return;
    }
    is_answered(status);
    let span = Span::current();
    if let Some(route) = route {
        // A name is no field any more once the span has begun.
        let context = span.context();
        context
            .span()
            .update_name(format!("{} {route}", known(method)));
        span.record("http.route", route);
    }
    if let Some(caller) = caller {
        span.record("enduser.id", caller.name.as_str());
        span.record("enduser.role", caller.role_name());
    }
}

/// The job's run is over.
pub fn has_ended(outcome: &'static str, is_ok: bool) {
    if state().is_none() {
        return;
    }
    let span = Span::current();
    span.record("infratrack.job.outcome", outcome);
    if !is_ok {
        has_failed(&span, outcome);
    }
}

/// Marks a span; `kind` is one of few words. What went wrong stands in the log.
pub fn has_failed(span: &Span, kind: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

/// As OpenTelemetry has it: a stranger's method is no name.
fn known(method: &Method) -> &'static str {
    match method_name(method) {
        "other" => "_OTHER",
        known => known,
    }
}
