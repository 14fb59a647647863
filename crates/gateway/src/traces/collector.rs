//! [`Collector`]: the connection to the server that spans are sent to.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

/// How long a batch of spans may take to be sent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// The same client that the API behind is asked with. Spans come from a thread that is no part of the
/// runtime, so the runtime is asked to send them.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl Collector {
    pub(super) fn on(runtime: &Handle) -> Self {
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http();
        let client =
            Client::builder(TokioExecutor::new()).build(https.enable_all_versions().build());
        Self { client, runtime: runtime.clone() }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Full::new));
        let whole = async move {
            let (parts, body) = answer.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        // Timers begin within the runtime.
        self.runtime.spawn(async move { tokio::time::timeout(TIMEOUT, whole).await? }).await?
    }
}
