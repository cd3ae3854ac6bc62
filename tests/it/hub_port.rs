//! What every hub owes, whichever way it is reached: one suite for both adapters.

use crate::support::Site;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use warden_adapters::hub::embedded::{Embedded, NotSent};
use warden_adapters::hub::remote::RemoteHub;
use warden_adapters::hub::{Hub, HubError, Progress, Sending, Write};
use warden_adapters::mcp::server::HttpServer;

fn sending(number: usize) -> Sending {
    let text = |text: &str| text.to_owned();
    Sending {
        to: text("ops"),
        from: text("asker"),
        subject: format!("s{number}"),
        body: text("b"),
        attachments: vec![],
    }
}

fn key(key: &str) -> Write<'_> {
    Write { key, fence: None }
}

/// `hub` has 60 unread messages of `asker` to `ops`.
async fn owes(hub: &dyn Hub) {
    let first = hub.unread("ops", None).await.unwrap();
    let id = |value: &serde_json::Value| value["id"].as_str().unwrap().to_owned();
    assert_eq!(first.messages.len(), 50);
    let rest = hub.unread("ops", first.next.as_deref()).await.unwrap();
    assert_eq!((rest.messages.len(), rest.next), (10, None));
    assert!(hub.unread("nobody", None).await.unwrap().messages.is_empty());
    let (one, other) = (id(&first.messages[0]), id(&first.messages[1]));

    // The same write again changes nothing; another one under its key is refused.
    for _ in 0..3 {
        hub.reply(&one, "answer", key("k1")).await.unwrap();
    }
    assert_eq!(hub.unread("asker", None).await.unwrap().messages.len(), 1, "to the sender of record, once");
    assert_eq!(hub.reply(&one, "another answer", key("k1")).await, Err(HubError::Refused(409)));
    assert_eq!(hub.mark_read(&one, key("k1")).await, Err(HubError::Refused(409)));
    assert_eq!(hub.reply("../../etc/passwd", "x", key("k2")).await, Err(HubError::Refused(404)));
    for _ in 0..2 {
        hub.mark_read(&one, key("k3")).await.unwrap();
    }
    assert_eq!(id(&hub.unread("ops", None).await.unwrap().messages[0]), other);
    let note = Progress { message: one.clone(), event: "reply".into(), text: None, run: "r".into() };
    for _ in 0..2 {
        hub.progress("ops", &note, key("k4")).await.unwrap();
    }

    // One at a time, and whoever had it before writes nothing any more.
    let lease = hub.lease("ops", "a", 60).await.unwrap();
    assert_eq!(hub.lease("ops", "a", 60).await.unwrap().token, lease.token, "renewed");
    assert_eq!(hub.lease("ops", "b", 60).await, Err(HubError::Leased));
    hub.release("ops", "b").await.unwrap();
    assert_eq!(hub.lease("ops", "b", 60).await, Err(HubError::Leased), "only its holder gives it back");
    hub.release("ops", "a").await.unwrap();
    let next = hub.lease("ops", "b", 60).await.unwrap();
    assert!(next.token > lease.token);
    let write = |fence| Write { key: "k5", fence: Some(fence) };
    assert_eq!(hub.mark_read(&other, write(lease.token)).await, Err(HubError::Refused(412)));
    hub.mark_read(&other, write(next.token)).await.unwrap();
}

#[tokio::test]
async fn w09_the_embedded_hub_owes_what_every_hub_owes_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Embedded::open(dir.path()).unwrap();
    for number in 0..60 {
        hub.send(sending(number), &format!("send{number}")).unwrap();
    }
    let again = hub.send(sending(0), "send0").unwrap();
    assert_eq!(hub.messages("ops", true).len(), 60);
    assert!(matches!(hub.send(sending(1), "send0"), Err(NotSent::OtherKey)));
    assert!(matches!(hub.send(Sending { to: "\u{1b}[2J".into(), ..sending(0) }, "x"), Err(NotSent::Invalid(_))));
    owes(&hub).await;
    drop(hub);
    // What was cut off at the end was told to nobody; what is no event in the middle is not guessed at.
    let file = dir.path().join("hub/events.ndjson");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("{\"event\":\"sent\",\"at\":");
    std::fs::write(&file, &text).unwrap();
    let hub = Embedded::open(dir.path()).unwrap();
    assert_eq!(
        (hub.messages("ops", false).len(), hub.messages("ops", true).len(), hub.notes("ops").len()),
        (60, 58, 1)
    );
    assert_eq!(hub.send(sending(0), "send0").unwrap().id, again.id);
    drop(hub);
    std::fs::write(&file, format!("nonsense\n{text}")).unwrap();
    let error = Embedded::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("line 1 is no event"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w09_a_hub_at_a_url_owes_the_same() {
    let site = Site::temporary(&json!({}));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    site.configure(
        &json!({}),
        &json!({ "workers": { "assistant": {}, "ops": {} }, "inbox": { "worker": "ops" }, "operator_listen": format!("127.0.0.1:{port}") }),
    );
    let running = site.serve();
    let token = std::fs::read_to_string(site.data().join("operator.token")).unwrap();
    let http = reqwest::Client::new();
    for number in 0..60 {
        let sent = http
            .post(format!("http://127.0.0.1:{port}/v1/hub/messages"))
            .bearer_auth(token.trim())
            .header("idempotency-key", format!("send{number}"))
            .json(&sending(number));
        assert_eq!(sent.send().await.unwrap().status(), 201);
    }
    let headers = BTreeMap::from([("authorization".to_owned(), format!("Bearer {}", token.trim()))]);
    let server = HttpServer::new(&format!("http://127.0.0.1:{port}/v1/hub"), &headers, None).unwrap();
    owes(&RemoteHub::new(Arc::new(server))).await;
    running.stop();
}

#[test]
fn the_interface_of_a_hub_is_what_the_operator_plane_serves() {
    let read = |name: &str| -> serde_json::Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let operations = |spec: &serde_json::Value, prefix: &str| {
        let mut all = Vec::new();
        for (path, operations) in spec["paths"].as_object().unwrap() {
            let Some(path) = path.strip_prefix(prefix) else { continue };
            let methods =
                operations.as_object().unwrap().keys().filter(|m| ["get", "post", "delete"].contains(&m.as_str()));
            all.extend(methods.map(|method| format!("{method} {path}")));
        }
        all.sort();
        all
    };
    let hub = operations(&read("schemas/hub.openapi.json"), "");
    let served = operations(&read("schemas/operator.openapi.json"), "/v1/hub");
    assert!(hub.len() >= 6 && hub.iter().all(|operation| served.contains(operation)), "{hub:?} {served:?}");
}
