//! What people who write policies are told: check, test, prove, diff, new, fmt.

use crate::support::{Site, number, warden};
use expect_test::expect;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use warden::commands::init::STARTER;
use warden_core::catalogue::{Catalogue, hash_of};
use warden_core::policy::layer::SourceFile;
use warden_core::policy::snapshot::{Snapshot, Source};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `warden policy …`, somewhere without a configuration.
fn policy(args: &[&str]) -> Output {
    let nowhere = tempfile::tempdir().unwrap();
    warden().current_dir(nowhere.path()).arg("policy").args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ended(output: &Output, code: i32) -> String {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// The shipped policies, to be changed.
fn copied() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    copy(&root().join("policies"), temp.path());
    temp
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn replace(file: &Path, what: &str, with: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(what), "{what} in {text}");
    std::fs::write(file, text.replace(what, with)).unwrap();
}

#[test]
fn the_starter_loads_before_any_server_is_configured() {
    let site = STARTER.map(|(name, text)| SourceFile { name: name.into(), text: text.into() });
    Snapshot::build(Source { site: site.into(), ..Source::default() }).unwrap();
}

#[test]
fn the_pinned_catalogue_says_what_it_holds() {
    for folder in ["policies", "tests/policies/hard", "tests/policies/both_sides"] {
        let text = std::fs::read_to_string(root().join(folder).join("cases/catalogue.json")).unwrap();
        let catalogue: Catalogue = serde_json::from_str(&text).unwrap();
        for tool in catalogue.servers.values().flat_map(|tools| tools.values()) {
            assert_eq!(tool.hash, hash_of(&tool.definition), "{folder}");
        }
    }
}

#[test]
fn s1_25_shipped_policies_hold_their_cases_and_no_mutant_of_the_charter_survives() {
    let shipped = root().join("policies");
    let output = policy(&["test", path(&shipped), "--mutate", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    assert_eq!((told["failed"].as_array().unwrap().len(), &told["matrix"]), (0, &json!("same")));
    assert!(told["cases"].as_u64().unwrap() >= 40 && told["mutants"]["tried"].as_u64().unwrap() >= 70);
    for covered in told["coverage"].as_array().unwrap() {
        let seen = covered["matched"].as_u64().unwrap() > 0
            && covered["clauses"].as_array().unwrap().iter().all(|clause| clause["decided"].as_u64().unwrap() > 0);
        assert!(seen, "{covered}");
    }
    for survivor in told["mutants"]["survived"].as_array().unwrap() {
        assert!(survivor["rule"].as_str().unwrap().starts_with("site/"), "{survivor}");
    }
    assert!(!ended(&policy(&["check", path(&shipped), "--deny-warnings"]), 0).contains("warning"));
    ended(&policy(&["fmt", path(&shipped), "--check"]), 0);
}

#[test]
fn a_charter_that_loses_a_clause_fails_its_cases() {
    let temp = copied();
    let attended = temp.path().join("charter/attended.cedar");
    replace(&attended, "unless { context.acknowledged };\n\n@id(\"production", ";\n\n@id(\"production");
    let charter = temp.path().join("charter");
    let text = ended(&policy(&["test", path(temp.path()), "--charter", path(&charter)]), 2);
    assert!(text.contains("FAILED  an irreversible call runs when acknowledged"), "{text}");
}

#[test]
fn suites_of_what_breaks_such_tools_pass() {
    for (folder, cases) in [("hard", 200), ("both_sides", 60)] {
        let output = policy(&[
            "test",
            path(&root().join("tests/policies").join(folder)),
            "--mutate",
            "--with-charter",
            "--json",
        ]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
        assert_eq!(output.status.code(), Some(0), "{folder}: {}", told["failed"]);
        assert!(told["cases"].as_u64().unwrap() >= cases);
        let survivors = told["mutants"]["survived"].as_array().unwrap();
        assert!(survivors.iter().all(|s| !s["rule"].as_str().unwrap().starts_with("charter/")), "{survivors:?}");
    }
}

#[test]
fn x05_what_must_not_load_is_refused_and_says_what_and_where() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("tests/policies/refused")).unwrap() {
        let folder = entry.unwrap().path();
        let expected = std::fs::read_to_string(folder.join("expect.txt")).unwrap();
        let text = ended(&policy(&["check", path(&folder), "--error-format", "plain"]), 3);
        assert!(text.contains(expected.trim()), "{}: {text}\nshould say {expected}", folder.display());
        count += 1;
    }
    assert!(count >= 40, "{count}");
}

#[test]
fn x11_problems_are_shown_with_their_place_in_every_format() {
    let temp = copied();
    std::fs::write(
        temp.path().join("site/typo.cedar"),
        "// A typo.\n@id(\"typo\")\npermit (principal, action == Action::\"files/read\", resource)\nwhen { context.input.pth like \"/srv/*\" };\n",
    )
    .unwrap();
    let check = |format: &str| ended(&policy(&["check", path(temp.path()), "--error-format", format]), 3);
    let plain = check("plain");
    assert!(plain.contains("site/typo.cedar:4:8: invalid: "), "{plain}");
    let problem: Value = serde_json::from_str(check("json").lines().next().unwrap()).unwrap();
    assert_eq!(
        (&problem["line"], &problem["code"], &problem["policy"]),
        (&json!(4), &json!("invalid"), &json!("site/typo"))
    );
    assert!(problem["span"]["offset"].as_u64().unwrap() > 0);
    expect![[r#"
        invalid

          × attribute `input.pth` in context for Action::"files/read" not found (policy `site/typo`)
           ╭─[site/typo.cedar:4:8]
         3 │ permit (principal, action == Action::"files/read", resource)
         4 │ when { context.input.pth like "/srv/*" };
           ·        ─────────────────
           ╰────
          help: did you mean `path`?

        error: 1 problem
    "#]]
    .assert_eq(&check("human"));
}

#[test]
fn what_is_hardly_meant_is_a_warning_and_fails_only_when_asked() {
    let temp = copied();
    std::fs::write(
        temp.path().join("site/odd.cedar"),
        r#"@id("anybody") permit (principal, action == Action::"listen", resource);
@id("idle") permit (principal == Worker::"demo", action == Action::"change_schedule", resource);
@id("told_nobody") @advice("never shown") permit (principal == Worker::"demo", action == Action::"files/read", resource);
@id("in_vain") permit (principal == Worker::"demo", action == Action::"files/delete", resource);
"#,
    )
    .unwrap();
    let text = ended(&policy(&["check", path(temp.path()), "--error-format", "plain"]), 0);
    for (code, rule) in [
        ("unscoped_permit", "odd.cedar:1"),
        ("dead_rule", "odd.cedar:2"),
        ("unreachable_advice", "odd.cedar:3"),
        ("shadowed_by_charter", "odd.cedar:4"),
    ] {
        let found = text.lines().any(|line| line.contains(rule) && line.contains("warning") && line.contains(code));
        assert!(found, "{code} at {rule} in {text}");
    }
    ended(&policy(&["check", path(temp.path()), "--deny-warnings"]), 3);
}

#[test]
fn a_file_of_cases_in_another_shape_says_where_and_what_to_write() {
    let temp = copied();
    let file = temp.path().join("cases/bad.json");
    for (text, place, help) in [
        ("{}", "bad.json:1:", "one JSON array"),
        ("[\n  {\"name\": \"a\",\n   \"decison\": \"deny\"}]", "bad.json:3:", "unknown field `decison`"),
        ("[{\"name\": \"a\", \"request\": {}, \"decision\": \"perhaps\"}]", "bad.json:1:", "missing field `principal`"),
        ("[{\"name\": 1}]", "bad.json:1:", "expected a string"),
    ] {
        std::fs::write(&file, text).unwrap();
        let told = ended(&policy(&["test", path(temp.path())]), 3);
        assert!(told.contains(place) && told.contains(help), "{text}: {told}");
    }
    // What fits the form and not the schema fails as a case, with the rest still told.
    for (request, why) in [
        (
            json!({ "principal": "Worker::\"dmeo\"", "action": "Action::\"files/read\"", "resource": "Tool::\"files/read\"", "context": { "input": { "path": "/a" } } }),
            "did you mean `demo`?",
        ),
        (
            json!({ "principal": "demo", "action": "Action::\"files/read\"", "resource": "Tool::\"files/read\"" }),
            "write `Type::",
        ),
        (
            json!({ "principal": "Worker::\"demo\"", "action": "Action::\"files/red\"", "resource": "Tool::\"files/read\"" }),
            "files/red",
        ),
        (
            json!({ "principal": "Worker::\"demo\"", "action": "Action::\"files/read\"", "resource": "Tool::\"files/read\"", "context": { "input": { "path": 1 } } }),
            "does not fit the schema",
        ),
    ] {
        std::fs::write(&file, json!([{ "name": "the bad one", "request": request, "decision": "deny" }]).to_string())
            .unwrap();
        let told = ended(&policy(&["test", path(temp.path())]), 2);
        assert!(told.contains("FAILED  the bad one") && told.contains(why) && told.contains("1 failed"), "{told}");
    }
}

#[test]
fn the_matrix_shows_a_change_as_a_difference() {
    let temp = copied();
    std::fs::write(
        temp.path().join("site/scratch.cedar"),
        "@id(\"scratch\") permit (principal, action == Action::\"files/write\", resource) when { context.input.path like \"/srv/*\" };",
    )
    .unwrap();
    // Nothing but the matrix notices.
    for name in ["charter.json", "site.json"] {
        std::fs::remove_file(temp.path().join("cases").join(name)).unwrap();
    }
    let text = ended(&policy(&["test", path(temp.path())]), 2);
    assert!(text.contains("-files/write    ?") && text.contains("+files/write    ✔?"), "{text}");
    ended(&policy(&["test", path(temp.path()), "--update"]), 0);
    assert!(ended(&policy(&["test", path(temp.path())]), 0).contains("matrix: as in"));
}

/// SplitMix64: the same for the same seed, everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

/// Site policies over the shipped catalogue.
fn random_policies(count: usize, seed: u64) -> String {
    let (mut chance, mut text) = (Chance(seed), String::new());
    for n in 0..count {
        let permit = chance.below(100) < 65;
        let principal =
            chance.one(&["principal", "principal == Worker::\"demo\"", "principal in Group::\"assistants\""]);
        let tool = chance.one(&["delete", "publish", "read", "write"]);
        let (action, has_input, is_call) = match chance.below(5) {
            0 => ("action".to_owned(), false, false),
            1 => ("action in Action::\"call_tool\"".to_owned(), false, true),
            2 => ("action in Action::\"files/*\"".to_owned(), false, true),
            _ => (format!("action == Action::\"files/{tool}\""), true, true),
        };
        let mut all = Vec::new();
        if has_input {
            let form = chance.one(&["like \"/srv/N/*\"", "== \"/a/N\"", "like \"*/N/*.md\""]);
            all.push(format!("context.input.path {}", form.replace('N', &n.to_string())));
        }
        if is_call && chance.below(2) == 0 {
            all.push(format!(
                "resource.effect == Effect::\"{}\"",
                chance.one(&["read", "write", "irreversible", "production"])
            ));
        }
        if chance.below(3) == 0 || !permit && all.is_empty() {
            all.push(format!("context.secret_suspicions < {n}"));
        }
        if permit && chance.below(3) == 0 {
            all.push("context.acknowledged".into());
        }
        let when = if all.is_empty() { String::new() } else { format!(" when {{ {} }}", all.join(" && ")) };
        let unless = if !permit && chance.below(2) == 0 { " unless { context.acknowledged }" } else { "" };
        let effect = if permit { "permit" } else { "forbid" };
        writeln!(text, "@id(\"r{n}\") {effect} ({principal}, {action}, resource){when}{unless};").unwrap();
    }
    text
}

#[test]
fn w02_the_charter_is_proved_to_hold_whatever_operators_write() {
    let temp = copied();
    for count in [0, number("WARDEN_RANDOM_POLICIES", 100)] {
        std::fs::write(temp.path().join("site/random.cedar"), random_policies(count, 7)).unwrap();
        let output = policy(&["prove", path(temp.path()), "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
        let open: Vec<&Value> = told["rows"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["kind"] == "theorem" && row["state"] != "proved")
            .collect();
        assert_eq!((output.status.code(), open.len(), &told["proved"]), (Some(0), 0, &json!(true)), "{open:#?}");
        let rows =
            |theorem: &str| told["rows"].as_array().unwrap().iter().filter(|row| row["theorem"] == theorem).count();
        assert_eq!(rows("never: a secret value passes"), 38, "every environment");
        assert_eq!(rows("never: an irreversible tool runs unattended"), 5);
        assert_eq!(rows("the charter lets something pass"), 34);
        assert!(rows("acknowledging never takes away") >= 19);
    }
}

#[test]
fn w02_a_charter_weakened_on_purpose_fails_with_a_request_that_the_engine_allows() {
    for (file, what, with, theorem) in [
        (
            "attended.cedar",
            "when { resource.effect == Effect::\"irreversible\" }",
            "when { resource.effect == Effect::\"irreversible\" }\nunless { resource.open_world }",
            "never: an irreversible tool runs unattended",
        ),
        ("secrets.cedar", "!= 0", "> 1", "never: a secret value passes"),
        (
            "attended.cedar",
            "when { context.dot_segments }",
            "when { context.dot_segments && context.secret_suspicions == 0 }",
            "never: a path with `..` passes unattended",
        ),
        (
            "reserved.cedar",
            "action == Action::\"change_policy\"",
            "action == Action::\"change_schedule\"",
            "never: a worker governs",
        ),
        (
            "secrets.cedar",
            "context.secret_findings != 0",
            "9223372036854775807 + context.secret_findings > 0",
            "no rule of the charter fails",
        ),
        ("secrets.cedar", "context.secret_findings != 0", "true", "the charter lets something pass"),
    ] {
        let temp = copied();
        let charter = temp.path().join("charter");
        replace(&charter.join(file), what, with);
        let output = policy(&["prove", path(temp.path()), "--charter", path(&charter), "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
        assert_eq!((output.status.code(), &told["proved"]), (Some(2), &json!(false)));
        let refuted =
            told["rows"].as_array().unwrap().iter().find(|row| row["theorem"] == theorem && row["state"] == "refuted");
        let refuted = refuted.unwrap_or_else(|| panic!("{theorem}: {told:#}"));
        if theorem != "the charter lets something pass" {
            // Of workers and tools that there are, where those can show it.
            assert_eq!(refuted["witness"]["principal"], "Worker::\"demo\"", "{refuted:#}");
        }
        let text = ended(&policy(&["prove", path(temp.path()), "--charter", path(&charter)]), 2);
        assert!(text.contains(&format!("NOT TRUE  {theorem}")), "{text}");
    }
}

/// A program in place of the solver.
fn solver(script: &str) -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("solver");
    std::fs::write(
        &file,
        format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'This is cvc5 version 0'; exit; fi\n{script}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
    (temp, file)
}

#[test]
fn a_solver_that_hangs_lies_dies_or_is_missing_proves_nothing() {
    let shipped = root().join("policies");
    let prove = |program: &Path| {
        let nowhere = tempfile::tempdir().unwrap();
        let mut command = warden();
        command.current_dir(nowhere.path()).env("CVC5", program);
        command
            .args(["policy", "prove", path(&shipped), "--solver-limit", "1", "--json", "--only", "reserved state"])
            .output()
            .unwrap()
    };
    for (what, script) in [
        ("hangs", "exec sleep 600"),
        ("always says no such request", "while read line; do case \"$line\" in *check-sat*) echo unsat;; esac; done"),
        (
            "always finds one",
            "while read line; do case \"$line\" in *check-sat*) echo sat;; *get-model*) echo '()';; esac; done",
        ),
        ("does not know", "while read line; do case \"$line\" in *check-sat*) echo unknown;; esac; done"),
        ("talks nonsense", "while read line; do echo maybe; done"),
        ("dies", "exit 3"),
    ] {
        let (_temp, file) = solver(script);
        let output = prove(&file);
        let told: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{what}: {e}: {}", said(&output)));
        assert_eq!((output.status.code(), &told["proved"]), (Some(2), &json!(false)), "a solver that {what}");
        let proved = told["rows"].as_array().unwrap().iter().filter(|row| row["state"] == "proved").count();
        assert_eq!(proved, 0, "a solver that {what}: {told:#}");
    }
    let text = ended(&prove(Path::new("/nowhere/cvc5")), 1);
    assert!(text.contains("apt install cvc5"), "{text}");
}

#[test]
fn diff_finds_a_widening_and_knows_the_same_in_another_form() {
    let (a, b) = (copied(), copied());
    let write = |dir: &Path, text: &str| std::fs::write(dir.join("site/scratch.cedar"), text).unwrap();
    let rule = |scope: &str, when: &str| {
        format!("@id(\"scratch\")\npermit ({scope}, action == Action::\"files/write\", resource)\n{when};\n")
    };
    let group = "principal in Group::\"assistants\"";
    write(
        a.path(),
        &rule(group, "when { context.input.path like \"/srv/scratch/*\" && context.secret_suspicions < 1 }"),
    );
    write(
        b.path(),
        &rule(group, "when { context.input.path like \"/srv/scratch/*\" && context.secret_suspicions <= 1 }"),
    );
    let output = policy(&["diff", path(a.path()), path(b.path()), "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    assert_eq!((output.status.code(), &told["answer"]), (Some(2), &json!("wider")), "{told:#}");
    let found = &told["differences"][0];
    assert_eq!((&found["direction"], &found["rules"]), (&json!("wider"), &json!(["site/scratch"])));
    assert_eq!(found["request"]["action"], "Action::\"files/write\"");
    assert_eq!(found["request"]["context"]["secret_suspicions"], 1, "the one comparison that differs: {found:#}");
    assert_eq!(told["looked"]["concerned"], 1, "only the environment of the changed rule");
    // The other way round it is narrower, which is fine.
    assert!(ended(&policy(&["diff", path(b.path()), path(a.path())]), 0).contains("narrower"));
    // Another form: other clauses, other order, another name.
    write(b.path(), &rule("principal", "when { !(context.secret_suspicions >= 1) }\nwhen { context.input.path like \"/srv/scratch/*\" }\nunless { !(principal in Group::\"assistants\") }").replace("scratch\")", "renamed\")"));
    assert!(ended(&policy(&["diff", path(a.path()), path(b.path())]), 0).contains("equivalent"));
    // A forbid that is gone widens as well.
    std::fs::remove_file(b.path().join("site/secrets.cedar")).unwrap();
    let text = ended(&policy(&["diff", path(a.path()), path(b.path())]), 2);
    assert!(text.contains("WIDER") && text.contains("escalate → allow"), "{text}");
    let text = ended(&policy(&["diff", path(a.path()), "/nowhere"]), 3);
    assert!(text.contains("no folder"), "{text}");
}

#[test]
fn w03_diff_knows_that_what_fails_is_denied_and_that_entities_are_no_policy() {
    let (a, b) = (copied(), copied());
    let site = |dir: &Path, text: &str| std::fs::write(dir.join("site/more.cedar"), text).unwrap();
    let open = "@id(\"writes\") permit (principal, action == Action::\"files/write\", resource);\n";
    let failing = "@id(\"odd\") forbid (principal, action == Action::\"files/write\", resource) when { 9223372036854775807 + context.secret_suspicions < 0 };\n";
    site(a.path(), &format!("{open}{failing}"));
    site(b.path(), open);
    let diff = |a: &Path, b: &Path| policy(&["diff", path(a), path(b)]);
    // To Cedar the rule that fails is as if it were not there; to Warden it denies.
    let text = ended(&diff(a.path(), b.path()), 2);
    assert!(text.contains("WIDER") && text.contains("deny → "), "{text}");
    assert!(ended(&diff(b.path(), a.path()), 0).contains("NARROWER"));
    for (dir, parent) in [(a.path(), "one"), (b.path(), "two")] {
        std::fs::create_dir_all(dir.join("schemas")).unwrap();
        std::fs::write(dir.join("schemas/s.cedarschema"), "entity Team; entity Person in [Team];").unwrap();
        let people = json!([{ "uid": { "type": "Person", "id": "p" }, "attrs": {}, "parents": [{ "type": "Team", "id": parent }] }]);
        std::fs::write(dir.join("entities.json"), people.to_string()).unwrap();
    }
    let text = ended(&diff(a.path(), b.path()), 3);
    assert!(text.contains("different entities"), "{text}");
}

#[test]
fn names_of_a_server_become_no_policy() {
    let temp = copied();
    let name = "evil\n@id(\"all\") permit (principal, action, resource);//";
    let definition =
        json!({ "name": "odd", "inputSchema": { "type": "object", "properties": { name: { "type": "string" } } } });
    let catalogue =
        json!({ "servers": { "files": { "odd": { "definition": definition, "hash": hash_of(&definition) } } } });
    std::fs::write(temp.path().join("cases/catalogue.json"), catalogue.to_string()).unwrap();
    let output = policy(&[
        "new",
        "deny",
        "--tool",
        "files/odd",
        "--name",
        "odd",
        "--argument",
        name,
        "--like",
        "a*",
        "--dir",
        path(temp.path()),
    ]);
    if output.status.success() {
        let text = std::fs::read_to_string(temp.path().join("odd.cedar")).unwrap();
        let set: cedar_policy::PolicySet = text.parse().unwrap();
        assert_eq!(set.policies().count(), 1, "{text}");
    } else {
        assert!(!temp.path().join("odd.cedar").exists());
    }
}

#[test]
fn large_folders_and_large_files_load_or_say_why_not() {
    let temp = copied();
    let file = temp.path().join("site/many.cedar");
    std::fs::write(&file, random_policies(number("WARDEN_MANY_POLICIES", 2_000), 3)).unwrap();
    assert!(ended(&policy(&["check", path(temp.path()), "--error-format", "plain"]), 0).contains("valid: 11 files"));
    // A policy of a megabyte that is data, and one that is a condition without end.
    let names: Vec<String> = (0..40_000).map(|n| format!("\"/srv/data/{n:010}\"")).collect();
    std::fs::write(&file, format!("@id(\"big\") permit (principal, action == Action::\"files/read\", resource) when {{ [{}].contains(context.input.path) }};", names.join(", "))).unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() > 800_000);
    ended(&policy(&["check", path(temp.path()), "--error-format", "plain"]), 0);
    let terms: Vec<String> = (0..30_000).map(|n| format!("context.input.path == \"/srv/{n}\"")).collect();
    std::fs::write(
        &file,
        format!(
            "@id(\"big\") permit (principal, action == Action::\"files/read\", resource) when {{ {} }};",
            terms.join(" || ")
        ),
    )
    .unwrap();
    let text = ended(&policy(&["check", path(temp.path()), "--error-format", "plain"]), 3);
    assert!(text.contains("site/many.cedar:1:") && text.contains("too_complex"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_policy_is_written_only_if_it_loads() {
    let site = Site::odd();
    let running = site.serve_classified();
    running.stop();
    let text = site.ok(&[
        "policy",
        "new",
        "allow",
        "--tool",
        "odd/mark",
        "--group",
        "assistants",
        "--argument",
        "marker",
        "--like",
        "a*",
    ]);
    assert!(text.contains("principal in Group::\"assistants\",\n  action == Action::\"odd/mark\","), "{text}");
    assert!(site.dir.join("policies/allow_odd_mark.cedar").exists());
    ended(&site.run(&["policy", "check", "--error-format", "plain"]), 0);
    ended(&site.run(&["policy", "fmt", "--check", path(&site.dir.join("policies/allow_odd_mark.cedar"))]), 0);
    ended(&site.run(&["policy", "new", "allow", "--tool", "odd/mark"]), 2);
    for (args, why) in [
        (vec!["allow", "--tool", "odd/mrk"], "unrecognized action"),
        (vec!["deny", "--tool", "odd/mark", "--name", "x", "--argument", "nope", "--like", "a"], "no argument `nope`"),
        (vec!["allow", "--tool", "odd/echo", "--worker", "nobody"], "no such entity"),
        (vec!["allow"], "nobody is there to be asked"),
    ] {
        let text = ended(&site.run(&[vec!["policy", "new"], args].concat()), 3);
        assert!(text.contains(why), "{text}");
    }
    // A text that looks like Cedar stays a text.
    let odd = "x\" || true || context.input.marker == \"";
    site.ok(&[
        "policy",
        "new",
        "hold",
        "--tool",
        "odd/mark",
        "--name",
        "quoted",
        "--argument",
        "marker",
        "--like",
        odd,
    ]);
    let text = std::fs::read_to_string(site.dir.join("policies/quoted.cedar")).unwrap();
    assert!(text.contains("== \"x\\\" || true"), "{text}");
}
