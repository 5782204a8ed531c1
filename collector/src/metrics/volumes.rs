//! Backups as metrics. Names and meaning are those that dashboards of backups have already; the figures are the database's, so that
//! every collector tells the same and a restart loses nothing.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use time::OffsetDateTime;

use crate::store::volume_figures::Figures;

/// What was found last.
#[derive(Clone, Debug, Default)]
pub struct VolumeMetrics(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    by_status: Vec<(String, i64)>,
    figures: Vec<Figures>,
}

impl VolumeMetrics {
    /// Replaces what was found: how many volumes stand how, and the figures of each, or of all together.
    pub fn set(&self, by_status: Vec<(String, i64)>, figures: Vec<Figures>) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Found { by_status, figures };
    }
}

impl Collector for VolumeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Volumes by how they stand";
        let mut metric =
            encoder.encode_descriptor("storage_volume_count", help, None, MetricType::Gauge)?;
        for (status, count) in &found.by_status {
            let gauge = ConstGauge::new(*count);
            gauge.encode(metric.encode_family(&[("status", status.as_str())])?)?;
        }
        let mut encode = |name, help, value: Value| encode(&mut encoder, &found, name, help, value);
        encode(
            "backup_operations",
            "Runs of backups that ended",
            Value::Counter(|figures| figures.runs),
        )?;
        encode(
            "backup_failures",
            "Of these, those that failed",
            Value::Counter(|figures| figures.failures),
        )?;
        encode(
            "backup_last_success_timestamp",
            "When the newest snapshot with everything in it was made, in seconds since 1970; without labels the oldest of these",
            Value::Gauge(|figures| figures.last_ok_at.map(OffsetDateTime::unix_timestamp)),
        )?;
        encode(
            "backup_rpo_violation",
            "1: past its RPO, 0: not; without labels how many are",
            Value::Gauge(|figures| Some(figures.late)),
        )
    }
}

#[derive(Clone, Copy)]
enum Value {
    Counter(fn(&Figures) -> i64),
    Gauge(fn(&Figures) -> Option<i64>),
}

/// A metric of all figures that have it.
fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    found: &Found,
    name: &str,
    help: &str,
    value: Value,
) -> Result<(), std::fmt::Error> {
    let kind = match value {
        Value::Counter(_) => MetricType::Counter,
        Value::Gauge(_) => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for figures in &found.figures {
        let labels = figures.volume.as_deref().zip(figures.host.as_deref());
        let labels = labels.map(|(volume, host)| [("volume", volume), ("host", host)]);
        let labels = labels.as_ref().map_or(&[][..], |labels| &labels[..]);
        match value {
            Value::Counter(count) => {
                let count = u64::try_from(count(figures)).unwrap_or_default();
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
            Value::Gauge(value) => {
                if let Some(value) = value(figures) {
                    ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
    }
    Ok(())
}
