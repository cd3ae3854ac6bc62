//! `warden init`.

use super::say;
use crate::exit::{Failure, Outcome};
use std::path::Path;
use warden_adapters::files::{DataDir, write_private};
use warden_adapters::identity::{Identities, Role};
use warden_adapters::keys::Keys;
use warden_adapters::world::now;

/// The starter policies, compiled in.
pub const STARTER: [(&str, &str); 10] = [
    ("acknowledge.cedar", include_str!("../../../policies/site/acknowledge.cedar")),
    ("attended.cedar", include_str!("../../../policies/site/attended.cedar")),
    ("connect.cedar", include_str!("../../../policies/site/connect.cedar")),
    ("engines.cedar", include_str!("../../../policies/site/engines.cedar")),
    ("inbox.cedar", include_str!("../../../policies/site/inbox.cedar")),
    ("read.cedar", include_str!("../../../policies/site/read.cedar")),
    ("secrets.cedar", include_str!("../../../policies/site/secrets.cedar")),
    ("server_requests.cedar", include_str!("../../../policies/site/server_requests.cedar")),
    ("sessions.cedar", include_str!("../../../policies/site/sessions.cedar")),
    ("write.cedar", include_str!("../../../policies/site/write.cedar")),
];

/// What `init` leaves in the configuration file.
fn yaml(worker: &str) -> String {
    format!(
        r#"# yaml-language-server: $schema=./data/config.schema.json
# The gateway's configuration. Every key: docs/operations.md, or the schema above.

# Where workers reach Warden.
listen: 127.0.0.1:7171

# A worker without a `uid` counts as running under Warden's own user id. Code that such a worker runs could read the
# operators' credentials: acknowledgements then hold against the model, not against that code. To do better, run
# workers under their own user ids, say so with `uid:`, and take this line out. See docs/security-model.md.
same_uid: true

workers:
  {worker}: {{ groups: [assistants] }}

# The MCP servers, each started by Warden. Credentials belong into `env`, as ${{NAME}}.
servers: {{}}
#  files:
#    command: [npx, -y, "@modelcontextprotocol/server-filesystem", /srv/files]

# The engines: LLM providers that workers reach through Warden, with Warden's key. See docs/engines.md.
engines: {{}}
#  openai: {{ kind: openai, key: "${{OPENAI_API_KEY}}", models: ["gpt-*"] }}
#  claude: {{ kind: anthropic, key: "${{ANTHROPIC_API_KEY}}", models: ["claude-*"] }}

# The budgets. A worker without `budget: NAME` has no ceiling.
budgets: {{}}
#  team: {{ limits: [ {{ tokens: 2000000, per: day }} ] }}
"#
    )
}

/// Makes everything a first `warden serve` needs. Overwrites nothing.
pub fn run(dir: &Path, operator: &str, worker: &str) -> Outcome {
    let file = dir.join("warden.yaml");
    if file.exists() {
        return Err(Failure::no(format!("`{}` is there already: nothing was changed", file.display())));
    }
    let fine = |text: &str| {
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if let Some(bad) = [operator, worker].into_iter().find(|name| !fine(name)) {
        return Err(Failure::invalid(format!("`{}`: use 1 to 64 letters, digits, `.`, `_`, `-`", bad.escape_debug())));
    }
    std::fs::create_dir_all(dir).map_err(|e| Failure::failed(format!("cannot create `{}`: {e}", dir.display())))?;
    let data = dir.join("data");
    let opened = DataDir::create(&data)?;
    Keys::create(opened.path())?;
    let mut identities = Identities::load(opened.path())?;
    let now = now().to_string();
    let operator_token = identities.add_operator(operator, &now)?;
    let (worker_token, _) = identities.issue(worker, Role::Worker, &now)?;
    identities.save(opened.path())?;
    write_private(&data.join("operator.token"), format!("{operator_token}\n").as_bytes())?;
    write_private(&data.join("config.schema.json"), crate::config::json_schema().as_bytes())?;
    write_private(&dir.join("worker.token"), format!("{worker_token}\n").as_bytes())?;
    let policies = dir.join("policies");
    std::fs::create_dir_all(&policies)?;
    for (name, text) in STARTER {
        let path = policies.join(name);
        if !path.exists() {
            std::fs::write(&path, text)?;
        }
    }
    std::fs::write(&file, yaml(worker))?;
    say(format!(
        "Made in {}:\n  warden.yaml     the configuration: add your servers there\n  policies/       starter policies: reads run, writes and worse are held, the rest is denied\n  data/           journal, keys, operator `{operator}` (data/operator.token)\n  worker.token    the token of worker `{worker}`\n\nNext:\n  1. add a server to {}\n  2. warden --config {} serve\n  3. let your MCP client start: warden --config {} mcp SERVER\n  or name an engine there, and point your LLM SDK at http://127.0.0.1:7171/v1 with the worker's token as its key",
        dir.display(),
        file.display(),
        file.display(),
        file.display()
    ));
    Ok(0)
}
