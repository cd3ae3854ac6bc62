//! `warden token`.

use super::{data_dir, say, table};
use crate::cli::{Global, Token};
use crate::client::Client;
use crate::exit::Outcome;
use serde_json::{Value, json};

/// Issues, lists and takes back workers' tokens, through the running gateway.
pub async fn run(global: &Global, token: Token) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    let answer = match token {
        Token::Issue { worker, role } => client.post("/v1/tokens", &json!({ "worker": worker, "role": role })).await?,
        Token::List => client.get("/v1/tokens").await?,
        Token::Revoke { id } => client.delete(&format!("/v1/tokens/{id}")).await?,
    };
    if global.json {
        say(&answer);
    } else if let Some(tokens) = answer["tokens"].as_array() {
        let cell = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows =
            tokens.iter().map(|t| vec![cell(&t["id"]), cell(&t["worker"]), cell(&t["role"]), cell(&t["issued"])]);
        let head = ["ID", "WORKER", "ROLE", "ISSUED"].map(str::to_owned).to_vec();
        say(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    } else if let Some(secret) = answer["token"].as_str() {
        say(secret);
        super::tell(format_args!("shown once; id {}", answer["id"].as_str().unwrap_or_default()));
    } else {
        say("revoked");
    }
    Ok(0)
}
