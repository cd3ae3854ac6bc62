//! The gateway of Portkey, from npm: one process of Node. It has no credential of its own; clients say in headers where
//! the provider is, and bring its key.

use super::{Kind, Place, Started, Target};
use crate::Outcome;
use crate::answers::KEY;
use crate::ask::Door;
use crate::process::{Process, command};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// It would listen on all addresses, and whoever reaches it can have it ask any host.
const LOOPBACK: &str = r#"import { Server } from "node:net";
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, host, ...rest) {
  return listen.call(this, port, host ?? "127.0.0.1", ...rest);
};
"#;

/// Serves.
pub(super) async fn start(place: &mut Place) -> Outcome<Started> {
    let Some(peers) = &place.peers else {
        return Ok(Started::Absent("no folder is named with --peers".to_owned()));
    };
    let package = peers.join("portkey/node_modules/@portkey-ai/gateway");
    let Ok(package) = package.canonicalize() else {
        return Ok(Started::Absent(format!("`{}` is not there", package.display())));
    };
    let (loopback, port) = (place.dir.join("loopback.mjs"), place.ports.next()?);
    std::fs::write(&loopback, LOOPBACK)?;
    let mut serve = command(Path::new("node"), &place.dir);
    serve.env("NODE_ENV", "production").arg("--import").arg(&loopback).arg(package.join("build/start-server.js"));
    serve.args(["--headless", &format!("--port={port}")]);
    let process = Process::start(serve, "portkey", &place.dir, port).await?;
    let door =
        Door::new(port, KEY)?.header("x-portkey-provider", "openai")?.header("x-portkey-custom-host", &place.url())?;
    let target = Target { kind: Kind::Portkey, door, process: Arc::new(process) };
    Ok(Started::Runs(target, format!("{}, one process", version(&package)?)))
}

fn version(package: &Path) -> Outcome<String> {
    let package: Value = serde_json::from_slice(&std::fs::read(package.join("package.json"))?)?;
    Ok(package["version"].as_str().unwrap_or("?").to_owned())
}
