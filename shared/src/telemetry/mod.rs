//! Logs, metrics and traces of a process.

mod trace;

use std::io::IsTerminal;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{ConfigError, Env};

pub use trace::{NotATraceParent, TraceParent, current_traceparent, within_trace};

/// How a process tells what it does.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Readable text for people instead of JSON lines for machines.
    pretty: bool,
    /// Filter directives, as `RUST_LOG` writes them.
    filter: String,
}

impl TelemetryConfig {
    /// Reads `DEBUG`, `LOG_LEVEL` and `RUST_LOG`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let level = env.parsed_or("LOG_LEVEL", tracing::Level::INFO)?;
        let filter = match env.text("RUST_LOG") {
            Some(directives) => directives.to_owned(),
            None => format!("{level},hyper=warn,lapin=warn,aws=warn,h2=warn"),
        };
        EnvFilter::try_new(&filter).map_err(|error| ConfigError::new("RUST_LOG", error.to_string()))?;
        Ok(Self { pretty: env.flag("DEBUG")?, filter })
    }
}

/// Starts logging to standard output.
pub fn init(config: &TelemetryConfig) {
    let filter = EnvFilter::new(&config.filter);
    let registry = tracing_subscriber::registry().with(filter);
    if config.pretty {
        // Colours are for eyes: not in a file.
        let ansi = std::io::stdout().is_terminal();
        registry.with(tracing_subscriber::fmt::layer().with_ansi(ansi)).init();
    } else {
        let json = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        registry.with(json).init();
    }
}

/// Upper bounds of duration histograms in seconds: from a cache hit to the request time-out.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Installs the process-wide metrics recorder and returns what renders it.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)?
        .install_recorder()
}
