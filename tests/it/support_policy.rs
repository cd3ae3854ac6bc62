//! Snapshots from policy text, and facts to ask them about.

use serde_json::json;
use std::collections::BTreeMap;
use warden_core::catalogue::input::Input;
use warden_core::catalogue::ty::{Extra, Field, Ty};
use warden_core::catalogue::{Catalogue, Effect, Tool};
use warden_core::facts::{Facts, Mode};
use warden_core::policy::Problems;
use warden_core::policy::layer::SourceFile;
use warden_core::policy::level::{ByAction, Levels};
use warden_core::policy::shape::AppShape;
use warden_core::policy::snapshot::{Snapshot, Source, Worker};
use warden_core::secrets::Finding;

/// Two servers, each with tools `read`, `write` and `wipe` that take a `path` and a `count`.
pub fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::default();
    for server in ["alpha", "beta"] {
        for (name, effect) in [("read", Some(Effect::Read)), ("write", Some(Effect::Write)), ("wipe", None)] {
            let definition = json!({ "name": name, "inputSchema": { "type": "object", "required": ["path", "count"],
                "properties": { "path": { "type": "string" }, "count": { "type": "integer" } } } });
            let tool = Tool { effect, ..Tool::listed(definition) };
            catalogue.servers.entry(server.into()).or_default().insert(name.into(), tool);
        }
    }
    catalogue
}

/// An app `desk`, whose sessions are started with a `region` and remember whether something was `seen` and a `sum`.
fn desk() -> AppShape {
    let region = Field { ty: Ty::Text(None), required: false, nullable: false };
    AppShape {
        name: "desk".into(),
        overrides: Some(Ty::Record(BTreeMap::from([("region".to_owned(), region)]), Extra::Refuse)),
        facts: BTreeMap::from([("seen".to_owned(), true), ("sum".to_owned(), false)]),
        ..AppShape::default()
    }
}

/// Workers `ann` (in `Group::"staff"`), `bob`, and `eve`, who is bound to composition `tree` where there is one.
pub fn source(site: &str, composition: Option<&str>) -> Source {
    let file = |text: &str| vec![SourceFile { name: "test.cedar".into(), text: text.into() }];
    let worker = |name: &str, groups: &[&str], composition: Option<&str>| Worker {
        name: name.into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        composition: composition.map(str::to_owned),
        owner: None,
    };
    Source {
        inboxes: vec![],
        site: file(site),
        compositions: composition.map(|text| BTreeMap::from([("tree".to_owned(), file(text))])).unwrap_or_default(),
        workers: vec![
            worker("ann", &["staff"], None),
            worker("bob", &[], None),
            worker("eve", &[], composition.map(|_| "tree")),
        ],
        servers: vec!["alpha".into(), "beta".into()],
        engines: vec![],
        reserved_keys: vec![],
        catalogue: catalogue(),
        levels: Levels::default(),
        results: ByAction::default(),
        standings: BTreeMap::new(),
        apps: vec![desk()],
        ..Source::default()
    }
}

pub fn snapshot(site: &str, composition: Option<&str>) -> Result<Snapshot, Problems> {
    Snapshot::build(source(site, composition))
}

/// Facts for a target; `input` as its arguments where it takes any.
pub fn facts(findings: usize, dot_segments: bool, unseen: &[&str], input: Input) -> Facts {
    let mut input = input;
    input.unseen.extend(unseen.iter().map(|pointer| (*pointer).to_owned()));
    Facts {
        acknowledged: false,
        mode: Mode::Execute,
        findings: vec![
            Finding { format: "test".into(), at: "/a".into(), fingerprint: None, via: Vec::new() };
            findings
        ],
        suspicions: Vec::new(),
        dot_segments,
        budget: None,
        task: None,
        session: None,
        input,
    }
}
