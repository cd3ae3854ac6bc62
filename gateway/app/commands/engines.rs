//! `warden engines`.

use super::{data_dir, each, plain, say, table};
use crate::cli::{Engines, Global};
use crate::client::Client;
use crate::exit::Outcome;
use serde_json::{Value, json};

/// Shows engines, and asks whether they answer.
pub async fn run(global: &Global, engines: Engines) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    match engines {
        Engines::List => {
            let all = client.get("/v1/engines").await?;
            list(global, &all["engines"]);
            Ok(0)
        }
        Engines::Ping { engine } => {
            let told = client.post("/v1/engines/ping", &json!({ "engine": engine })).await?;
            let told: Vec<&Value> = each(&told["engines"]).collect();
            let mut rows = vec![["ENGINE", "", "MS", ""].map(str::to_owned).to_vec()];
            for one in &told {
                if global.json {
                    say(one);
                }
                let text = |name: &str| plain(one[name].as_str().unwrap_or_default());
                let ok = if one["ok"] == true { "answers" } else { "FAILS" };
                rows.push(vec![text("engine"), ok.into(), one["ms"].to_string(), text("said")]);
            }
            if !global.json {
                say(table(&rows));
            }
            // The answer is no when any of them does not.
            Ok(if told.iter().all(|one| one["ok"] == true) { 0 } else { crate::exit::NO })
        }
    }
}

fn list(global: &Global, engines: &Value) {
    let engines: Vec<&Value> = each(engines).collect();
    if global.json {
        engines.into_iter().for_each(say);
        return;
    }
    let mut rows = vec![["ENGINE", "KIND", "AT", "MODELS", "SPEAKS", "PRICES", "ZONE"].map(str::to_owned).to_vec()];
    for one in &engines {
        let text = |name: &str| plain(one[name].as_str().unwrap_or_default());
        let texts = |name: &str| {
            let all = each(&one[name]).filter_map(Value::as_str);
            plain(&all.collect::<Vec<_>>().join(" "))
        };
        let priced = one["prices"].as_array().map_or(0, Vec::len);
        let prices = if priced == 0 { "none".to_owned() } else { format!("{priced}, as of {}", text("prices_as_of")) };
        let models = texts("models");
        let models = if models.is_empty() { "all".to_owned() } else { models };
        rows.push(vec![text("id"), text("kind"), text("at"), models, texts("speaks"), prices, text("zone")]);
    }
    say(table(&rows));
    if engines.is_empty() {
        super::tell("no engines are configured: name some under `engines` in warden.yaml, see docs/engines.md");
    }
}
