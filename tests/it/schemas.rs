//! Records and the operator plane as `schemas/` describe them, and records of all versions as they were written.

use crate::support::{PERMIT_ALL, Site, records};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use warden_core::journal::record::{Record, Unreadable, VERSION};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn schema(version: u8) -> jsonschema::Validator {
    let text = read(&format!("schemas/records/v{version}.schema.json"));
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

#[test]
fn records_of_every_version_are_read_and_are_as_their_schema_says() {
    let mut kinds = BTreeSet::new();
    for version in 1..=VERSION {
        let schema = schema(version);
        for line in read(&format!("tests/it/golden/records/v{version}.ndjson")).lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(
                schema.is_valid(&value),
                "v{version}: {line}: {:?}",
                schema.validate(&value).err().map(|e| e.to_string())
            );
            let record = Record::from_bytes(line.as_bytes()).unwrap_or_else(|e| panic!("v{version}: {e}: {line}"));
            assert_eq!(record.v, version);
            kinds.insert(record.body.kind());
            // What is written back is the same, byte for byte: member order is part of the format.
            assert_eq!(serde_json::to_string(&record).unwrap(), line);
            let mut more = value.clone();
            more["something"] = json!(1);
            assert!(!schema.is_valid(&more), "v{version}: a member nobody knows: {line}");
            let other = if version == 1 { 2 } else { 1 };
            assert!(!self::schema(other).is_valid(&value), "v{version} is not v{other}");
        }
    }
    let all = [
        "ack",
        "budget",
        "decision",
        "delegate",
        "hold",
        "inbox",
        "key",
        "operator",
        "outcome",
        "policy",
        "read",
        "retention",
        "session",
        "state",
        "task",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn a_record_of_a_newer_version_says_so_whatever_it_holds() {
    for text in [r#"{"v":8,"ts":"2026-11-21T08:00:00Z","kind":"thought","x":1}"#, r#"{"v":300,"whatever":[]}"#] {
        let said = Record::from_bytes(text.as_bytes()).unwrap_err();
        assert!(matches!(said, Unreadable::Version(8 | 300)), "{said}");
    }
    assert!(matches!(Record::from_bytes(b"{}").unwrap_err(), Unreadable::Json(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_writes_and_answers_is_as_the_schemas_say() {
    let site = Site::odd();
    site.policies(PERMIT_ALL);
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    worker.call("echo", json!({ "text": "a" })).await;
    worker.call("unknown_tool", json!({})).await;
    site.ok(&["audit", "hold", "add", "h"]);
    let spec: Value = serde_json::from_str(&read("schemas/operator.openapi.json")).unwrap();
    let http = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    let token = std::fs::read_to_string(site.data().join("operator.token")).unwrap();
    for (path, operations) in spec["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(_, o)| o["operationId"].is_string())
        {
            let url = format!(
                "http://localhost{}",
                path.replace("{id}", "none")
                    .replace("{name}", "none")
                    .replace("{*name}", "none")
                    .replace("{fingerprint}", "none")
                    .replace("{agent}", "none")
                    .replace("{reference}", "none")
            );
            let request = http.request(method.to_uppercase().parse().unwrap(), &url).bearer_auth(token.trim());
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16().to_string();
            // Each is there, and answers a bare request with a status that the document knows.
            assert!(operation["responses"].get(&status).is_some(), "{method} {path}: {status}");
            let text = answer.text().await.unwrap();
            assert!(!text.contains("no_such_path") && !text.contains("method_not_allowed"), "{method} {path}: {text}");
            if status.starts_with('4') {
                let error: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"));
                assert!(error["error"]["code"].is_string() && error["error"]["message"].is_string());
            }
        }
    }
    // And nothing is there that the document does not know.
    let sources =
        ["operator", "audit", "secrets", "budgets", "acks", "hub", "inbox", "sessions/operator", "compositions"]
            .map(|name| read(&format!("gateway/adapters/src/http/{name}.rs")))
            .concat();
    let routed = sources.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for path in routed {
        let path = path.replace("{*", "{");
        assert!(spec["paths"].get(&path).is_some(), "`{path}` is not in the document");
    }
    running.stop();
    let schema = schema(VERSION);
    for record in records(&site.data()) {
        let value = serde_json::to_value(&record).unwrap();
        assert!(schema.is_valid(&value), "{value}: {:?}", schema.validate(&value).err().map(|e| e.to_string()));
    }
}
