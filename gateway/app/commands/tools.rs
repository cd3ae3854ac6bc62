//! `warden tools`.

use super::{data_dir, each, plain, plain_lines, say, table};
use crate::cli::{Global, Tools};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
use similar::TextDiff;
use warden_adapters::govern::{self, Classify};
use warden_adapters::http::operator::shown_tools;

/// Lists and shows tools, with or without a running gateway; classifies them through it.
pub async fn run(global: &Global, tools: Tools) -> Outcome {
    let dir = data_dir(global)?;
    match tools {
        Tools::List { server } => {
            let of = |tool: &Value| server.as_deref().is_none_or(|server| name(tool).split('/').next() == Some(server));
            let tools: Vec<Value> = all(&dir).await?.into_iter().filter(of).collect();
            if global.json {
                tools.iter().for_each(say);
                return Ok(0);
            }
            let mut rows = vec![["TOOL", "EFFECT", "SUGGESTED BY ITS SERVER", ""].map(str::to_owned).to_vec()];
            for tool in &tools {
                let effect = tool["effect"].as_str().unwrap_or_default();
                let effect =
                    if tool["classified"] == true { effect.to_owned() } else { format!("{effect} (nobody has said)") };
                let mut note = match (tool["waiting"] == true, tool["changed"].is_null()) {
                    (true, _) => "new: `warden tools approve` shows it, and takes it in".to_owned(),
                    (false, false) if tool["dismissed"] == true => {
                        "held until its server lists what is in the catalogue again: another definition was dismissed"
                            .to_owned()
                    }
                    (false, false) => "held: its definition has changed, see `warden tools approve`".to_owned(),
                    (false, true) => String::new(),
                };
                let alike: Vec<&str> = each(&tool["alike"]).filter_map(Value::as_str).collect();
                if !alike.is_empty() {
                    let sep = if note.is_empty() { "" } else { "; " };
                    note = format!("{note}{sep}can be taken for {}", plain(&alike.join(", ")));
                }
                rows.push(vec![
                    plain(name(tool)),
                    effect,
                    tool["suggestion"].as_str().unwrap_or_default().into(),
                    note,
                ]);
            }
            say(table(&rows));
            if tools.is_empty() {
                super::tell(format_args!("no tools are known: they are listed when the gateway starts with a server"));
            }
        }
        Tools::Show { tool } => {
            let found = all(&dir).await?.into_iter().find(|known| name(known) == tool);
            let found = found
                .ok_or_else(|| Failure::no(format!("no such tool: `{}`; see `warden tools list`", plain(&tool))))?;
            let pretty = || plain_lines(&serde_json::to_string_pretty(&found).unwrap_or_default());
            say(if global.json { found.to_string() } else { pretty() });
        }
        Tools::Approve { tool, hash: None, .. } => return show_new(global, &dir, &tool).await,
        Tools::Approve { tool, hash: Some(hash), effect } => {
            let asked = json!({ "tool": tool, "hash": hash, "effect": effect });
            let answer = Client::need(&dir)?.post("/v1/tools/approve", &asked).await?;
            let text = format!("{} is in the catalogue as you saw it", plain(&tool));
            say(if global.json { answer.to_string() } else { text });
        }
        Tools::Pin { tool, hash: None } => return show_new(global, &dir, &tool).await,
        Tools::Pin { tool, hash: Some(hash) } => {
            let answer = Client::need(&dir)?.post("/v1/tools/pin", &json!({ "tool": tool, "hash": hash })).await?;
            let text = format!(
                "{} stays as it is in the catalogue, and is held until its server lists that again",
                plain(&tool)
            );
            say(if global.json { answer.to_string() } else { text });
        }
        Tools::Classify { tools, effect, open_world, paths, groups, authority } => {
            let said = |list: Vec<String>| (!list.is_empty()).then_some(list);
            let says = Classify {
                tools,
                effect,
                open_world,
                paths: said(paths),
                groups: said(groups),
                authority: said(authority),
            };
            let answer = Client::need(&dir)?.post("/v1/tools/classify", &json!(says)).await?;
            if global.json {
                say(&answer);
            } else {
                for tool in each(&answer["tools"]).filter_map(Value::as_str) {
                    say(format!(
                        "{}{}",
                        plain(tool),
                        says.effect.map_or_else(String::new, |effect| format!("  {effect}"))
                    ));
                }
            }
        }
    }
    Ok(0)
}

/// What is new of a tool, and how to accept exactly that.
async fn show_new(global: &Global, dir: &std::path::Path, tool: &str) -> Outcome {
    let found = all(dir).await?.into_iter().find(|known| name(known) == tool);
    let found =
        found.ok_or_else(|| Failure::no(format!("no such tool: `{}`; see `warden tools list`", plain(tool))))?;
    let is_new = found["waiting"] == true;
    let hash = if is_new { &found["hash"] } else { &found["changed_hash"] };
    let Some(hash) = hash.as_str() else {
        return Err(Failure::no(format!("`{}` is as in the catalogue: nothing waits for an operator", plain(tool))));
    };
    if global.json {
        say(
            json!({ "tool": tool, "new": is_new, "hash": hash, "before": if is_new { &Value::Null } else { &found["definition"] },
            "after": if is_new { &found["definition"] } else { &found["changed"] }, "alike": found["alike"] }),
        );
        return Ok(0);
    }
    let pretty = |value: &Value| plain_lines(&serde_json::to_string_pretty(value).unwrap_or_default()) + "\n";
    if is_new {
        say(pretty(&found["definition"]));
    } else {
        let (before, after) = (pretty(&found["definition"]), pretty(&found["changed"]));
        let difference = TextDiff::from_lines(&before, &after);
        say(difference.unified_diff().context_radius(2).header("in the catalogue", "as its server lists it now"));
    }
    let alike: Vec<&str> = each(&found["alike"]).filter_map(Value::as_str).collect();
    if !alike.is_empty() {
        say(format!("\nIt can be taken for {}.", plain(&alike.join(", "))));
    }
    let hash = hash.trim_start_matches("sha256:");
    say(format!("\nTo accept exactly this:\n  warden tools approve {} {hash}", plain(tool)));
    if !is_new {
        say(format!("To dismiss it, and keep what is in the catalogue:\n  warden tools pin {} {hash}", plain(tool)));
    }
    Ok(0)
}

fn name(tool: &Value) -> &str {
    tool["tool"].as_str().unwrap_or_default()
}

async fn all(dir: &std::path::Path) -> Result<Vec<Value>, Failure> {
    if let Some(client) = Client::connect(dir)? {
        return Ok(client.get("/v1/tools").await?["tools"].as_array().cloned().unwrap_or_default());
    }
    Ok(shown_tools(&govern::load_catalogue(dir)?))
}
