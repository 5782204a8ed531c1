//! Where traces of the collector's own work go, and how many of them.

use documented::DocumentedFields;
use http::Uri;
use serde::{Deserialize, Serialize};

/// Traces of the collector's own work, for OpenTelemetry.
#[derive(Clone, Debug, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Who takes them by OTLP over HTTP, `http://localhost:4318`; empty: whom the environment's
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` names, else nobody.
    pub otlp_endpoint: String,
    /// The part of agents' batches that is traced, 0 to 1. Requests of operators and jobs all are.
    pub sample_ratio: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            sample_ratio: 0.01,
        }
    }
}

impl Telemetry {
    /// What a type alone can't say.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (0.0..=1.0).contains(&self.sample_ratio),
            "telemetry.sample_ratio must be from 0 to 1"
        );
        anyhow::ensure!(
            self.otlp_endpoint.is_empty() || traces_url(&self.otlp_endpoint).is_some(),
            "telemetry.otlp_endpoint is not of the form http://localhost:4318"
        );
        Ok(())
    }

    /// Where spans are sent to; `None`: nowhere.
    pub fn traces_url(&self) -> anyhow::Result<Option<String>> {
        let of_environment = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        if !self.otlp_endpoint.is_empty() {
            return Ok(traces_url(&self.otlp_endpoint));
        }
        let whole = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        if let Some(url) = of_environment(whole) {
            anyhow::ensure!(is_url(&url), "the environment's {whole} is no URL");
            return Ok(Some(url));
        }
        let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let Some(endpoint) = of_environment(base) else {
            return Ok(None);
        };
        let url = traces_url(&endpoint);
        anyhow::ensure!(url.is_some(), "the environment's {base} is no URL");
        Ok(url)
    }
}

fn traces_url(endpoint: &str) -> Option<String> {
    is_url(endpoint).then(|| format!("{}/v1/traces", endpoint.trim_end_matches('/')))
}

/// With a password in it, it is none: URLs come to stand in logs. `OTEL_EXPORTER_OTLP_HEADERS` is for secrets.
pub(super) fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else {
        return false;
    };
    matches!(url.scheme_str(), Some("http" | "https"))
        && url
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(endpoint: &str) -> Telemetry {
        Telemetry {
            otlp_endpoint: endpoint.to_owned(),
            ..Telemetry::default()
        }
    }

    #[test]
    fn an_endpoint_is_a_url_without_a_password() {
        for good in ["", "http://localhost:4318", "https://[::1]:4318/otlp/"] {
            at(good).check().unwrap();
        }
        for bad in ["localhost:4318", "ftp://a", "http://a:b@localhost", "/x"] {
            let said = at(bad).check().unwrap_err().to_string();
            assert!(!said.contains("a:b"), "{said}");
        }
        let url = at("https://otel.example/otlp/").traces_url().unwrap();
        assert_eq!(url.as_deref(), Some("https://otel.example/otlp/v1/traces"));
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        for (ratio, is_good) in [
            (0.0, true),
            (1.0, true),
            (-0.1, false),
            (1.1, false),
            (f64::NAN, false),
        ] {
            let telemetry = Telemetry {
                sample_ratio: ratio,
                ..Telemetry::default()
            };
            assert_eq!(telemetry.check().is_ok(), is_good, "{ratio}");
        }
    }
}
