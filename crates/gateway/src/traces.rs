//! Traces for OpenTelemetry: one span for each call, sent to a collector by OTLP (HTTP, protobuf).
//!
//! Off unless `[tracing]` or the standard variables of the environment ask for it. Spans wait in a queue
//! of fixed length, and a thread of its own sends them: a collector that is slow or gone costs spans, and
//! never a call's time. Nothing of what people ask is in them, and no key or token.

mod call_span;
mod collector;
mod settings;

pub(crate) use call_span::CallSpan;
pub(crate) use settings::{Traces, TracingSpec};

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use collector::Collector;

/// Where calls begin their spans; without it, there are none.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// How long the last spans may take to be sent, after the gateway has stopped.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// What sends spans, until it is dropped.
pub(crate) struct Sending(SdkTracerProvider);

impl Traces {
    /// Begins to send spans, by connections on this runtime.
    pub(crate) fn start(&self, runtime: &Handle) -> Result<Sending, ExporterBuildError> {
        let exporter = SpanExporter::builder().with_http().with_http_client(Collector::on(runtime));
        let exporter = match &self.endpoint {
            None => exporter,
            Some(endpoint) => exporter.with_endpoint(endpoint),
        };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter.build()?);
        let provider = match self.sample_ratio {
            None => provider,
            Some(ratio) => provider
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)))),
        };
        let provider = provider.with_resource(resource()).build();
        // There is one gateway in a process.
        let _ = TRACER.set(provider.tracer(env!("CARGO_PKG_NAME")));
        Ok(Sending(provider))
    }
}

/// Who sends the spans; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say it better.
fn resource() -> Resource {
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some()
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let resource = Resource::builder();
    let resource = if is_named { resource } else { resource.with_service_name("tidegate") };
    resource
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!("the last spans were not sent: {error}");
        }
    }
}
