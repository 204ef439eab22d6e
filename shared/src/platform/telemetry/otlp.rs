//! Exports traces by OTLP over HTTP, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SdkTracerProvider, SpanData, SpanExporter, Tracer},
};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TraceParent;

/// How long one batch of spans may take to send.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Set if traces are exported. It is flushed at the end of the process.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Runs the exporter on the process's runtime: batches are sent from a thread that has none.
#[derive(Debug)]
struct OnRuntime {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    runtime: Handle,
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await });
        sent.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())))
    }

    /// Which process the spans are of. Comes before the first of them.
    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

/// Starts exporting to the collector at `endpoint`. Must be called inside the runtime.
pub(super) fn tracer(endpoint: &str, service: &'static str) -> Result<Tracer, ExporterBuildError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let exporter = OnRuntime { exporter: Arc::new(exporter), runtime: Handle::current() };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let tracer = provider.tracer(service);
    let _only_once = PROVIDER.set(provider);
    Ok(tracer)
}

/// Sends the collected spans, at the end of the process. Does nothing if traces are not exported.
pub async fn flush_traces() {
    if let Some(provider) = PROVIDER.get() {
        // It waits for its thread, which waits for this runtime.
        let flushed = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(EXPORT_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last traces could not be sent");
        }
    }
}

/// Whether traces are exported.
pub(super) fn is_exporting() -> bool {
    PROVIDER.get().is_some()
}

/// Makes `span` a part of the caller's trace. Must be called before the span is entered.
pub(super) fn set_parent(span: &Span, parent: TraceParent) {
    let context = opentelemetry::Context::new().with_remote_span_context(remote(parent));
    // A span that the filter leaves out has no parent either.
    let _left_out = span.set_parent(context);
}

/// The trace of `span`, with the id of `span`.
pub(super) fn trace_of(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| {
        let trace_id = u128::from_be_bytes(context.trace_id().to_bytes());
        let span_id = u64::from_be_bytes(context.span_id().to_bytes());
        TraceParent::new(trace_id, span_id, context.is_sampled())
    })
}

fn remote(trace: TraceParent) -> SpanContext {
    let flags = if trace.sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id().to_be_bytes()),
        SpanId::from_bytes(trace.span_id().to_be_bytes()),
        flags,
        true,
        TraceState::NONE,
    )
}
