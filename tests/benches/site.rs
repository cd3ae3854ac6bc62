//! A site of any size, made from a seed.

use serde_json::json;
use warden_core::catalogue::{Catalogue, Effect, Tool};
use warden_core::policy::layer::SourceFile;
use warden_core::policy::snapshot::{Source, Worker};

pub(crate) const SEED: u64 = 20_261_121;
pub(crate) const SERVERS: usize = 5;
pub(crate) const TOOLS: usize = 20;
pub(crate) const WORKERS: usize = 20;
pub(crate) const GROUPS: usize = 5;

/// SplitMix64: the same for the same seed, everywhere.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

/// 95 % scoped to one worker and one tool, 5 % to a group and a server, and five open ones at every size.
fn policies(size: usize, chance: &mut Chance) -> String {
    let mut text = String::new();
    for n in 0..size {
        let effect = if chance.below(10) == 0 { "forbid" } else { "permit" };
        let policy = if n < 5 {
            let (effect, condition) = [
                ("forbid", "context.dot_segments && !context.acknowledged"),
                ("forbid", "context.mode == Mode::\"dry_run\""),
                ("forbid", "context.secret_suspicions > 3"),
                ("forbid", "!context.unseen.isEmpty() && !context.acknowledged"),
                ("permit", "resource.effect == Effect::\"read\""),
            ][n];
            format!("{effect} (principal, action in Action::\"call_tool\", resource) when {{ {condition} }};")
        } else if chance.below(100) < 95 {
            format!(
                "{effect} (principal == Worker::\"w{}\", action == Action::\"s{}/t{}\", resource) when {{ context.input.path like \"/srv/{}/*\" }};",
                chance.below(WORKERS),
                chance.below(SERVERS),
                chance.below(TOOLS),
                chance.below(50)
            )
        } else {
            format!(
                "{effect} (principal in Group::\"g{}\", action in Action::\"call_tool\", resource in Server::\"s{}\") when {{ resource.effect == Effect::\"write\" && !context.dot_segments }};",
                chance.below(GROUPS),
                chance.below(SERVERS)
            )
        };
        text.push_str(&format!("@id(\"p{n}\") {policy}\n"));
    }
    text
}

pub(crate) fn source(size: usize, chance: &mut Chance) -> Source {
    let mut catalogue = Catalogue::default();
    for server in 0..SERVERS {
        for tool in 0..TOOLS {
            let definition = json!({ "name": format!("t{tool}"), "inputSchema": { "type": "object", "required": ["path"],
                "properties": { "path": { "type": "string" }, "lines": { "type": "integer" } } } });
            let effect = [Effect::Read, Effect::Write, Effect::Read, Effect::Irreversible][tool % 4];
            let tools = catalogue.servers.entry(format!("s{server}")).or_default();
            tools.insert(format!("t{tool}"), Tool { effect: Some(effect), ..Tool::listed(definition) });
        }
    }
    let workers = (0..WORKERS).map(|n| Worker {
        name: format!("w{n}"),
        groups: vec![format!("g{}", n % GROUPS)],
        composition: None,
        owner: None,
    });
    Source {
        site: vec![SourceFile { name: "bench.cedar".into(), text: policies(size, chance) }],
        workers: workers.collect(),
        servers: (0..SERVERS).map(|n| format!("s{n}")).collect(),
        catalogue,
        ..Source::default()
    }
}
