//! `warden tools`.

use super::{data_dir, plain, say, table};
use crate::cli::{Global, Tools};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
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
                let note = match (tool["waiting"] == true, tool["changed"].is_null()) {
                    (true, _) => "new: classify it by its name to take it in",
                    (false, false) => "its definition has changed: classify it by its name to accept that",
                    (false, true) => "",
                };
                rows.push(vec![
                    plain(name(tool)),
                    effect,
                    tool["suggestion"].as_str().unwrap_or_default().into(),
                    note.into(),
                ]);
            }
            say(table(&rows));
            if tools.is_empty() {
                super::tell(format_args!("no tools are known: they are listed when the gateway starts with a server"));
            }
        }
        Tools::Show { tool } => {
            let found = all(&dir).await?.into_iter().find(|known| name(known) == tool);
            let found = found.ok_or_else(|| Failure::no(format!("no such tool: `{tool}`; see `warden tools list`")))?;
            say(if global.json { found.to_string() } else { serde_json::to_string_pretty(&found).unwrap_or_default() });
        }
        Tools::Classify { tools, effect, open_world, paths } => {
            let paths = (!paths.is_empty()).then_some(paths);
            let says = Classify { tools, effect, open_world, paths };
            let answer = Client::need(&dir)?.post("/v1/tools/classify", &json!(says)).await?;
            if global.json {
                say(&answer);
            } else {
                for tool in answer["tools"].as_array().into_iter().flatten().filter_map(Value::as_str) {
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

fn name(tool: &Value) -> &str {
    tool["tool"].as_str().unwrap_or_default()
}

async fn all(dir: &std::path::Path) -> Result<Vec<Value>, Failure> {
    if let Some(client) = Client::connect(dir)? {
        return Ok(client.get("/v1/tools").await?["tools"].as_array().cloned().unwrap_or_default());
    }
    Ok(shown_tools(&govern::load_catalogue(dir)?))
}
