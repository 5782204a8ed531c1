//! Spans on their way out: counted, queued by OpenTelemetry's SDK, sent by the collector's own client.
//!
//! Nobody waits for them: the queue is bounded, and what finds it full is dropped. The SDK sends from a thread of its
//! own, one batch after the other.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::fetch::Fetch;

/// Spans that wait or are being sent.
const QUEUE: usize = 2048;
/// Spans a request.
const BATCH: usize = 512;
/// A request's time limit, and that of its repetitions together.
const LIMIT: Duration = Duration::from_secs(5);

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    pub sent: AtomicU64,
    /// The endpoint did not take them.
    pub failed: AtomicU64,
    /// The queue was full.
    pub dropped: AtomicU64,
    pub waiting: AtomicUsize,
}

/// Makes spans and sends them to `url`.
pub(super) fn provider(url: &str, counts: &Arc<Counts>) -> anyhow::Result<SdkTracerProvider> {
    let client = Client {
        fetch: Fetch::new(None, true)?,
        runtime: Handle::current(),
    };
    let exporter = Otlp::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        .with_timeout(LIMIT)
        .build()?;
    let exporter = Counting {
        exporter,
        counts: Arc::clone(counts),
        is_failing: AtomicBool::default(),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .build();
    let queue = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batches)
        .build();
    let queue = Bounded {
        queue,
        counts: Arc::clone(counts),
    };
    Ok(SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(resource())
        .build())
}

/// Who speaks; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` may say otherwise.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => builder.build(),
        None => builder.with_service_name("infratrack-collector").build(),
    }
}

/// The SDK's queue, which counts what it drops but tells nobody: so it is kept from being full.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    counts: Arc<Counts>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let room = |waiting| (waiting < QUEUE).then_some(waiting + 1);
        let waiting = &self.counts.waiting;
        if waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
        {
            self.queue.on_end(span);
        } else {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

#[derive(Debug)]
struct Counting {
    exporter: Otlp,
    counts: Arc<Counts>,
    is_failing: AtomicBool,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        let outcome = match &sent {
            Ok(()) => &self.counts.sent,
            Err(_) => &self.counts.failed,
        };
        outcome.fetch_add(count as u64, Ordering::Relaxed);
        self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
        // Said when it changes: an endpoint may be away for days.
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !was_failing => tracing::warn!(%error, "spans are not taken"),
            Ok(()) if was_failing => tracing::info!("spans are taken again"),
            Ok(()) | Err(_) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(limit)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sends from the collector's runtime, for the SDK's thread has none.
#[derive(Debug)]
struct Client {
    fetch: Fetch,
    runtime: Handle,
}

impl HttpClient for Client {
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        let fetch = self.fetch.clone();
        let sent = self.runtime.spawn(async move {
            timeout(LIMIT, fetch.send(request.map(|body| body.to_vec()))).await
        });
        Box::pin(async move { Ok(sent.await???.map(Bytes::from)) })
    }
}
