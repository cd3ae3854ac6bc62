//! The worker plane's listener: connections are bounded in number, and each in how long it may take to say what it wants.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once; more wait until one is over.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a connection may take for the head of its next request. It is also how long one may be idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// After an error that another try may not have, such as too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until it is dropped. What was accepted before goes on.
pub async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Without it an event waits 40 ms for the one before it to be acknowledged.
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(error = %e, "TCP_NODELAY cannot be set");
        }
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
            // An end in the midst of something is the other side's affair, which has its own log.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
