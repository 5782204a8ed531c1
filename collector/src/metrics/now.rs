//! Queues and connections, as they are when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::app::App;
use crate::http::Stats;
use crate::traces;

type Count = fn(&Stats) -> &AtomicU64;

/// What is looked at when somebody asks.
#[derive(Debug)]
pub(super) struct Now {
    pool_connections: f64,
    pool_idle: f64,
    queue_ratio: f64,
    held_answers: f64,
    is_writing: f64,
    listeners: Vec<(&'static str, Arc<Stats>)>,
}

impl Now {
    pub(super) fn of(app: &App, listeners: Vec<(&'static str, Arc<Stats>)>) -> Self {
        let failing = app.alive.failure().or(app.writers.condition().failure());
        Self {
            pool_connections: f64::from(app.pool.size()),
            pool_idle: app.pool.num_idle() as f64,
            queue_ratio: app.writers.load(),
            held_answers: app.answers.held_count() as f64,
            is_writing: f64::from(u8::from(failing.is_none())),
            listeners,
        }
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauges = [
            (
                "postgres_pool_connections",
                "Connections to Postgres, the writers' own not counted.",
                self.pool_connections,
            ),
            ("postgres_pool_idle", "Of these, unused.", self.pool_idle),
            (
                "postgres_writable",
                "1: what was written last was stored, 0: not.",
                self.is_writing,
            ),
            (
                "ingest_queue_ratio",
                "How full the fullest queue of the writers is, 0 to 1.",
                self.queue_ratio,
            ),
            (
                "ingest_held_answers",
                "Agents that can be sent something at once.",
                self.held_answers,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        spans(&mut encoder)?;
        self.connections(&mut encoder)
    }
}

/// Only where something is traced.
fn spans(encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let Some(counts) = traces::counts() else {
        return Ok(());
    };
    let waiting = ConstGauge::new(counts.waiting.load(Ordering::Relaxed) as u64);
    let help = "Spans that wait to be sent.";
    waiting.encode(encoder.encode_descriptor(
        "trace_spans_waiting",
        help,
        None,
        MetricType::Gauge,
    )?)?;
    let help = "Spans by what became of them: sent, failed (the endpoint took none), dropped (the queue was full).";
    let mut metric = encoder.encode_descriptor("trace_spans", help, None, MetricType::Counter)?;
    for (outcome, count) in [
        ("sent", &counts.sent),
        ("failed", &counts.failed),
        ("dropped", &counts.dropped),
    ] {
        let counted = ConstCounter::new(count.load(Ordering::Relaxed));
        counted.encode(metric.encode_family(&[("outcome", outcome)])?)?;
    }
    Ok(())
}

impl Now {
    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Connections, handshakes included.";
        let mut metric =
            encoder.encode_descriptor("connections_open", help, None, MetricType::Gauge)?;
        for (listener, stats) in &self.listeners {
            let open = ConstGauge::new(stats.open.load(Ordering::Relaxed) as f64);
            open.encode(metric.encode_family(&[("listener", *listener)])?)?;
        }
        let counters: [(&str, &str, Count); 5] = [
            ("connections_accepted", "Connections accepted.", |stats| {
                &stats.accepted
            }),
            (
                "connections_refused_full",
                "Connections closed because there were too many.",
                |stats| &stats.refused_full,
            ),
            (
                "connections_refused_pending",
                "Connections closed because their address had too many handshakes under way.",
                |stats| &stats.refused_pending,
            ),
            (
                "handshakes_failed",
                "Handshakes that failed or took too long.",
                |stats| &stats.failed_handshakes,
            ),
            ("accept_errors", "Errors of accept(2).", |stats| {
                &stats.accept_errors
            }),
        ];
        for (name, help, count) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (listener, stats) in &self.listeners {
                let counted = ConstCounter::new(count(stats).load(Ordering::Relaxed));
                counted.encode(metric.encode_family(&[("listener", *listener)])?)?;
            }
        }
        Ok(())
    }
}
