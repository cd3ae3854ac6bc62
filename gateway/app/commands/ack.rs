//! `warden ack`.

use super::{data_dir, each, plain, plain_lines, say, table, tell, text};
use crate::cli::{Ack, AckGrant, Global};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};

/// Shows what is held, and decides on it through the running gateway.
pub async fn run(global: &Global, ack: Ack) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    match ack {
        Ack::List { worker, over, wait } => {
            let worker = worker.map(|worker| format!("&worker={}", step(&worker))).unwrap_or_default();
            let all = client.get(&format!("/v1/acks?wait={wait}&over={over}{worker}")).await?;
            list(global, &all);
        }
        Ack::Show { id, wait } => {
            let one = client.get(&format!("/v1/acks/{}?wait={wait}", step(&id))).await?;
            if global.json { say(&one) } else { show(&one) }
        }
        Ack::Grant(grant) => {
            let id = grant.id.clone();
            let said = client.post(&format!("/v1/acks/{}", step(&id)), &yes(grant)?).await?;
            if global.json { say(&said) } else { granted(&said) }
        }
        Ack::Refuse { id, reason } => {
            let no = json!({ "decision": "refuse", "reason": reason });
            let said = client.post(&format!("/v1/acks/{}", step(&id)), &no).await?;
            say(if global.json { said.to_string() } else { format!("refused: {}", plain(&id)) });
        }
        Ack::Revoke { scope, reason } => {
            let path = format!("/v1/acks/scopes/{}/revoke", step(&scope));
            let said = client.post(&path, &json!({ "reason": reason })).await?;
            say(if global.json { said.to_string() } else { format!("revoked: {}", plain(&scope)) });
        }
    }
    Ok(0)
}

/// Only what can stand in a path by itself.
pub(super) fn step(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.chars().map(|c| if safe(c) { c } else { '-' }).collect()
}

fn yes(AckGrant { id: _, reason, hash, time, times, session, same, when }: AckGrant) -> Result<Value, Failure> {
    let mut yes = json!({ "decision": "grant", "reason": reason });
    if let Some(hash) = hash {
        yes["hash"] = hash.into();
    }
    if let Some(time) = time {
        let span = time.parse::<jiff::Span>().ok();
        let length = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
        let length = length.map(|length| length.as_secs()).filter(|seconds| *seconds > 0);
        let seconds =
            length.ok_or_else(|| Failure::invalid(format!("--for `{time}`: give a time such as 1h or 30m")))?;
        yes["scope"] = json!({ "for_s": seconds, "times": times, "session": session, "same": same, "when": when });
    }
    Ok(yes)
}

fn list(global: &Global, all: &Value) {
    if global.json {
        say(all);
        return;
    }
    let mut rows = vec![["ID", "STATUS", "WORKER", "WHAT", "EXPIRES"].map(str::to_owned).to_vec()];
    for held in each(&all["held"]) {
        let status = match (held["status"].as_str(), held["runs"].as_str()) {
            (Some("granted"), Some("on_repeat")) => "granted, waits for its worker's repeat".to_owned(),
            (Some("ran"), _) => "ran, its result waits for its worker".to_owned(),
            (status, _) => status.unwrap_or_default().to_owned(),
        };
        rows.push(vec![
            text(held, "decision"),
            status,
            text(held, "worker"),
            text(held, "action"),
            text(held, "expires"),
        ]);
    }
    for over in each(&all["over"]) {
        rows.push(vec![
            text(over, "decision"),
            text(over, "status"),
            text(over, "worker"),
            String::new(),
            String::new(),
        ]);
    }
    if rows.len() == 1 {
        tell("nothing is held");
    } else {
        say(table(&rows));
    }
    for scope in each(&all["scopes"]) {
        say(format!("\n{}", scope_of(scope)));
    }
}

fn scope_of(scope: &Value) -> String {
    let left = match scope["uses_left"].as_u64() {
        Some(left) => format!("{left} more times"),
        None => "any number of times".to_owned(),
    };
    let within = match (scope["session"].as_str(), scope["connection"].as_str()) {
        (Some(session), _) => format!(", in session {}", plain(session)),
        (None, Some(_)) => ", in the connection of that call".to_owned(),
        (None, None) => String::new(),
    };
    let (id, operator, until) = (text(scope, "id"), text(scope, "operator"), text(scope, "until"));
    let policy = plain_lines(scope["policy"].as_str().unwrap_or_default());
    format!(
        "acknowledged in advance: {id}\nby {operator}, until {until}, {left}{within}. As Cedar, in no layer:\n{policy}"
    )
}

fn show(one: &Value) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    for name in ["decision", "status", "worker", "session", "task", "server", "action", "reason", "advice", "expires"] {
        row(name, text(one, name));
    }
    if !one["resource"].is_null() {
        row("resource", plain(&one["resource"].to_string()));
    }
    row("policies", each(&one["policies"]).filter_map(Value::as_str).map(plain).collect::<Vec<_>>().join(", "));
    row("hash", text(one, "hash"));
    row(
        "may say yes",
        each(&one["may_acknowledge"]).filter_map(Value::as_str).map(plain).collect::<Vec<_>>().join(", "),
    );
    let runs = match one["runs"].as_str() {
        Some("now") => "at once, in a session of Warden's own; the result waits for the worker",
        Some("on_repeat") => "once its worker repeats the call, in the worker's own session",
        _ => "",
    };
    row("runs", runs.to_owned());
    let changed: Vec<String> = each(&one["digests"]["changed"]).filter_map(Value::as_str).map(plain).collect();
    row("changed since", if changed.is_empty() { String::new() } else { changed.join(", ") });
    if let Some(verdict) = one["verdict_now"]["verdict"].as_str() {
        row("by policies of now", format!("{verdict} ({})", text(&one["verdict_now"], "reason")));
    }
    say(table(&rows));
    let arguments = if one["arguments"].is_null() { &one["input"] } else { &one["arguments"] };
    if !arguments.is_null() {
        let pretty = serde_json::to_string_pretty(arguments).unwrap_or_default();
        say(format!("\narguments (secrets masked)\n{}", plain_lines(&pretty)));
    }
    if !one["also"].is_null() {
        let pretty = serde_json::to_string_pretty(&one["also"]).unwrap_or_default();
        say(format!("\nsent with them, unseen by policy\n{}", plain_lines(&pretty)));
    }
    if let Some(why) = one["unreadable"].as_str() {
        tell(format!("its arguments cannot be shown: {}", plain(why)));
    }
}

fn granted(said: &Value) {
    say(match said["runs"].as_str() {
        Some("now") => {
            "granted: it runs now; `warden audit show ID` has the outcome, and the worker collects the result"
        }
        _ => {
            "granted: it runs as soon as its worker repeats the call. What it acts on may belong to the worker's session"
        }
    });
    let changed: Vec<String> = each(&said["changed"]).filter_map(Value::as_str).map(plain).collect();
    if !changed.is_empty() {
        tell(format!(
            "since it was held, this has changed: {}. It was decided again by what is there now",
            changed.join(", ")
        ));
    }
    if !said["scope"].is_null() {
        say(format!("\n{}", scope_of(&said["scope"])));
    }
    if let Some(warning) = said["warning"].as_str() {
        tell(format!("note: {}", plain(warning)));
    }
}
