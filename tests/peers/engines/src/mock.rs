//! A provider that answers chat completions at once.

use crate::answers::{KEY, events, whole};
use crate::ask::PATH;
use crate::{Outcome, http};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

/// All it can say.
struct Mock {
    bearer: String,
    whole: Bytes,
    events: Arc<[Bytes]>,
    events_with_usage: Arc<[Bytes]>,
}

/// Events, each a frame of its own, as fast as they are taken.
struct Events {
    all: Arc<[Bytes]>,
    next: usize,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = self.all.get(self.next).cloned();
        self.next += 1;
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.all.len()
    }
}

/// Serves.
pub(crate) async fn serve(port: u16) -> Outcome<ExitCode> {
    let mock = Arc::new(Mock {
        bearer: format!("Bearer {KEY}"),
        whole: whole(),
        events: events(false).into(),
        events_with_usage: events(true).into(),
    });
    http::serve(port, move |request| {
        let mock = mock.clone();
        async move { mock.answer(request).await }
    })
    .await
}

impl Mock {
    async fn answer(&self, request: Request<Incoming>) -> Outcome<Response<Either<Full<Bytes>, Events>>> {
        let known = request.headers().get(AUTHORIZATION).is_some_and(|key| key == self.bearer.as_str());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await?.to_bytes();
        if (method, path.as_str()) != (Method::POST, PATH) {
            return refusal(StatusCode::NOT_FOUND, "not_found");
        }
        if !known {
            return refusal(StatusCode::UNAUTHORIZED, "invalid_api_key");
        }
        let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
            return refusal(StatusCode::BAD_REQUEST, "invalid_json");
        };
        if asked["stream"] != true {
            return answer(StatusCode::OK, "application/json", Either::Left(self.whole.clone().into()));
        }
        let usage_asked = asked["stream_options"]["include_usage"] == true;
        let all = if usage_asked { &self.events_with_usage } else { &self.events };
        answer(StatusCode::OK, "text/event-stream", Either::Right(Events { all: all.clone(), next: 0 }))
    }
}

fn refusal(status: StatusCode, code: &str) -> Outcome<Response<Either<Full<Bytes>, Events>>> {
    let error = serde_json::json!({ "error": { "message": code, "type": "invalid_request_error", "code": code } });
    answer(status, "application/json", Either::Left(Full::from(error.to_string())))
}

fn answer(
    status: StatusCode,
    kind: &'static str,
    body: Either<Full<Bytes>, Events>,
) -> Outcome<Response<Either<Full<Bytes>, Events>>> {
    Ok(Response::builder().status(status).header(CONTENT_TYPE, kind).body(body)?)
}
