//! `warden budget`.

use super::{data_dir, each, plain, say, table};
use crate::cli::{Budget, By, Global};
use crate::client::Client;
use crate::exit::Outcome;
use serde_json::{Value, json};

/// Shows budgets, and changes them through the running gateway.
pub async fn run(global: &Global, budget: Budget) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    match budget {
        Budget::List { by } => {
            let all = client.get("/v1/budgets").await?;
            match by {
                None => list(global, &all["budgets"]),
                Some(by) => spend(global, by, &all["spend"]),
            }
        }
        Budget::Show { budget } => {
            let one = client.get(&format!("/v1/budgets/show/{budget}")).await?;
            if global.json {
                say(&one);
            } else {
                show(&one);
            }
        }
        Budget::Grant { budget, tokens, usd } => {
            let asked = json!({ "budget": budget, "tokens": tokens.unwrap_or(0), "micro_usd": usd.unwrap_or(0) });
            let one = client.post("/v1/budgets/grant", &asked).await?;
            say(if global.json { one.to_string() } else { format!("granted to `{budget}`:\n{}", rows(&one)) });
        }
        Budget::Freeze { budget, off } => {
            let one = client.post("/v1/budgets/freeze", &json!({ "budget": budget, "frozen": !off })).await?;
            let text = match off {
                true => format!("`{budget}` goes on"),
                false => format!("`{budget}` is frozen: nothing that is charged to it goes on"),
            };
            say(if global.json { one.to_string() } else { text });
        }
    }
    Ok(0)
}

/// An amount as people read it: tokens as they are, money in dollars.
fn amount(unit: &Value, count: &Value) -> String {
    let count = count.as_u64().unwrap_or_default();
    if unit == "micro_usd" { usd(count) } else { format!("{count} tokens") }
}

fn usd(micro: u64) -> String {
    format!("${}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

fn limit_row(name: &str, note: &str, limit: &Value) -> Vec<String> {
    let of = |name: &str| amount(&limit["unit"], &limit[name]);
    let per = limit["per"].as_str().unwrap_or_default().to_owned();
    let total = match limit["granted"].as_u64() {
        Some(0) | None => of("total"),
        Some(_) => format!("{} + {}", of("total"), of("granted")),
    };
    vec![plain(name), per, total, of("spent"), of("reserved"), of("left"), note.to_owned()]
}

const HEAD: [&str; 7] = ["BUDGET", "PER", "LIMIT", "SPENT", "RESERVED", "LEFT", ""];

fn list(global: &Global, budgets: &Value) {
    if global.json {
        each(budgets).for_each(say);
        return;
    }
    let mut all = vec![HEAD.map(str::to_owned).to_vec()];
    for budget in each(budgets) {
        let name = budget["name"].as_str().unwrap_or_default();
        let mut note = budget["parent"].as_str().map(|parent| format!("in {parent}")).unwrap_or_default();
        if budget["frozen"] == true {
            note = format!("FROZEN {note}").trim_end().to_owned();
        }
        all.extend(limit_rows(name, &note, budget));
    }
    say(table(&all));
    if each(budgets).next().is_none() {
        super::tell("no budgets are configured: name some under `budgets` in warden.yaml");
    }
}

fn limit_rows(name: &str, note: &str, budget: &Value) -> Vec<Vec<String>> {
    let limits: Vec<_> = each(&budget["limits"]).map(|limit| limit_row(name, note, limit)).collect();
    if !limits.is_empty() {
        return limits;
    }
    let spent = |of: &str| {
        let micro = budget[of]["micro_usd"].as_u64().unwrap_or_default();
        format!("{} tokens, {}", budget[of]["tokens"].as_u64().unwrap_or_default(), usd(micro))
    };
    vec![vec![plain(name), "-".into(), "none".into(), spent("spent"), spent("reserved"), "-".into(), note.to_owned()]]
}

fn rows(budget: &Value) -> String {
    let name = budget["name"].as_str().unwrap_or_default();
    let head = vec![HEAD.map(str::to_owned).to_vec()];
    table(&head.into_iter().chain(limit_rows(name, "", budget)).collect::<Vec<_>>())
}

fn show(budget: &Value) {
    say(rows(budget));
    let name = |of: &Value| plain(of.as_str().unwrap_or_default());
    if let Some(parent) = budget["parent"].as_str() {
        say(format!("part of: {}", plain(parent)));
    }
    let workers: Vec<String> = each(&budget["workers"]).map(name).collect();
    if !workers.is_empty() {
        say(format!("charged to it: {}", workers.join(", ")));
    }
    if budget["frozen"] == true {
        say("FROZEN: `warden budget freeze NAME --off` lets it go on");
    }
    let mut shares = vec![HEAD.map(str::to_owned).to_vec()];
    for share in each(&budget["shared"]) {
        shares.extend(limit_rows(share["name"].as_str().unwrap_or_default(), "", share));
    }
    if shares.len() > 1 {
        say(format!("\n{}", table(&shares)));
    }
}

fn spend(global: &Global, by: By, spend: &Value) {
    let of = match by {
        By::Worker => &spend["workers"],
        By::Engine => &spend["engines"],
        By::Task => &spend["tasks"],
    };
    if global.json {
        each(of).for_each(say);
        return;
    }
    let sums = |row: &Value| {
        let micro = row["spent"]["micro_usd"].as_u64().unwrap_or_default();
        [row["calls"].to_string(), row["spent"]["tokens"].to_string(), usd(micro)]
    };
    let text = |row: &Value, name: &str| plain(row[name].as_str().unwrap_or_default());
    let mut all = Vec::new();
    match by {
        By::Task => {
            all.push(["TASK", "WORKER", "CALLS", "TOKENS", "USD", ""].map(str::to_owned).to_vec());
            for row in each(of) {
                let mut note = if row["open"] == true { "open".to_owned() } else { "over".to_owned() };
                if row["ambient"] == true {
                    note.push_str(", opened by Warden");
                }
                if row["engine_bypass_suspected"] == true {
                    note.push_str(", SUSPECTED OF A BYPASS: it said it needs an engine, and called none");
                }
                let [calls, tokens, usd] = sums(row);
                all.push(vec![text(row, "task"), text(row, "worker"), calls, tokens, usd, note]);
            }
        }
        By::Worker | By::Engine => {
            let what = if by == By::Worker { "WORKER" } else { "ENGINE" };
            all.push([what, "CALLS", "TOKENS", "USD"].map(str::to_owned).to_vec());
            for row in each(of) {
                let [calls, tokens, usd] = sums(row);
                all.push(vec![text(row, "name"), calls, tokens, usd]);
            }
        }
    }
    say(table(&all));
}

#[cfg(test)]
mod tests {
    use super::usd;

    #[test]
    fn money_is_shown_whole() {
        assert_eq!(usd(0), "$0.000000");
        assert_eq!(usd(2_500_001), "$2.500001");
    }
}
