//! `warden hub`.

use super::{ack::step, data_dir, each, plain, plain_lines, say, tell, text};
use crate::cli::{Global, Hub};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
use std::io::Read;
use warden_adapters::world::{decision_id, now};

/// Sends messages, and shows them, through the running gateway.
pub async fn run(global: &Global, hub: Hub) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    match hub {
        Hub::Send { to, from, subject, body, attachments, key } => {
            let mut attached = Vec::new();
            for path in attachments {
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| Failure::invalid(format!("`{}`: {e}", path.display())))?;
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                attached.push(json!({ "name": name, "text": text }));
            }
            let body = if body == "-" { stdin()? } else { body };
            let key = key.unwrap_or_else(|| decision_id(now()).to_string());
            let message = json!({ "to": to, "from": from.unwrap_or_else(|| "operator".into()), "subject": subject, "body": body,
                "attachments": attached });
            let sent = client.post_with("/v1/hub/messages", &message, ("idempotency-key", &key)).await?;
            say(if global.json {
                sent.to_string()
            } else {
                format!("sent: {}", plain(sent["id"].as_str().unwrap_or_default()))
            });
        }
        Hub::Inbox { agent, all, progress, kept, mark_read } => {
            if let Some(id) = mark_read {
                let path = format!("/v1/hub/messages/{}/read", step(&id));
                let key = format!("operator/{}", step(&id));
                client.post_with(&path, &json!({}), ("idempotency-key", &key)).await?;
                say(if global.json {
                    json!({ "id": id, "read": true }).to_string()
                } else {
                    format!("read: {}", plain(&id))
                });
                return Ok(0);
            }
            if kept {
                let shown = client.get("/v1/worker/kept").await?;
                return Ok(diffs(global, &shown["kept"]));
            }
            let agent = match agent {
                Some(agent) => agent,
                None => super::config(global)?
                    .inbox
                    .map(|inbox| inbox.setup.agent)
                    .ok_or_else(|| Failure::invalid("name an agent: no `inbox` is configured"))?,
            };
            if progress {
                let shown = client.get(&format!("/v1/hub/agents/{}/progress", step(&agent))).await?;
                return Ok(notes(global, &shown["progress"]));
            }
            let mut after = String::new();
            let mut shown = 0;
            loop {
                let status = if all { "all" } else { "unread" };
                let page =
                    client.get(&format!("/v1/hub/agents/{}/messages?status={status}{after}", step(&agent))).await?;
                for message in each(&page["messages"]) {
                    shown += 1;
                    if global.json { say(message) } else { show(message) }
                }
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={}", step(next)),
                    None => break,
                }
            }
            if shown == 0 {
                tell("no messages");
            }
        }
    }
    Ok(0)
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::invalid(format!("stdin: {e}")))?;
    Ok(text)
}

fn show(message: &Value) {
    let read = if message["read"] == true { "read" } else { "unread" };
    say(format!("{}  {}  {read}", text(message, "id"), text(message, "sent_at")));
    say(format!("  from     {}", text(message, "from")));
    say(format!("  subject  {}", text(message, "subject")));
    if let Some(of) = message["answers"].as_str() {
        say(format!("  answers  {}", plain(of)));
    }
    for line in plain_lines(message["body"].as_str().unwrap_or_default()).lines() {
        say(format!("  | {line}"));
    }
}

fn notes(global: &Global, notes: &Value) -> u8 {
    for note in each(notes) {
        if global.json {
            say(note);
        } else {
            let text_of = note["text"].as_str().map(|text| format!(": {}", plain(text))).unwrap_or_default();
            say(format!("{}  {}  {}{text_of}", text(note, "at"), text(note, "event"), text(note, "message")));
        }
    }
    0
}

fn diffs(global: &Global, kept: &Value) -> u8 {
    for diff in each(kept) {
        if global.json {
            say(diff);
        } else {
            say(format!(
                "{}  {}\n  from     {}\n  message  {}",
                text(diff, "hash"),
                text(diff, "at"),
                text(diff, "from"),
                text(diff, "message")
            ));
            for line in plain_lines(diff["diff"].as_str().unwrap_or_default()).lines() {
                say(format!("  | {line}"));
            }
        }
    }
    if each(kept).next().is_none() {
        tell("nothing is kept for a person");
    }
    0
}
