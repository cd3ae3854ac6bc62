//! `warden worker`.

use super::{data_dir, each, plain, say, table, tell, text};
use crate::cli::{BrainName, Global, Schedule, Worker, WorkerRun};
use crate::client::Client;
use crate::exit::{BUSY, FAILED, Failure, NO, Outcome};
use serde_json::{Value, json};
use std::time::Duration;

/// Runs the inbox worker through the running gateway, and changes its schedule.
pub async fn run(global: &Global, worker: Worker) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    match worker {
        Worker::Run(run) => runs(global, &client, run).await,
        Worker::Schedule(schedule) => {
            let path = "/v1/worker/schedule";
            let shown = match schedule {
                Schedule::Status => client.get(path).await,
                Schedule::Enable { cron } => client.post(path, &json!({ "enabled": true, "cron": cron })).await,
                Schedule::Disable => client.post(path, &json!({ "enabled": false })).await,
            }?;
            if global.json {
                say(&shown)
            } else {
                status(&shown)
            }
            Ok(0)
        }
    }
}

async fn runs(global: &Global, client: &Client, run: WorkerRun) -> Outcome {
    let mut asked = json!({ "mode": if run.execute { "execute" } else { "dry_run" } });
    if let Some(brain) = run.brain {
        asked["brain"] = match brain {
            BrainName::Rule => "rule".into(),
            BrainName::Llm => "llm".into(),
        };
    }
    if let Some(digest) = &run.accept_brief {
        asked["accept_brief"] = digest.as_str().into();
    }
    loop {
        let report = match client.post_coded("/v1/worker/runs", &asked).await {
            Ok(report) => report,
            Err((code, failure)) => {
                return Err(match code.as_str() {
                    "already_running" => Failure { code: BUSY, ..failure },
                    "refused" | "invalid" | "no_inbox" => Failure { code: NO, ..failure },
                    _ => failure,
                });
            }
        };
        // It was accepted once.
        if let Some(asked) = asked.as_object_mut() {
            asked.remove("accept_brief");
        }
        if global.json {
            say(&report)
        } else {
            show(&report)
        }
        let failed = report["summary"]["came"]["failed"].as_u64().unwrap_or_default();
        if let Some(error) = report["summary"]["error"].as_str() {
            return Err(Failure::failed(format!("the run broke off: {}", plain(error))));
        }
        if run.strict && failed > 0 {
            return Ok(FAILED);
        }
        if run.once {
            return Ok(0);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(run.every)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(0),
        }
    }
}

fn show(report: &Value) {
    let dry = report["mode"] == "dry_run";
    for message in each(&report["messages"]) {
        say(format!("{}  {}", text(message, "id"), text(message, "came").to_uppercase()));
        say(format!("  from     {}", text(message, "from")));
        say(format!("  subject  {}", text(message, "subject")));
        let why = text(message, "why");
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        say(format!("  why      {}{why}", text(message, "reason")));
        for action in each(&message["actions"]) {
            let mut line =
                format!("  action   {}: {}", text(action, "kind"), text(action, "outcome").replace('_', " "));
            for (name, label) in [("reason", ""), ("decision", "decision "), ("hash", "")] {
                if let Some(value) = action[name].as_str() {
                    line.push_str(&format!(", {label}{}", plain(value)));
                }
            }
            say(line);
        }
    }
    let summary = &report["summary"];
    let came: Vec<String> = summary["came"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, count)| format!("{count} {}", plain(name).replace('_', " ")))
        .collect();
    let came = if came.is_empty() { String::new() } else { format!(": {}", came.join(", ")) };
    let calls = match summary["engine_calls"].as_u64().unwrap_or_default() {
        0 => String::new(),
        calls => format!("; {calls} engine calls, which cost something also in a dry run"),
    };
    let how = if dry { "dry run, nothing was done" } else { "run" };
    say(format!("{how}: {} messages{came}{calls}", summary["messages"].as_u64().unwrap_or_default()));
}

fn status(shown: &Value) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("inbox", text(shown, "inbox"));
    row("schedule", if shown["enabled"] == true { "on".into() } else { "off".into() });
    if shown["enabled"] == true {
        row("runs", format!("{} (UTC)", text(&shown["schedule"], "cron")));
        row("next", text(shown, "next"));
        row("enabled by", format!("{}, {}", text(&shown["schedule"], "operator"), text(&shown["schedule"], "since")));
    }
    let changed: Vec<String> = each(&shown["changed_since_shakedown"]).filter_map(Value::as_str).map(plain).collect();
    let shakedown = match (shown["shakedown"].is_null(), changed.is_empty()) {
        (true, _) => "none: `warden worker run --dry-run` with messages in the inbox".to_owned(),
        (false, true) => format!("{}, {} messages", text(&shown["shakedown"], "at"), shown["shakedown"]["messages"]),
        (false, false) => {
            format!("{}, and since then this has changed: {}", text(&shown["shakedown"], "at"), changed.join(", "))
        }
    };
    row("clean dry run", shakedown);
    row("last run", text(shown, "last_run"));
    say(table(&rows));
    if let Some(problem) = shown["problem"].as_str() {
        tell(plain(problem));
    }
}
