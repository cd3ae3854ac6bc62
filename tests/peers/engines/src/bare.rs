//! A bare proxy, the measure for what a hop costs: it reads nothing of what it passes on, and keeps its connections.

use crate::{Outcome, http};
use hyper::Uri;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::process::ExitCode;

/// Serves.
pub(crate) async fn serve(port: u16, upstream: u16) -> Outcome<ExitCode> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(tcp);
    http::serve(port, move |mut request| {
        let client = client.clone();
        async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = format!("http://127.0.0.1:{upstream}{path}").parse::<Uri>()?;
            Outcome::Ok(client.request(request).await?)
        }
    })
    .await
}
