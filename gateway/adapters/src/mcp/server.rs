//! The servers that the configuration names: a command that is started as a child, or a URL.

use super::child::ServerCommand;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use warden_core::outcome::{Lost, Reply};

/// One server.
#[derive(Clone, Debug)]
pub struct Server {
    /// How it is reached.
    pub reach: Reach,
    /// How long each of its tools may be silent, where that differs from the default.
    pub timeouts: BTreeMap<String, Duration>,
    /// Whether an acknowledged call may run in a session of Warden's own, although it was made in a session of its worker.
    pub own_session: bool,
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Started as a child, one for each connection.
    Command(ServerCommand),
    /// Over Streamable HTTP.
    Url(Arc<HttpServer>),
}

impl Server {
    /// How long an answer to a call of `tool` may be silent.
    pub fn timeout(&self, tool: Option<&str>, default: Duration) -> Duration {
        tool.and_then(|tool| self.timeouts.get(tool)).copied().unwrap_or(default)
    }
}

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A server at a URL, with the credentials that Warden holds for it.
pub struct HttpServer {
    uri: Uri,
    /// As it may be told: a path or a query can hold a credential.
    place: String,
    /// Set on every request; they take the place of the worker's.
    headers: HeaderMap,
    http: Http,
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values are credentials.
        write!(f, "HttpServer({}, {} headers)", self.place, self.headers.len())
    }
}

const CONNECT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);

impl HttpServer {
    /// A server at `url`. `ca` is a file of PEM certificates that are trusted beside the system's.
    pub fn new(url: &str, extra: &BTreeMap<String, String>, ca: Option<&Path>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "url: it is no URL".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("url: it is not `http://HOST…` or `https://HOST…`".into());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("url: credentials belong in `headers`, as `${NAME}`".into());
        }
        let mut set = HeaderMap::new();
        for (name, value) in extra {
            let at = format!("headers.{name}");
            let name: HeaderName = name.parse().map_err(|_| format!("{at}: no header has this name"))?;
            if [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
                return Err(format!("{at}: Warden sets this header by itself"));
            }
            let mut value: HeaderValue =
                value.parse().map_err(|_| format!("{at}: its value cannot stand in a header"))?;
            value.set_sensitive(true);
            set.insert(name, value);
        }
        let mut tcp = HttpConnector::new();
        // Without it an event waits 40 ms for the one before it to be acknowledged.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(false);
        let tls = tls(uri.scheme_str() == Some("https"), ca)?;
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1024)
            .build(https);
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let place = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        Ok(Self { uri, place, headers: set, http })
    }

    /// Where it is: scheme, host and port.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether what goes there can be read on the way: not encrypted, and not on this machine.
    pub fn is_exposed(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.uri.scheme_str() == Some("http") && !loopback
    }

    /// Sends a request with `headers`, which are [`super::headers::for_server`]'s, and waits for the head of the
    /// answer. Redirects are not followed.
    pub async fn send(&self, method: Method, headers: &HeaderMap, body: String) -> Result<Response<Incoming>, Reply> {
        self.send_there(self.uri.clone(), method, headers, body).await
    }

    /// The same below its URL: `path` begins with `/` and may have a query.
    pub async fn send_to(
        &self,
        path: &str,
        method: Method,
        headers: &HeaderMap,
        body: String,
    ) -> Result<Response<Incoming>, Reply> {
        let base = self.uri.path().trim_end_matches('/');
        let place: Result<Uri, _> = format!("{}{base}{path}", self.place).parse();
        let Ok(place) = place else { return Err(Reply::NotSent) };
        self.send_there(place, method, headers, body).await
    }

    async fn send_there(
        &self,
        place: Uri,
        method: Method,
        headers: &HeaderMap,
        body: String,
    ) -> Result<Response<Incoming>, Reply> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = place;
        *request.headers_mut() = headers.clone();
        if !request.body().is_end_stream() && !headers.contains_key(header::CONTENT_TYPE) {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        // What is compressed cannot be scanned.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.http.request(request).await.map_err(|e| {
            tracing::warn!(server = self.place, error = %causes(&e), "the server did not answer");
            if e.is_connect() { Reply::NotSent } else { Reply::Lost(Lost::Gone) }
        })
    }
}

/// An error with what caused it, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn tls(needed: bool, ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    if needed {
        for certificate in rustls_native_certs::load_native_certs().certs {
            let _ = roots.add(certificate);
        }
    }
    if let Some(path) = ca {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let bad = |what: String| format!("ca_file: `{}`: {what}", path.display());
        let mut any = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))? {
            let certificate = certificate.map_err(|e| bad(e.to_string()))?;
            roots.add(certificate).map_err(|e| bad(e.to_string()))?;
            any = true;
        }
        if !any {
            return Err(bad("no PEM certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
