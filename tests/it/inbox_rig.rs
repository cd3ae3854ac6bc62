//! A hub and a model on loopback that behave well, badly, and as an attacker would like.

use crate::support::Site;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request.
#[derive(Clone, Debug)]
pub struct Came {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Value,
}

/// What an answer is: status, body, and whether the connection is cut instead.
pub enum Says {
    Json(u16, Value),
    Raw(u16, String),
    Cut,
    Late(Duration),
}

type Answers = Arc<dyn Fn(&Came) -> Says + Send + Sync>;

/// A server on loopback that remembers what came.
#[derive(Clone)]
pub struct Fake {
    pub port: u16,
    pub came: Arc<Mutex<Vec<Came>>>,
}

impl Fake {
    pub fn start(answers: impl Fn(&Came) -> Says + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self { port: listener.local_addr().unwrap().port(), came: Arc::default() };
        let (came, answers): (_, Answers) = (fake.came.clone(), Arc::new(answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (came, answers) = (came.clone(), answers.clone());
                std::thread::spawn(move || drop(serve(stream, &came, &answers)));
            }
        });
        fake
    }

    pub fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.came().iter().filter(|c| c.method == method && c.path.contains(part)).count()
    }
}

fn serve(stream: TcpStream, came: &Mutex<Vec<Came>>, answers: &Answers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let asked = Came { method, path, headers, body: serde_json::from_slice(&body).unwrap_or_default() };
        came.lock().unwrap().push(asked.clone());
        let (status, text) = match answers(&asked) {
            Says::Json(status, value) => (status, value.to_string()),
            Says::Raw(status, text) => (status, text),
            Says::Cut => return Ok(()),
            Says::Late(time) => {
                std::thread::sleep(time);
                (200, "{}".to_owned())
            }
        };
        let mut out = &stream;
        write!(
            out,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )?;
    }
}

pub fn message(id: &str, subject: &str, body: &str) -> Value {
    json!({ "id": id, "to": "ops", "from": "asker", "subject": subject, "body": body })
}

/// A hub with these messages, unread until they are marked. `breaks` may answer in its place.
pub fn hub(messages: Vec<Value>, breaks: impl Fn(&Came) -> Option<Says> + Send + Sync + 'static) -> Fake {
    let read: Mutex<Vec<String>> = Mutex::default();
    Fake::start(move |asked| {
        if let Some(says) = breaks(asked) {
            return says;
        }
        let parts: Vec<&str> = asked.path.split(['/', '?']).filter(|part| !part.is_empty()).collect();
        match (asked.method.as_str(), parts.as_slice()) {
            ("GET", ["agents", _, "messages", ..]) => {
                let read = read.lock().unwrap();
                let unread: Vec<&Value> = messages
                    .iter()
                    .filter(|m| !read.contains(&m["id"].as_str().unwrap_or_default().to_owned()))
                    .collect();
                Says::Json(200, json!({ "messages": unread, "next": null }))
            }
            ("POST", ["messages", id, "read"]) => {
                read.lock().unwrap().push((*id).to_owned());
                Says::Json(200, json!({ "done": true }))
            }
            ("POST", ["agents", _, "lease"]) => Says::Json(200, json!({ "token": 1, "ttl_s": 120 })),
            _ => Says::Json(200, json!({ "done": true })),
        }
    })
}

pub const ROUTING: &str = r#"
[[routes]]
name = "ssh"
topics = ["ssh", "bastion"]
answer = "SSH certificates are issued by the access team: ask at desk-access."

[[routes]]
name = "billing"
topics = ["billing", "invoice"]
answer = "Invoices are with the billing desk."
"#;

/// A site whose worker `ops` handles the inbox `ops`.
pub fn site(hub: Option<&Fake>, model: Option<&Fake>, more: &Value) -> Site {
    let site = Site::temporary(&json!({}));
    std::fs::write(site.dir.join("routing.toml"), ROUTING).unwrap();
    std::fs::write(site.dir.join("brief.md"), "Answer routing questions about access.\n").unwrap();
    let mut inbox = json!({ "worker": "ops", "routing": "routing.toml", "brief": "brief.md" });
    if let Some(hub) = hub {
        inbox["hub"] = json!({ "url": format!("http://127.0.0.1:{}", hub.port) });
    }
    let mut engines = json!({});
    if let Some(model) = model {
        inbox["engine"] = "connect".into();
        engines["connect"] = json!({ "kind": "llm-connect", "url": format!("http://127.0.0.1:{}", model.port), "retries": 0,
            "model": "m", "timeout_s": 5 });
    }
    for (name, value) in more.as_object().unwrap() {
        inbox[name] = value.clone();
    }
    site.configure(
        &json!({}),
        &json!({ "inbox": inbox, "engines": engines, "workers": { "assistant": {}, "ops": {} } }),
    );
    site
}
