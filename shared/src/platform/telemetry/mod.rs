//! Logs, metrics and traces of a process: how they are written and exported. What is recorded stands where it happens.

mod json;
mod log_writer;
mod otlp;
mod spans;
mod trace;

use std::io::{self, IsTerminal};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::platform::config::{ConfigError, Env};

pub use otlp::flush_traces;
pub use spans::{handler_span, record_status, request_span};
pub use trace::{NotATraceParent, TraceParent, current_traceparent, within_trace};

/// How a process logs and traces.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Readable text for people instead of JSON lines for machines.
    pretty: bool,
    /// Filter directives, as `RUST_LOG` writes them.
    filter: String,
    /// The collector that traces go to.
    endpoint: Option<String>,
    /// What the collector calls this process.
    service: &'static str,
}

impl TelemetryConfig {
    /// Reads `DEBUG`, `LOG_LEVEL`, `RUST_LOG` and `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let level = env.parsed_or("LOG_LEVEL", tracing::Level::INFO)?;
        let filter = match env.text("RUST_LOG") {
            Some(directives) => directives.to_owned(),
            None => format!("{level},hyper=warn,lapin=warn,aws=warn,h2=warn"),
        };
        EnvFilter::try_new(&filter).map_err(|error| ConfigError::new("RUST_LOG", error.to_string()))?;
        let endpoint = env.http_url("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        // The path of traces is added at its end.
        if endpoint.as_ref().is_some_and(|url| url.query().is_some()) {
            return Err(ConfigError::new("OTEL_EXPORTER_OTLP_ENDPOINT", "must end before the ?"));
        }
        let endpoint = endpoint.map(String::from);
        Ok(Self { pretty: env.flag("DEBUG")?, filter, endpoint, service: "orders" })
    }

    /// The same for a process of another name.
    #[must_use]
    pub fn named(self, service: &'static str) -> Self {
        Self { service, ..self }
    }
}

/// Starts logging to standard output and, if a collector is set, exporting traces. Must be called inside the runtime. The last
/// lines are written when the returned guard is dropped.
#[must_use = "the last lines of the log are written when this is dropped"]
pub fn init(config: &TelemetryConfig) -> Option<WorkerGuard> {
    let filter = EnvFilter::new(&config.filter);
    let exported = config.endpoint.as_deref().map(|endpoint| otlp::tracer(endpoint, config.service));
    let (tracer, failure) = match exported.transpose() {
        Ok(tracer) => (tracer, None),
        Err(error) => (None, Some(error)),
    };
    // Only the spans of requests and handlers are exported, whatever the filter for logs is.
    let exporting = tracer.map(|tracer| {
        let ours = filter_fn(|metadata| metadata.target() == "trace");
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours)
    });
    let registry = tracing_subscriber::registry().with(exporting);
    let guard = if config.pretty {
        // No colours in a file.
        let ansi = std::io::stdout().is_terminal();
        registry.with(tracing_subscriber::fmt::layer().with_ansi(ansi).with_filter(filter)).init();
        None
    } else {
        let (writer, guard) = log_writer::start(io::stdout());
        let json = tracing_subscriber::fmt::layer().with_writer(writer).event_format(json::Json);
        registry.with(json.with_filter(filter)).init();
        Some(guard)
    };
    if let Some(error) = failure {
        tracing::error!(error = %error, "traces cannot be exported");
    }
    guard
}

/// Upper bounds of duration histograms in seconds: from a cache hit to the request time-out.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Installs the process-wide metrics recorder and returns the handle that renders it.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)?
        .install_recorder()
}
