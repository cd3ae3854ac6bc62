//! Asking a server for its tools, before any worker does: Warden as an MCP client, for one question.

use super::Settings;
use super::child::{Child, Line, ServerCommand};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use warden_core::pipeline::Payload;

/// The newest generation with a handshake.
pub const PROTOCOL_VERSION: &str = "2025-11-25";
/// Launchers may install a server first.
const PATIENCE: Duration = Duration::from_secs(60);
const PAGES_MAX: usize = 100;

/// All tools of a server, or a sentence that says why not.
pub async fn tools(name: &str, command: &ServerCommand, settings: Settings) -> Result<Vec<Value>, String> {
    let (child, mut lines) = Child::spawn(name, command, settings.server.bytes_max)
        .map_err(|e| format!("server `{name}`: cannot start `{}`: {e}", command.program))?;
    let asked = tokio::time::timeout(PATIENCE, ask(&child, &mut lines)).await;
    child.stop();
    match asked {
        Ok(answer) => answer.map_err(|e| format!("server `{name}`: {e}")),
        Err(_) => Err(format!("server `{name}`: no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn ask(child: &Child, lines: &mut mpsc::Receiver<Line>) -> Result<Vec<Value>, String> {
    let hello = json!({ "protocolVersion": PROTOCOL_VERSION, "capabilities": {},
        "clientInfo": { "name": "warden", "version": env!("CARGO_PKG_VERSION") } });
    let welcome = request(child, lines, "initialize", hello).await?;
    tell(child, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
    if welcome.pointer("/capabilities/tools").is_none() {
        return Ok(Vec::new());
    }
    let (mut all, mut cursor) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let params = cursor.map_or_else(|| json!({}), |cursor: Value| json!({ "cursor": cursor }));
        let page = request(child, lines, "tools/list", params).await?;
        all.extend(super::list::tools(&page));
        match page.get("nextCursor") {
            Some(next) if !next.is_null() => cursor = Some(next.clone()),
            _ => return Ok(all),
        }
    }
    Err(format!("its list of tools has no end after {PAGES_MAX} pages"))
}

async fn tell(child: &Child, message: Value) -> Result<(), String> {
    let sent = child.send(Payload::own(message.to_string())).await;
    sent.then_some(()).ok_or_else(|| "it ended before it answered".into())
}

async fn request(
    child: &Child,
    lines: &mut mpsc::Receiver<Line>,
    method: &str,
    params: Value,
) -> Result<Value, String> {
    let id = format!("warden:{method}");
    tell(child, json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await?;
    loop {
        match lines.recv().await {
            None => return Err(format!("it ended before it answered `{method}`")),
            Some(Line::TooLong) => return Err(format!("its answer to `{method}` is too long")),
            Some(Line::Text(line)) => {
                let Ok(mut message) = serde_json::from_slice::<Value>(&line) else { continue };
                if message.get("method").is_some() {
                    if let Some(asked) = message.get("id") {
                        let no = json!({ "jsonrpc": "2.0", "id": asked, "error": { "code": -32601, "message": "not offered" } });
                        tell(child, no).await?;
                    }
                } else if message["id"] == id.as_str() {
                    return match message.get_mut("result") {
                        Some(result) => Ok(result.take()),
                        None => Err(format!("it answered `{method}` with an error")),
                    };
                }
            }
        }
    }
}
