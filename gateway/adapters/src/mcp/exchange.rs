//! One HTTP exchange with a worker, answered from another task: whole, or begun and streamed with back-pressure.

use super::lock;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Pieces of an answer on their way; more wait, which is the back-pressure.
const IN_FLIGHT: usize = 16;

type Piece = io::Result<Bytes>;

/// The answering side.
pub struct Exchange {
    head: Mutex<Option<oneshot::Sender<Begun>>>,
    body: Mutex<Option<mpsc::Sender<Piece>>>,
    present: watch::Receiver<()>,
    /// What is sent when nothing else was for so long.
    keep_alive: Option<Duration>,
}

enum Begun {
    Whole(Response),
    Stream(Response<()>, mpsc::Receiver<Piece>, Option<Duration>),
}

/// The worker's side: dropped when it has gone.
pub struct Awaited {
    head: oneshot::Receiver<Begun>,
    present: watch::Sender<()>,
}

/// A comment that keeps proxies from closing a quiet stream.
const COMMENT: &[u8] = b": keep-alive\n\n";

impl Exchange {
    /// Both sides. With `keep_alive`, a quiet stream says so now and then.
    pub fn new(keep_alive: Option<Duration>) -> (Self, Awaited) {
        let (head, awaited) = oneshot::channel();
        let (present, left) = watch::channel(());
        let exchange = Self { head: Mutex::new(Some(head)), body: Mutex::default(), present: left, keep_alive };
        (exchange, Awaited { head: awaited, present })
    }

    /// Answers at once. Nothing when it has been answered.
    pub fn whole(&self, response: Response) {
        if let Some(head) = lock(&self.head).take() {
            let _ = head.send(Begun::Whole(response));
        }
    }

    /// Begins to answer.
    pub fn begin(&self, status: StatusCode, headers: HeaderMap) {
        let Some(head) = lock(&self.head).take() else { return };
        let (body, pieces) = mpsc::channel(IN_FLIGHT);
        *lock(&self.body) = Some(body);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let _ = head.send(Begun::Stream(response, pieces, self.keep_alive));
    }

    /// Begins to answer with events.
    pub fn begin_events(&self, mut headers: HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        self.begin(StatusCode::OK, headers);
    }

    /// Whether it has begun.
    pub fn begun(&self) -> bool {
        lock(&self.head).is_none()
    }

    /// Sends a piece, and waits while the worker is slower. False when it is gone.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        let body = lock(&self.body).clone();
        match body {
            Some(body) => body.send(Ok(piece.into())).await.is_ok(),
            None => false,
        }
    }

    /// There is no more to come.
    pub fn end(&self) {
        lock(&self.body).take();
    }

    /// Breaks off, so that the worker cannot take what it has for the whole.
    pub async fn abort(&self) {
        let body = lock(&self.body).take();
        if let Some(body) = body {
            let _ = body.send(Err(io::Error::other("withheld"))).await;
        }
    }

    /// Waits until the worker is gone.
    pub async fn left(&self) {
        let mut present = self.present.clone();
        while present.changed().await.is_ok() {}
    }
}

impl Awaited {
    /// The answer, once it has begun. Dropping this future says that the worker is gone.
    pub async fn response(self) -> Response {
        let Self { head, present } = self;
        match head.await {
            Ok(Begun::Whole(response)) => response,
            Ok(Begun::Stream(head, pieces, keep_alive)) => {
                let pieces = futures::stream::unfold((pieces, present), move |(mut pieces, present)| async move {
                    let next = match keep_alive {
                        None => pieces.recv().await,
                        Some(pause) => match tokio::time::timeout(pause, pieces.recv()).await {
                            Ok(next) => next,
                            Err(_) => Some(Ok(Bytes::from_static(COMMENT))),
                        },
                    };
                    next.map(|piece| (piece, (pieces, present)))
                });
                head.map(|()| Body::from_stream(pieces))
            }
            // The task that should have answered ended without.
            Err(_) => {
                let mut failed = Response::new(Body::from("the request failed\n"));
                *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                failed
            }
        }
    }
}
