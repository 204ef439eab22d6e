//! One trace from the request to the handlers, as a collector gets it.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use e2e::{Broker, Client, System};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as Text, trace::v1::Span,
};
use prost::Message as _;
use reqwest::Method;

/// Takes what is exported by OTLP over HTTP.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    /// Its address.
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = self.clone();
        let router = Router::new().route("/v1/traces", post(async move |body| collector.take(body)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn take(&self, body: Bytes) {
        let export = ExportTraceServiceRequest::decode(body).expect("OTLP");
        let mut spans = self.0.lock().expect("no panic");
        for process in export.resource_spans {
            let resource = process.resource.expect("who");
            let name = resource.attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let Some(Text::StringValue(name)) = name.and_then(|name| name.value?.value) else {
                panic!("a process without a name")
            };
            let of_process = process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(of_process.map(|span| (name.clone(), span)));
        }
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().expect("no panic").clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_to_each_handler_of_its_event() {
    let collector = Collector::default();
    let url = collector.listen().await;
    let system = System::new(Broker::RedisStreams).await.with("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    let (api, worker) = (system.api().await, system.worker().await);
    let shop = Client::login(&api.url, 1).await.expect("logs in");
    let (status, answer) = shop
        .request_once(Method::POST, "/api/v1/orders", Some(&Client::order(1)), None)
        .await
        .expect("an answer");
    assert_eq!(status, 201, "{answer}");
    system.wait_until_consistent(std::time::Duration::from_mins(1)).await;
    // The last spans are sent at the end of a process.
    worker.terminate().await;
    api.program.terminate().await;

    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|(_, span)| span.name == "POST /api/v1/orders").collect();
    let [(service, request)] = requests.as_slice() else { panic!("one request in {spans:?}") };
    assert_eq!(service, "orders-api");
    let of_trace = spans.iter().filter(|(_, span)| span.trace_id == request.trace_id);
    let caused: Vec<_> = of_trace.filter(|(_, span)| span.parent_span_id == request.span_id).collect();
    let mut handlers: Vec<_> =
        caused.iter().map(|(service, span)| (service.as_str(), span.name.as_str())).collect();
    handlers.sort_unstable();
    assert_eq!(
        handlers,
        [("orders-worker", "cache OrderCreated"), ("orders-worker", "history OrderCreated")]
    );
    for (_, span) in caused {
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert!(span.attributes.iter().any(|attribute| attribute.key == "order.id"), "{span:?}");
    }
}
