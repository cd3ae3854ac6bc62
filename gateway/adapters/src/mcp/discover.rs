//! Asking a server for its tools, before any worker does: one question in each generation.

use super::Settings;
use super::client::{Client, modern_params};
use super::server::Server;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use warden_core::secrets::Scanner;

/// Launchers may install a server first.
const CHILD_PATIENCE: Duration = Duration::from_secs(60);
/// A server at a URL is there or it is not.
const URL_PATIENCE: Duration = Duration::from_secs(10);
/// By the time the other generation is asked for, the server has started.
const OTHER_PATIENCE: Duration = Duration::from_secs(3);
const PAGES_MAX: usize = 100;

/// All tools of a server, or a sentence that says why not.
pub async fn tools(
    name: &str,
    server: &Server,
    settings: Settings,
    scanner: &Arc<Scanner>,
) -> Result<Vec<Value>, String> {
    let mut client = Client::open(name, server, settings, scanner)?;
    let tools = both(&mut client).await.map_err(|e| format!("server `{name}`: {e}"));
    client.end().await;
    tools
}

async fn within<T>(patience: Duration, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, asked).await.unwrap_or_else(late)
}

/// A server of both generations may have other tools in each; of two with one name the legacy one is kept.
async fn both(client: &mut Client<'_>) -> Result<Vec<Value>, String> {
    let patience = if client.is_child() { CHILD_PATIENCE } else { URL_PATIENCE };
    let legacy = within(patience, legacy(client)).await;
    match (legacy, within(OTHER_PATIENCE, modern(client)).await) {
        (Ok(mut tools), Ok(others)) => {
            let known: HashSet<String> = tools.iter().map(|tool| tool["name"].to_string()).collect();
            tools.extend(others.into_iter().filter(|tool| !known.contains(&tool["name"].to_string())));
            Ok(tools)
        }
        (Ok(tools), Err(_)) | (Err(_), Ok(tools)) => Ok(tools),
        (Err(legacy), Err(modern)) => Err(format!("{legacy}; {modern}")),
    }
}

async fn legacy(client: &mut Client<'_>) -> Result<Vec<Value>, String> {
    let welcome = client.begin_legacy().await?;
    match welcome.pointer("/capabilities/tools") {
        Some(_) => pages(client, json!({})).await,
        None => Ok(Vec::new()),
    }
}

async fn modern(client: &mut Client<'_>) -> Result<Vec<Value>, String> {
    let session = client.begin_modern();
    // A server that does not know the question would take the next one for a legacy request.
    let tools = match client.request("server/discover", modern_params()).await {
        Ok(_) => pages(client, modern_params()).await,
        Err(e) => Err(e),
    };
    client.back_to(session);
    tools
}

async fn pages(client: &mut Client<'_>, params: Value) -> Result<Vec<Value>, String> {
    let (mut all, mut params) = (Vec::new(), params);
    for _ in 0..PAGES_MAX {
        let page = client.request("tools/list", params.clone()).await?;
        all.extend(super::list::tools(&page));
        match page.get("nextCursor") {
            Some(next) if !next.is_null() => params["cursor"] = next.clone(),
            _ => return Ok(all),
        }
    }
    Err(format!("its list of tools has no end after {PAGES_MAX} pages"))
}
