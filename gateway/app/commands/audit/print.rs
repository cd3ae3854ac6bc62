//! How records look to people.

use crate::cli::Global;
use crate::commands::{plain, say, table};
use serde_json::Value;
use warden_adapters::review::Shown;
use warden_adapters::view::Stats;

/// One record, on one line.
pub(in crate::commands) fn record(global: &Global, record: &Value) {
    if global.json {
        say(record);
        return;
    }
    let text = |pointer: &str| plain(record.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let (seq, ts, kind) = (record["seq"].as_u64().unwrap_or_default(), text("/ts"), text("/kind"));
    let rest = match kind.as_str() {
        "decision" => {
            let tool = match record["tool"].as_str() {
                Some(tool) => format!("{}/{}", text("/server"), plain(tool)),
                None => format!("{} {}", text("/action"), text("/server")),
            };
            let repeated = record["repeated"]
                .as_u64()
                .filter(|n| *n > 0)
                .map(|n| format!(" (and {n} like it)"))
                .unwrap_or_default();
            let would_be = match (record["would_be"].is_null(), text("/enforced").as_str()) {
                (true, _) => String::new(),
                (false, "shadow") => format!(" (the rules say {})", text("/would_be/verdict")),
                (false, _) => format!(" (with the rules in shadow {})", text("/would_be/verdict")),
            };
            let (verdict, worker, reason) = (text("/verdict"), text("/worker"), text("/reason"));
            format!("{verdict:8} {worker} {tool} {reason} {}{would_be}{repeated}", text("/id"))
        }
        "outcome" => format!("{} {}", text("/happened"), text("/decision")),
        "policy" => {
            let shadow = if record["shadow"] == true { " (the site is in shadow)" } else { "" };
            format!("{} {}{shadow}", text("/event"), text("/digests/policy"))
        }
        "operator" => format!("{} {} {}", text("/operator"), text("/act"), text("/object")),
        "read" => format!("{} {} {}", text("/operator"), text("/how"), plain(&record["query"].to_string())),
        "retention" => format!(
            "{} segments dropped, sequence number {} stays ({})",
            record["segments"],
            record["next_seq"],
            text("/why")
        ),
        "hold" if record["keeps"].is_null() => format!("{} released {}", text("/operator"), text("/name")),
        "hold" => format!("{} placed {}", text("/operator"), text("/name")),
        "key" => text("/verifier"),
        "ack" => format!("{} {} {} {}", text("/event"), text("/decision"), text("/operator"), text("/reason")),
        "session" => {
            let cause = ["tool", "operator", "act"].map(|name| text(&format!("/cause/{name}"))).join(" ");
            let (event, why) = (text("/event"), text("/reason"));
            match record["to"].is_string() {
                true => format!("{} {} → {} {} {why}", text("/session"), text("/from"), text("/to"), cause.trim()),
                false => format!("{} {event} {} {} {why}", text("/session"), text("/app"), text("/worker")),
            }
        }
        "task" => format!("{} {} {}", text("/event"), text("/task"), text("/worker")).trim_end().to_owned(),
        "delegate" => format!("{} {} {} by {}", text("/event"), text("/delegate"), text("/node"), text("/by")),
        "inbox" => {
            let came = format!("{} {}", text("/message/came"), text("/message/reason"));
            format!("{} {} {} {came}", text("/event"), text("/inbox"), text("/reason")).trim_end().to_owned()
        }
        _ => String::new(),
    };
    say(format!("{seq:>8} {ts} {kind:9} {rest}"));
}

/// One decision with everything around it.
pub(super) fn shown(global: &Global, shown: &Shown) {
    if global.json {
        say(serde_json::json!(shown));
        return;
    }
    let decision = &shown.decision;
    let text = |pointer: &str| plain(decision.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let mut rows = vec![
        ("verdict", format!("{} ({})", text("/verdict"), text("/reason"))),
        ("worker", text("/worker")),
        ("action", format!("{} on {}", text("/action"), plain(&entity(&decision["resource"])))),
        ("when", format!("{}, sequence number {}", text("/ts"), decision["seq"])),
        ("through", format!("{}, enforced by {}", text("/door"), text("/enforced"))),
    ];
    if !decision["would_be"].is_null() {
        let who = if decision["enforced"] == "shadow" { "the rules say" } else { "in shadow" };
        let by: Vec<String> = decision["would_be"]["policies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(plain)
            .collect();
        rows.push((who, format!("{} ({}) {}", text("/would_be/verdict"), text("/would_be/reason"), by.join(", "))));
    }
    for name in ["session", "task", "run", "delegate", "advice"] {
        let pointer = format!("/{name}");
        if !text(&pointer).is_empty() {
            rows.push((name, text(&pointer)));
        }
    }
    if decision["errors"].as_array().is_some_and(|errors| !errors.is_empty()) {
        rows.push(("errors", plain(&decision["errors"].to_string())));
    }
    let what = match &shown.outcome {
        Some(outcome) => {
            let happened = outcome["happened"].as_str().unwrap_or_default();
            format!("{} after {} ms, {} bytes", plain(happened), outcome["took_ms"], outcome["bytes"])
        }
        None => "nothing recorded".into(),
    };
    rows.push(("outcome", what));
    if let Some(acknowledgement) = &shown.acknowledgement {
        rows.push(("acknowledged", plain(&acknowledgement.to_string())));
    }
    say(format!("decision {}\n", text("/id")));
    say(table(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>()));
    say("\nrules of that time");
    for rule in &shown.rules {
        let text: Vec<String> = rule.text.lines().map(|line| format!("    {}", plain(line))).collect();
        say(format!("  {} ({})\n{}", plain(&rule.id), plain(&rule.at), text.join("\n")));
    }
    let decided = decision["policies"].as_array().map_or(0, Vec::len);
    if decision["enforced"] == "shadow" {
        say("  none was enforced: the site was in shadow");
    } else if decided == 0 {
        say("  none decided: what no rule permits is denied");
    } else if shown.rules.len() < decided {
        say(format!("  {}: the text of that time was not kept", plain(&decision["policies"].to_string())));
    }
    say("\nfacts");
    let facts = serde_json::to_string_pretty(&decision["context"]).unwrap_or_default();
    say(facts.lines().map(|line| format!("  {}", plain(line))).collect::<Vec<_>>().join("\n"));
    if decision["erased"] == true {
        say("  (the arguments were erased: their key is destroyed)");
    }
    say("\nthe worker before and after");
    shown.before.iter().for_each(|neighbour| record(global, neighbour));
    record(global, decision);
    shown.after.iter().for_each(|neighbour| record(global, neighbour));
}

fn entity(entity: &Value) -> String {
    let text = |name: &str| entity[name].as_str().unwrap_or_default();
    format!("{}::\"{}\"", text("type"), text("id"))
}

/// Counts, the largest first.
pub(super) fn stats(global: &Global, stats: &Stats) {
    if global.json {
        say(serde_json::json!(stats));
        return;
    }
    say(format!("{} decisions", stats.decisions));
    let groups = [
        ("verdict", &stats.verdicts),
        ("reason", &stats.reasons),
        ("rule", &stats.policies),
        ("tool or action", &stats.tools),
        ("worker", &stats.workers),
    ];
    for (name, counts) in groups.into_iter().filter(|(_, counts)| !counts.is_empty()) {
        let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
        counts.sort_by_key(|(value, count)| (std::cmp::Reverse(**count), *value));
        let rows: Vec<Vec<String>> =
            counts.iter().map(|(value, count)| vec![format!("{count:>10}"), plain(value)]).collect();
        say(format!("\nby {name}\n{}", table(&rows)));
    }
}
