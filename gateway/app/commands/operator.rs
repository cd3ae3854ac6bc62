//! `warden operator`.

use super::{data_dir, say, table};
use crate::cli::{Global, Operator};
use crate::client::Client;
use crate::exit::Outcome;
use serde_json::{Value, json};

/// Adds, lists and takes back operators, through the running gateway.
pub async fn run(global: &Global, operator: Operator) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    let answer = match operator {
        Operator::Add { name } => client.post("/v1/operators", &json!({ "name": name })).await?,
        Operator::List => client.get("/v1/operators").await?,
        Operator::Revoke { name } => client.delete(&format!("/v1/operators/{name}")).await?,
    };
    if global.json {
        say(&answer);
    } else if let Some(operators) = answer["operators"].as_array() {
        let cell = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let head = vec!["NAME".to_owned(), "ADDED".to_owned()];
        let rows = operators.iter().map(|o| vec![cell(&o["name"]), cell(&o["added"])]);
        say(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    } else if let Some(secret) = answer["token"].as_str() {
        say(secret);
        super::tell(format_args!("shown once; they put it into WARDEN_OPERATOR_TOKEN"));
    } else {
        say("revoked");
    }
    Ok(0)
}
