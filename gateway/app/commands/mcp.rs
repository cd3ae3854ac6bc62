//! `warden mcp`: an MCP client's stdio in front of the gateway's HTTP door.
//!
//! The bridge decides nothing. Without a gateway, a token or a store, every request is answered with an error, and no
//! server is ever started.

use super::config;
use crate::cli::Global;
use crate::config::{Config, RawConfig, RawServer, RawWorker};
use crate::exit::{Failure, Outcome};
use crate::gateway::Gateway;
use futures::StreamExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use warden_adapters::files::{DataDir, create_private_dir, write_private};
use warden_adapters::mcp::headers::SESSION;
use warden_adapters::mcp::server::Reach;
use warden_adapters::identity::{Identities, Role};
use warden_adapters::keys::Keys;
use warden_adapters::mcp::refusal::NO_ANSWER;
use warden_adapters::world::now;
use warden_core::json::Limits;
use warden_core::rpc::{self, Id, Kind, Message};

/// How long answers may still come after the client has closed its side.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// `warden mcp SERVER`.
pub async fn bridge(global: &Global, server: &str, token_file: Option<PathBuf>) -> Outcome {
    let target = config(global).and_then(|config| {
        let beside =
            global.config.parent().map_or_else(|| PathBuf::from("worker.token"), |dir| dir.join("worker.token"));
        let token = token(&token_file.unwrap_or(beside))?;
        Ok(Target { url: format!("http://{}/mcp/{server}", config.listen), token })
    });
    speak(target.map_err(|failure| failure.message)).await
}

/// `warden mcp -- COMMAND…`.
pub async fn alone(global: &Global, name: &str, command: Vec<String>) -> Outcome {
    match start_alone(global, name, command).await {
        Ok((gateway, target)) => {
            let done = tokio::select! {
                done = speak(Ok(target)) => done,
                stopped = super::serve::stopped() => stopped.map(|()| 0),
            };
            gateway.stop().await;
            done
        }
        Err(failure) => {
            super::tell(format_args!("error: {}", failure.message));
            speak(Err(failure.message)).await
        }
    }
}

const ALONE_WORKER: &str = "local";

/// A gateway of its own: its folder is made at the first start, with the starter policies.
async fn start_alone(global: &Global, name: &str, command: Vec<String>) -> Result<(Gateway, Target), Failure> {
    let dir = match &global.data_dir {
        Some(dir) => dir.clone(),
        None => default_dir(name)?,
    };
    let policies = dir.join("policies");
    if !policies.exists() {
        create_private_dir(&dir)?;
        std::fs::create_dir_all(&policies)?;
        for (file, text) in super::init::STARTER {
            std::fs::write(policies.join(file), text)?;
        }
    }
    let raw: RawConfig = RawConfig {
        listen: "127.0.0.1:0".into(),
        data_dir: dir.clone(),
        policies,
        same_uid: true,
        workers: [(ALONE_WORKER.to_owned(), RawWorker { groups: vec!["assistants".into()], uid: None })].into(),
        servers: [(name.to_owned(), RawServer { command, ..RawServer::default() })].into(),
        ..serde_saphyr::from_str("{}").map_err(Failure::failed)?
    };
    let mut config =
        Config::build(raw, Path::new("."), None, |name| std::env::var(name).ok()).map_err(Failure::invalid)?;
    // The working directory of the client is the server's, as it would be without Warden.
    for server in config.setup.servers.values_mut() {
        if let Reach::Command(command) = &mut server.reach {
            command.cwd = std::env::current_dir().ok();
        }
    }
    let token = {
        let lock = DataDir::create(&dir)?;
        Keys::create(lock.path())?;
        let mut identities = Identities::load(lock.path())?;
        if identities.operators.is_empty() {
            let operator = identities.add_operator("operator", &now().to_string())?;
            write_private(&dir.join("operator.token"), format!("{operator}\n").as_bytes())?;
        }
        // One token a start: nobody else is to use it.
        identities.tokens.retain(|token| token.worker != ALONE_WORKER);
        let (token, _) = identities.issue(ALONE_WORKER, Role::Worker, &now().to_string())?;
        identities.save(lock.path())?;
        token
    };
    let gateway = Gateway::start(&config, false).await?;
    let url = format!("http://{}/mcp/{name}", gateway.address);
    Ok((gateway, Target { url, token }))
}

fn default_dir(name: &str) -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    let base = base.ok_or_else(|| Failure::invalid("no home folder: say where with --data-dir"))?;
    Ok(base.join("warden").join(name))
}

fn token(file: &Path) -> Result<String, Failure> {
    if let Ok(token) = std::env::var("WARDEN_TOKEN") {
        return Ok(token);
    }
    std::fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(|e| {
        Failure::failed(format!("no worker's token: WARDEN_TOKEN is not set, and `{}`: {e}", file.display()))
    })
}

/// Where the bridge leads.
struct Target {
    url: String,
    token: String,
}

