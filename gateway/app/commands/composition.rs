//! `warden composition`.

use super::ack::step;
use super::{config, data_dir, each, plain, say, table, tell};
use crate::cli::{Composition, Global};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use warden_adapters::compositions::{self, DOCUMENT_MAX, PROVIDER_KINDS, read};
use warden_adapters::govern::{Setup, load_catalogue};
use warden_adapters::http::compositions::shown;
use warden_core::composition::resolve::{from_manifest, resolve};

/// Checks, resolves, registers and shows compositions.
pub async fn run(global: &Global, composition: Composition) -> Outcome {
    match composition {
        Composition::Check { file } => check(global, &file),
        Composition::Resolve { file, overlay, manifest } => project(&file, overlay.as_deref(), manifest),
        Composition::Register { file } => register(global, &file).await,
        Composition::Show { composition } => show(global, composition).await,
    }
}

/// Reads a file, in JSON or YAML.
fn document(file: &Path) -> Result<Value, Failure> {
    let mut text = String::new();
    let shown = file.display();
    let limit = DOCUMENT_MAX as u64 + 1;
    let got = if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    got.map_err(|e| Failure::invalid(format!("`{shown}`: {e}")))?;
    if text.len() > DOCUMENT_MAX {
        return Err(Failure::invalid(format!("`{shown}`: a composition has at most {DOCUMENT_MAX} bytes")));
    }
    if text.trim_start().starts_with('{') {
        return compositions::document(text.as_bytes()).map_err(|e| Failure::invalid(format!("`{shown}`: {e}")));
    }
    serde_saphyr::from_str(&text).map_err(|e| Failure::invalid(format!("`{shown}`: {e}")))
}

/// The configuration, where there is one.
fn setup(global: &Global) -> Option<Setup> {
    config(global).ok().map(|config| config.setup)
}

fn check(global: &Global, file: &Path) -> Outcome {
    let setup = setup(global);
    let classes = setup.as_ref().map(Setup::classes).unwrap_or_default();
    match read(&document(file)?, &classes) {
        Ok(checked) => {
            let name = compositions::reference(&checked);
            let registered = setup.as_ref().and_then(|setup| compositions::load(&setup.data_dir, &classes).ok());
            if let Some(there) = registered.iter().flatten().find(|(known, _)| **known == name).map(|(_, there)| there)
                && there.checked.hash != checked.hash
            {
                let why = format!("`{name}` is registered with another content: give the changed one another version");
                return Err(Failure::invalid(why));
            }
            let idle = setup.and_then(|setup| {
                let catalogue = load_catalogue(&setup.data_dir).ok()?;
                Some(setup.idle_keys(&checked, &catalogue))
            });
            let shown = shown(&checked, idle.unwrap_or_default());
            if global.json {
                say(shown)
            } else {
                summary(&shown, "can be registered")
            }
            Ok(0)
        }
        Err(problems) if global.json => {
            let all: Vec<Value> =
                problems.iter().map(|p| json!({ "pointer": p.pointer, "message": p.message })).collect();
            say(json!({ "problems": all }));
            Ok(2)
        }
        Err(problems) => {
            problems
                .iter()
                .for_each(|problem| tell(format!("{}: {}", plain(&problem.pointer), plain(&problem.message))));
            let all =
                if problems.len() == 1 { "one problem".to_owned() } else { format!("{} problems", problems.len()) };
            tell(format!("it cannot be registered: {all}"));
            Ok(2)
        }
    }
}

fn summary(shown: &Value, what: &str) {
    let count = |name: &str| shown[name].as_array().map_or(0, Vec::len);
    let name = plain(shown["composition"].as_str().unwrap_or_default());
    let hash = plain(shown["hash"].as_str().unwrap_or_default());
    say(format!("{name} {what}: {} nodes, {hash}", count("nodes")));
    for one in each(&shown["shadowed"]) {
        let dropped = each(&one["dropped"]).filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
        let place = plain(one["pointer"].as_str().unwrap_or_default());
        say(format!(
            "shadowed: {place} ({}); dropped: {}",
            plain(one["slug"].as_str().unwrap_or_default()),
            if dropped.is_empty() { "nothing" } else { &dropped }
        ));
    }
    for one in each(&shown["widening_ignored"]) {
        let part = |name: &str| plain(one[name].as_str().unwrap_or_default());
        say(format!(
            "widening ignored: {} `{}` says {}, and {} is what it gets",
            part("pointer"),
            part("key"),
            part("said"),
            part("bounded")
        ));
    }
    for note in each(&shown["notes"]).filter_map(Value::as_str) {
        say(format!("note: {}", plain(note)));
    }
}

fn project(file: &Path, overlay: Option<&Path>, manifest: bool) -> Outcome {
    let given = document(file)?;
    let resolved = if manifest { from_manifest(&given).map_err(Failure::invalid)? } else { given };
    let overlay = overlay.map(document).transpose()?;
    let kinds = PROVIDER_KINDS.map(str::to_owned);
    let config = resolve(&resolved, overlay.as_ref(), &kinds).map_err(Failure::invalid)?;
    say(serde_json::to_string_pretty(&config).map_err(Failure::failed)?);
    Ok(0)
}

async fn register(global: &Global, file: &Path) -> Outcome {
    let document = document(file)?;
    let client = Client::need(&data_dir(global)?)?;
    // What is wrong is told here in full, as `check` tells it.
    if read(&document, &setup(global).map(|setup| setup.classes()).unwrap_or_default()).is_err() {
        return check(global, file);
    }
    let said = client.post("/v1/compositions", &document).await?;
    if global.json {
        say(&said);
    } else {
        summary(&said, if said["new"] == true { "is registered" } else { "was registered already" });
    }
    Ok(0)
}

async fn show(global: &Global, composition: Option<String>) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    let Some(name) = composition else {
        let all = client.get("/v1/compositions").await?;
        if global.json {
            say(&all);
            return Ok(0);
        }
        let mut rows = vec![["COMPOSITION", "NODES", "WORKERS", "HASH"].map(str::to_owned).to_vec()];
        for one in each(&all["compositions"]) {
            let part = |name: &str| plain(one[name].as_str().unwrap_or_default());
            let workers = each(&one["workers"]).filter_map(Value::as_str).map(plain);
            rows.push(vec![
                part("composition"),
                one["nodes"].to_string(),
                workers.collect::<Vec<_>>().join(", "),
                part("hash"),
            ]);
        }
        if rows.len() == 1 {
            tell("no composition is registered: `warden composition register FILE`")
        } else {
            say(table(&rows))
        }
        return Ok(0);
    };
    // `@` and `+` are a part of the name and of no path otherwise.
    let safe: String = name
        .split('@')
        .map(|part| part.split('+').map(step).collect::<Vec<_>>().join("%2B"))
        .collect::<Vec<_>>()
        .join("@");
    let one = client.get(&format!("/v1/compositions/{safe}")).await?;
    if global.json {
        say(&one);
        return Ok(0);
    }
    summary(&one, "is registered");
    for node in each(&one["nodes"]) {
        let path = node["path"].as_str().unwrap_or_default();
        let model = if node["model"].is_null() {
            String::new()
        } else {
            format!("  model {}", plain(&node["model"].to_string()))
        };
        say(format!("  {}{model}", if path.is_empty() { "(root)".to_owned() } else { plain(path) }));
    }
    Ok(0)
}
