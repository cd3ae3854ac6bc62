//! `docs/policies.md`, done as it says: every file is written, every command run, and what it says comes out is looked for.

use crate::support::{Site, warden};
use serde_json::json;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A fenced block: what stands behind the fence, and its lines.
struct Block {
    info: String,
    lines: Vec<String>,
    at: usize,
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut all, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(_), Some(_)) => all.extend(open.take()),
            (Some(info), None) => {
                open = Some(Block { info: info.trim().to_owned(), lines: Vec::new(), at: number + 1 })
            }
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block that is not closed");
    all
}

/// `…` stands for anything.
fn fits(pattern: &str, line: &str) -> bool {
    let (pattern, line) = (pattern.trim(), line.trim());
    let mut rest = line;
    let parts: Vec<&str> = pattern.split('…').collect();
    for (number, part) in parts.iter().enumerate() {
        let Some(at) = rest.find(part).filter(|at| number > 0 || *at == 0) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || pattern.ends_with('…')
}

/// Whether the lines stand in the output, in this order.
fn stands(expected: &[String], output: &str) -> Result<(), String> {
    let mut lines = output.lines();
    for wanted in expected.iter().filter(|line| !line.trim().is_empty() && line.trim() != "…") {
        if !lines.any(|line| fits(wanted, line)) {
            return Err(format!("`{wanted}` is not there, or not in this place"));
        }
    }
    Ok(())
}

/// A gateway in the background, until the page ends.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Page<'s> {
    site: &'s Site,
    path: String,
    served: Option<Served>,
    commands: usize,
}

impl Page<'_> {
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.current_dir(&self.site.dir).args(["-c", command]).env("PATH", &self.path).env("WARDEN_LOG", "warn");
        shell.env("WARDEN_URL", format!("http://127.0.0.1:{}", self.site.port)).stdin(Stdio::null());
        for name in ["WARDEN_TOKEN", "WARDEN_OPERATOR_TOKEN", "WARDEN_CONFIG", "WARDEN_DATA_DIR"] {
            shell.env_remove(name);
        }
        shell
    }

    fn serve(&mut self) {
        let child = self.shell("exec warden serve").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.served = Some(Served(child));
        for _ in 0..3000 {
            if std::net::TcpStream::connect(("127.0.0.1", self.site.port)).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the gateway does not listen");
    }

    fn run(&mut self, command: &str, expected: &[String], at: usize) {
        let (command, code) = match command.rsplit_once("  # exit ") {
            Some((command, code)) => (command.trim(), code.trim().parse::<i32>().unwrap()),
            None => (command, 0),
        };
        self.commands += 1;
        if command == "warden serve &" {
            return self.serve();
        }
        let output = self.shell(&format!("{{ {command}\n}} 2>&1")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "docs/policies.md:{at}: `{command}` said:\n{text}");
        if let Err(why) = stands(expected, &text) {
            panic!("docs/policies.md:{at}: `{command}`: {why}; it said:\n{text}");
        }
    }
}

#[test]
fn the_tutorial_does_what_it_says() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md")).unwrap();
    let files = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_warden"));
    let server = json!({ "files": { "command": [binary, "file-server", files.path()] } });
    let site = Site::temporary(&server);
    site.configure(&server, &json!({ "workers": { "assistant": { "groups": ["assistants"] } } }));
    // As the page finds it: listed once, and classified.
    let running = site.serve();
    for (tool, effect) in [("read_file", "read"), ("list_files", "read"), ("write_file", "write")] {
        site.ok(&["tools", "classify", &format!("files/{tool}"), effect]);
    }
    running.stop();
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut page = Page { site: &site, path, served: None, commands: 0 };
    for block in blocks(&text) {
        let (kind, file) = block.info.split_once(' ').unwrap_or((&block.info, ""));
        match (kind, file) {
            ("console", _) => {
                let mut at = 0;
                while at < block.lines.len() {
                    let Some(command) = block.lines[at].strip_prefix("$ ") else {
                        panic!("docs/policies.md:{}: output without a command", block.at + at);
                    };
                    let next = (at + 1..block.lines.len()).find(|n| block.lines[*n].starts_with("$ "));
                    let end = next.unwrap_or(block.lines.len());
                    page.run(command, &block.lines[at + 1..end], block.at + at + 1);
                    at = end;
                }
            }
            (_, "") => {}
            (_, file) => {
                let file = site.dir.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, block.lines.join("\n") + "\n").unwrap();
            }
        }
    }
    assert!(page.commands >= 20, "{} commands", page.commands);
    drop(page);
    assert!(warden().arg("--version").output().unwrap().status.success());
}

#[test]
fn a_pattern_stands_for_what_it_leaves_out() {
    assert!(fits("a … c", "a b c") && fits("…c", "abc") && fits("a…", "abc") && fits("…", "") && fits("abc", "  abc"));
    assert!(!fits("a … c", "a b d") && !fits("b…", "abc") && !fits("ab", "abc") && !fits("…b", "abc"));
    assert!(stands(&["a".into(), "…".into(), "c".into()], "a\nb\nc").is_ok());
    assert!(stands(&["c".into(), "a".into()], "a\nb\nc").is_err());
}