/// Carries lines until the client closes its side.
async fn speak(target: Result<Target, String>) -> Outcome {
    let (lines, mut out) = mpsc::channel::<String>(64);
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(line) = out.recv().await {
            let line = line + "\n";
            if stdout.write_all(line.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
                return;
            }
        }
    });
    let mut stdin = BufReader::new(tokio::io::stdin());
    // The token is for the gateway; no proxy of the environment is to see it.
    let http = reqwest::Client::builder().no_proxy().build().map_err(|e| Failure::of(&e))?;
    let bridge = Arc::new(Bridge { http, target, session: Mutex::default(), lines });
    let mut tasks = JoinSet::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match stdin.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) if line.trim_ascii().is_empty() => {}
            Ok(_) => bridge.clone().take(&line, &mut tasks).await,
        }
        while tasks.try_join_next().is_some() {}
    }
    let answers = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, answers).await;
    bridge.end().await;
    drop(bridge);
    tasks.abort_all();
    let _ = tokio::time::timeout(Duration::from_secs(1), writer).await;
    Ok(0)
}

struct Bridge {
    http: reqwest::Client,
    target: Result<Target, String>,
    // A std mutex: nothing awaits while it is held.
    session: Mutex<Option<String>>,
    lines: mpsc::Sender<String>,
}

impl Bridge {
    /// Sends one line. The head of the answer is awaited here, so that messages keep their order.
    async fn take(self: Arc<Self>, line: &[u8], tasks: &mut JoinSet<()>) {
        let id = match Message::parse(line, Limits { bytes_max: usize::MAX, depth_max: 128 }) {
            Ok(Message { kind: Kind::Request { id, .. }, .. }) => Some(id),
            Ok(_) => None,
            Err(e) => {
                let _ = self.lines.send(rpc::error(&Id::null(), e.code(), &e.to_string(), None)).await;
                return;
            }
        };
        let opening = self.session().is_none();
        match self.post(line.to_vec()).await {
            Ok(response) => {
                if opening && let Some(session) = header(&response, SESSION.as_str()) {
                    *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
                    tokio::spawn(self.clone().listen());
                }
                tasks.spawn(async move { self.answer(response, id).await });
            }
            Err(e) => self.fail(id, &e).await,
        }
    }

    fn session(&self) -> Option<String> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn request(&self, method: reqwest::Method) -> Result<reqwest::RequestBuilder, String> {
        let target = self.target.as_ref().map_err(Clone::clone)?;
        let request = self.http.request(method, &target.url).bearer_auth(&target.token);
        Ok(match self.session() {
            Some(session) => request.header(SESSION, session),
            None => request,
        })
    }

    async fn post(&self, line: Vec<u8>) -> Result<reqwest::Response, String> {
        let request = self.request(reqwest::Method::POST)?;
        let request =
            request.header("content-type", "application/json").header("accept", "application/json, text/event-stream");
        request.body(line).send().await.map_err(|e| {
            if e.is_connect() {
                "no gateway answers: start it with `warden serve`".to_owned()
            } else {
                Failure::of(&e).message
            }
        })
    }

    async fn answer(&self, response: reqwest::Response, id: Option<Id>) {
        let status = response.status();
        if header(&response, "content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let answered = self.events(response, id.as_ref()).await;
            if !answered && id.is_some() {
                self.fail(id, "the gateway is gone; whether it was done is not known").await;
            }
        } else if let Some(id) = id {
            let body = response.text().await.unwrap_or_default();
            match Message::parse(body.as_bytes(), Limits { bytes_max: usize::MAX, depth_max: 128 }) {
                // An error of the transport names no request; the client waits for one that does.
                Ok(Message { kind: Kind::Error { id: of, error }, .. }) if of == Id::null() => {
                    let message =
                        error.get("message").and_then(warden_core::json::Json::as_str).unwrap_or("refused").to_owned();
                    self.fail(Some(id), &message).await;
                }
                Ok(message) => drop(self.lines.send(message.raw).await),
                Err(_) => {
                    let said = serde_json::from_str::<serde_json::Value>(&body).ok();
                    let said = said.as_ref().and_then(|v| v.pointer("/error/message")?.as_str()).unwrap_or_default();
                    self.fail(Some(id), &format!("the gateway answered {status}: {said}")).await;
                }
            }
        }
    }

    /// What the server says by itself.
    async fn listen(self: Arc<Self>) {
        let Ok(request) = self.request(reqwest::Method::GET) else { return };
        if let Ok(response) = request.header("accept", "text/event-stream").send().await
            && response.status().is_success()
        {
            self.events(response, None).await;
        }
    }

    /// Server-sent events ([WHATWG HTML §9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html)), as the
    /// gateway writes them: one `data` line an event. Whether `id` was answered.
    async fn events(&self, response: reqwest::Response, id: Option<&Id>) -> bool {
        let mut answered = false;
        let (mut body, mut text) = (response.bytes_stream(), Vec::new());
        while let Some(Ok(chunk)) = body.next().await {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data: ") {
                    let data = String::from_utf8_lossy(data.trim_ascii_end()).into_owned();
                    let limits = Limits { bytes_max: usize::MAX, depth_max: 128 };
                    let of = match Message::parse(data.as_bytes(), limits).map(|message| message.kind) {
                        Ok(Kind::Result { id, .. } | Kind::Error { id, .. }) => Some(id),
                        _ => None,
                    };
                    answered |= of.is_some() && of.as_ref() == id;
                    if self.lines.send(data).await.is_err() {
                        return answered;
                    }
                }
            }
        }
        answered
    }

    async fn fail(&self, id: Option<Id>, message: &str) {
        if let Some(id) = id {
            let _ = self.lines.send(rpc::error(&id, NO_ANSWER, &format!("warden: {message}"), None)).await;
        }
    }

    async fn end(&self) {
        if self.session().is_some()
            && let Ok(request) = self.request(reqwest::Method::DELETE)
        {
            let _ = request.send().await;
        }
    }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}
