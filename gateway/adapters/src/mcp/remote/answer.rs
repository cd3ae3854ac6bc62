//! A whole answer: what it is, and with which head it goes on.

use super::*;

impl<P: Ports + 'static> Remote<P> {
    /// A whole answer: what it is, and with which head it goes on. `id` is the request's.
    pub(super) fn read_answer(
        &self,
        head: &response::Parts,
        bytes: Vec<u8>,
        id: Option<&Id>,
    ) -> (StatusCode, HeaderMap, Reply) {
        let headers = headers::for_worker(&head.headers);
        let status = head.status;
        if status.is_redirection()
            || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        {
            let what = match status.is_redirection() {
                true => "the server redirects, and redirects are not followed: configure its final address",
                false => "the server does not accept the gateway's credential",
            };
            tracing::error!(server = self.link.passage.server(), %status, "{what}");
            let raw = rpc::error(id.unwrap_or(&Id::null()), crate::mcp::refusal::NO_ANSWER, what, None);
            let reply = Reply::Answered { raw, body: Json::String(what.into()), is_error: true };
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return (StatusCode::BAD_GATEWAY, headers, reply);
        }
        if is_json(head)
            && let Ok(message) = Message::parse(&bytes, self.link.settings.server)
        {
            let of = match &message.kind {
                Kind::Result { id, .. } | Kind::Error { id, .. } => Some(id),
                Kind::Request { .. } | Kind::Notification { .. } => None,
            };
            let is_answer = match (of, id) {
                (Some(of), Some(id)) => of == id || (*of == Id::null() && !status.is_success()),
                (of, None) => of.is_some(),
                (None, _) => false,
            };
            let reply = if is_answer { reply(message) } else { Reply::Lost(Lost::Garbled) };
            return (status, headers, reply);
        }
        match (String::from_utf8(bytes), id) {
            (Ok(raw), id) if !status.is_success() || id.is_none() => {
                // Escapes hide nothing where a reader would take it for JSON.
                let read = core_json::parse(raw.as_bytes(), self.link.settings.server).ok();
                if read.as_ref().is_some_and(|json| json.get("result").is_some() || json.get("method").is_some()) {
                    return (StatusCode::BAD_GATEWAY, HeaderMap::new(), Reply::Lost(Lost::Garbled));
                }
                let body = Json::Array([read, Some(Json::String(raw.clone()))].into_iter().flatten().collect());
                (status, headers, Reply::Answered { raw, body, is_error: !status.is_success() })
            }
            _ => (StatusCode::BAD_GATEWAY, headers, Reply::Lost(Lost::Garbled)),
        }
    }
}
