//! `warden session`.

use super::ack::step;
use super::audit::{print, timeline_of};
use super::{data_dir, plain, plain_lines, say, table, tell, text};
use crate::cli::{Global, Session, SessionResume};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
use std::io::Read;

/// Shows sessions, and does what a person wants with one, through the running gateway. A timeline is read from the log.
pub async fn run(global: &Global, session: Session) -> Outcome {
    if let Session::Timeline { id, limit } = &session {
        let found = timeline_of(&data_dir(global)?, id, *limit).await?;
        if found.is_empty() {
            return Err(Failure::invalid(format!("the log knows nothing of session `{}`", plain(id))));
        }
        found.iter().for_each(|record| print::record(global, record));
        return Ok(0);
    }
    let client = Client::need(&data_dir(global)?)?;
    match session {
        Session::List { app, worker, status } => {
            let mut query = Vec::new();
            for (name, value) in [("app", app), ("worker", worker), ("status", status)] {
                query.extend(value.map(|value| format!("{name}={}", step(&value))));
            }
            let all = client.get(&format!("/v1/sessions?{}", query.join("&"))).await?;
            list(global, &all);
        }
        Session::Show { id } => {
            let one = client.get(&format!("/v1/sessions/{}", step(&id))).await?;
            if global.json { say(&one) } else { show(&one) }
        }
        Session::Resume(SessionResume { id, input, escalate, team }) => {
            let wanted = match input {
                Some(text) => json!({ "action": "resume_with_input", "input": typed(text)? }),
                None if escalate => json!({ "action": "escalate", "team": team }),
                None => return Err(Failure::invalid("say --input or --escalate")),
            };
            let said = client.post(&format!("/v1/sessions/{}/resume", step(&id)), &wanted).await?;
            changed(global, &said);
        }
        Session::Stop { id, reason } => {
            let said = client.post(&format!("/v1/sessions/{}/stop", step(&id)), &json!({ "reason": reason })).await?;
            changed(global, &said);
        }
        Session::Timeline { .. } => {}
    }
    Ok(0)
}

fn typed(text: String) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn list(global: &Global, all: &Value) {
    if global.json {
        say(all);
        return;
    }
    let mut rows = vec![["SESSION", "STATUS", "APP", "WORKER", "CALLS", "SINCE"].map(str::to_owned).to_vec()];
    for one in all["sessions"].as_array().into_iter().flatten() {
        let calls = one["calls"].to_string();
        rows.push(vec![
            text(one, "session"),
            text(one, "status"),
            text(one, "app"),
            text(one, "worker"),
            calls,
            text(one, "since"),
        ]);
    }
    if rows.len() == 1 { tell("no session fits") } else { say(table(&rows)) }
}

fn show(one: &Value) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for name in [
        "session",
        "app",
        "status",
        "worker",
        "by",
        "started",
        "since",
        "reason",
        "escalated_to",
        "signal",
        "rationale",
    ] {
        if one[name].is_string() {
            rows.push(vec![name.to_owned(), text(one, name)]);
        }
    }
    if !one["confidence"].is_null() {
        rows.push(vec!["confidence".into(), one["confidence"].to_string()]);
    }
    for name in ["state_overrides", "fields", "tools"] {
        for (member, value) in one[name].as_object().into_iter().flatten() {
            rows.push(vec![name.to_owned(), format!("{} = {}", plain(member), plain(&value.to_string()))]);
        }
    }
    for held in one["held"].as_array().into_iter().flatten() {
        let id = plain(held.as_str().unwrap_or_default());
        rows.push(vec!["waits for a person".into(), format!("{id}  (`warden ack show {id}`)")]);
    }
    say(table(&rows));
    for event in one["events"].as_array().into_iter().flatten() {
        say(plain_lines(&told(event)));
    }
}

/// One line of what became of a session.
fn told(event: &Value) -> String {
    let at = text(event, "at");
    let cause = match event["cause"]["by"].as_str() {
        Some("tool") => format!(" by `{}`", text(&event["cause"], "tool")),
        Some("default_terminal_status") => " as its app's default".to_owned(),
        Some("worker") => match event["caller"].as_str() {
            Some(caller) => format!(" by {} for its worker ({})", plain(caller), text(&event["cause"], "act")),
            None => format!(" by its worker ({})", text(&event["cause"], "act")),
        },
        Some("operator") => format!(" by {} ({})", text(&event["cause"], "operator"), text(&event["cause"], "act")),
        _ => String::new(),
    };
    let why = event["reason"].as_str().map(|why| format!(": {}", plain(why))).unwrap_or_default();
    match event["event"].as_str() {
        Some("started") => format!("{at}  started"),
        Some("status") => format!("{at}  {} → {}{cause}{why}", text(event, "from"), text(event, "to")),
        Some("resume_failed") => format!("{at}  could not be resumed by {}{why}", text(event, "operator")),
        _ => at,
    }
}

fn changed(global: &Global, said: &Value) {
    if global.json {
        say(said);
        return;
    }
    let refused = match said["refused"].as_u64() {
        Some(0) | None => String::new(),
        Some(n) => format!("; {n} held calls are refused by that"),
    };
    for held in said["still_held"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        tell(format!("{} could not be refused, and the session waits for it: `warden ack refuse`", plain(held)));
    }
    say(format!("{}: {} → {}{refused}", text(said, "session"), text(said, "from"), text(said, "status")));
}
