//! `warden mcp`: an MCP client's stdio in front of the gateway's HTTP door.
//!
//! The bridge decides nothing. Without a gateway, a token or a store, every request is answered with an error, and no
//! server is ever started.

use super::config;
use crate::cli::{Global, Serve};
use crate::config::{Config, RawConfig, RawServer, RawWorker};
use crate::exit::{Failure, Outcome};
use crate::gateway::Gateway;
use futures::StreamExt;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use warden_adapters::files::{DataDir, create_private_dir, write_private};
use warden_adapters::identity::{Identities, Role};
use warden_adapters::keys::Keys;
use warden_adapters::mcp::headers::{BRIDGE, LAST_EVENT, SESSION};
use warden_adapters::mcp::refusal::NO_ANSWER;
use warden_adapters::mcp::server::Reach;
use warden_adapters::world::now;
use warden_core::json::{Json, Limits};
use warden_core::mcp::{self, META_VERSION};
use warden_core::rpc::{self, Id, Kind, Message};
use warden_core::sse::{Events, Item};

/// The gateway has bounds of its own.
const LIMITS: Limits = Limits { bytes_max: usize::MAX, depth_max: 128 };
/// How long answers may still come after the client has closed its side.
const LAST_ANSWERS: Duration = Duration::from_secs(30);
/// Between the end of a stream and its taking up.
const RESUME_AFTER: Duration = Duration::from_millis(500);
/// A stream that was taken up so often without an answer is given up.
const RESUMES_MAX: usize = 100;

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
        workers: [(ALONE_WORKER.to_owned(), RawWorker { groups: vec!["assistants".into()], ..RawWorker::default() })]
            .into(),
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
    let gateway = Gateway::start(&config, &Serve::default()).await?;
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
    let bridge = Arc::new(Bridge { http, target, session: Mutex::default(), modern: Mutex::default(), lines });
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
    // Std mutexes: nothing awaits while one is held.
    session: Mutex<Option<String>>,
    /// Modern requests on their way: what cancels one is that nobody waits for it.
    modern: Mutex<HashMap<Id, AbortHandle>>,
    lines: mpsc::Sender<String>,
}

impl Bridge {
    /// Sends one line. Only a request does not wait for the one before it, since its answer may take long.
    async fn take(self: Arc<Self>, line: &[u8], tasks: &mut JoinSet<()>) {
        let (id, method, params) = match Message::parse(line, LIMITS) {
            Ok(Message { kind: Kind::Request { id, method, params }, .. }) => (Some(id), method, params),
            Ok(Message { kind: Kind::Notification { method, params }, .. }) => (None, method, params),
            Ok(_) => (None, String::new(), Json::Null),
            Err(e) => {
                let _ = self.lines.send(rpc::error(&Id::null(), e.code(), &e.to_string(), None)).await;
                return;
            }
        };
        if method == "notifications/cancelled" && self.cancel(&params) {
            return;
        }
        let modern = mcp::meta(&params, META_VERSION).and_then(Json::as_str).is_some_and(mcp::is_modern);
        let line = line.to_vec();
        match id {
            Some(id) if method != "initialize" => {
                let (this, asked) = (self.clone(), id.clone());
                let task = tasks.spawn(async move {
                    match this.post(line).await {
                        Ok(response) => this.answer(response, Some(asked.clone())).await,
                        Err(e) => this.fail(Some(asked.clone()), &e).await,
                    }
                    lock(&this.modern).remove(&asked);
                });
                if modern {
                    lock(&self.modern).insert(id, task);
                }
            }
            id => match self.post(line).await {
                Ok(response) => {
                    if let Some(session) = header(&response, SESSION.as_str()).filter(|_| id.is_some()) {
                        *lock(&self.session) = Some(session);
                        tokio::spawn(self.clone().listen());
                    }
                    tasks.spawn(async move { self.answer(response, id).await });
                }
                Err(e) => self.fail(id, &e).await,
            },
        }
    }

    /// Gives a modern request up; whether there was one.
    fn cancel(&self, params: &Json) -> bool {
        let id = match params.get("requestId") {
            Some(Json::String(text)) => Id::text(text),
            Some(Json::Number(text)) => Id::number(text),
            _ => return false,
        };
        lock(&self.modern).remove(&id).map(|task| task.abort()).is_some()
    }

    fn session(&self) -> Option<String> {
        lock(&self.session).clone()
    }

    fn request(&self, method: reqwest::Method) -> Result<reqwest::RequestBuilder, String> {
        let target = self.target.as_ref().map_err(Clone::clone)?;
        let request =
            self.http.request(method, &target.url).bearer_auth(&target.token).header(BRIDGE.as_str(), "stdio");
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
            let (answered, last) = self.events(response, id.as_ref()).await;
            let Some(id) = id.filter(|_| !answered) else { return };
            if !self.resume(last, &id).await {
                self.fail(Some(id), "the gateway is gone; whether it was done is not known").await;
            }
        } else if let Some(id) = id {
            let body = response.text().await.unwrap_or_default();
            match Message::parse(body.as_bytes(), LIMITS) {
                // An error of the transport names no request; the client waits for one that does.
                Ok(Message { kind: Kind::Error { id: of, error }, .. }) if of == Id::null() => {
                    let message =
                        error.get("message").and_then(warden_core::json::Json::as_str).unwrap_or("refused").to_owned();
                    self.fail(Some(id), &message).await;
                }
                Ok(message) => drop(self.lines.send(rpc::one_line(&message.raw).into_owned()).await),
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

    /// Carries events to the client. Whether `id` was answered, and with which event the stream can be taken up again.
    async fn events(&self, response: reqwest::Response, id: Option<&Id>) -> (bool, Option<String>) {
        let (mut answered, mut last) = (false, None);
        let (mut body, mut events) = (response.bytes_stream(), Events::new(usize::MAX));
        while let Some(Ok(chunk)) = body.next().await {
            events.push(&chunk);
            while let Some(Item::Event(event)) = events.next_item() {
                last = event.id.or(last);
                let Some(data) = event.data else { continue };
                let of = match Message::parse(data.as_bytes(), LIMITS).map(|message| message.kind) {
                    Ok(Kind::Result { id, .. } | Kind::Error { id, .. }) => Some(id),
                    _ => None,
                };
                answered |= of.is_some() && of.as_ref() == id;
                if self.lines.send(rpc::one_line(&data).into_owned()).await.is_err() {
                    return (true, None);
                }
            }
        }
        (answered, last)
    }

    /// A server may end a stream before its answer; it is fetched with the last event (MCP 2025-11-25, "Resumability").
    async fn resume(&self, mut last: Option<String>, id: &Id) -> bool {
        for _ in 0..RESUMES_MAX {
            let Some(event) = &last else { return false };
            tokio::time::sleep(RESUME_AFTER).await;
            let Ok(request) = self.request(reqwest::Method::GET) else { return false };
            let request = request.header("accept", "text/event-stream").header(LAST_EVENT.as_str(), event);
            let Ok(response) = request.send().await else { return false };
            if !response.status().is_success() {
                return false;
            }
            let (answered, next) = self.events(response, Some(id)).await;
            if answered {
                return true;
            }
            last = next.or(last);
        }
        false
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

// A std mutex: nothing awaits while it is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
