//! The gateway's journal as the gateway has it: decisions become records, are serialised and looked through for secrets,
//! written, synced, and taken into the Merkle tree.

use crate::Outcome;
use crate::append::Appender;
use crate::cell::{self, Figures, Span};
use crate::records::{RECORD, Records, Texts};
use crate::stop::Stop;
use serde_json::json;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use warden_adapters::journal::checkpoint::Notary;
use warden_adapters::journal::{Journal, Options};
use warden_adapters::world::{decision_id, now};
use warden_core::decision::Decision;
use warden_core::journal::note::SignerKey;
use warden_core::journal::record::{Body, Record};
use warden_core::mac::MacKey;
use warden_core::port::Room;
use warden_core::secrets::Scanner;

/// How long a next segment may take to be made.
const SPARE_WAIT: Duration = Duration::from_secs(30);

/// A journal with its tree, and checkpoints signed every second, as a gateway has it.
fn open_warden(dir: &Path, scanner: Arc<Scanner>) -> Outcome<(Journal, Notary)> {
    let journal = Journal::open(dir, scanner, Options::default(), &[])?;
    let signer = SignerKey::new("warden.example/bench", &[5; 32]).ok_or("no key")?;
    let notary = Notary::start(journal.clone(), signer, Duration::from_secs(1))?;
    Ok((journal, notary))
}

/// Measures it.
pub(super) fn measure(dir: &Path, runtime: &Runtime, records: &Records, span: Span, stop: &Stop) -> Outcome<Figures> {
    let scanner = Arc::new(Scanner::shipped(MacKey::new("k1", [7; 32])));
    let template = Template::new(&scanner)?;
    let (journal, notary) = {
        // Its receipts are told from within the runtime that it is opened in.
        let _context = runtime.enter();
        open_warden(dir, scanner)?
    };
    spare_made(dir)?;
    let appenders = (0..span.appenders)
        .map(|n| Decisions { journal: journal.clone(), template: template.clone(), texts: records.of(n) })
        .collect();
    let figures = cell::run(runtime, appenders, span.measured, stop);
    journal.close();
    notary.close()?;
    // Whoever comes next does not pay for it.
    spare_made(dir)?;
    figures
}

/// Waits until the next segment is made, which happens beside the first appends.
fn spare_made(dir: &Path) -> Outcome<()> {
    let spare = dir.join("journal/spare.tmp");
    let begun = Instant::now();
    while !std::fs::metadata(&spare).is_ok_and(|meta| meta.len() == Options::default().segment_bytes) {
        if begun.elapsed() > SPARE_WAIT {
            return Err(format!("there is no `{}` after {} s", spare.display(), SPARE_WAIT.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(OpenOptions::new().write(true).open(&spare)?.sync_all()?)
}

/// A decision but for its id and its arguments.
#[derive(Clone)]
struct Template {
    decision: Decision,
    /// Bytes of random text that make a record [`RECORD`] bytes long.
    text: usize,
}

impl Template {
    fn new(scanner: &Scanner) -> Outcome<Self> {
        // Enforced by its caller, so it expects no outcome. None follows, and the hot state stays small.
        let decision = json!({
            "id": "", "door": "mcp", "enforced": "caller", "worker": "w", "connection": "c", "server": "s",
            "method": "tools/call", "tool": "t", "principal": {}, "action": "s/t", "resource": {},
            "context": {
                "acknowledged": false, "mode": "execute", "secret_findings": [], "secret_suspicions": 0, "unseen": [],
                "dot_segments": false, "input": null,
            },
            "verdict": "allow", "reason": "allowed", "policies": ["site/p"],
            "digests": { "charter": "", "policy": "", "schema": "", "catalogue": "" }, "payload_tag": "",
        });
        let mut template = Self { decision: serde_json::from_value(decision)?, text: 0 };
        let without = template.record("").to_bytes(scanner).len();
        template.text =
            RECORD.checked_sub(without).ok_or_else(|| format!("a record without text has {without} bytes already"))?;
        Ok(template)
    }

    fn record(&self, text: &str) -> Record {
        let now = now();
        let mut decision = Decision { id: decision_id(now), ..self.decision.clone() };
        decision.context.input = json!({ "text": text });
        Record::new(now, Body::Decision(decision.into()))
    }
}

/// Appends decisions.
struct Decisions {
    journal: Journal,
    template: Template,
    texts: Texts,
}

impl Appender for Decisions {
    type Record = Record;

    fn next(&mut self) -> Record {
        self.template.record(self.texts.next(self.template.text))
    }

    async fn append(&self, record: Record) -> Outcome<()> {
        self.journal.append(record, Room::Ordinary).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_stored_in_about_as_many_bytes() {
        let key = MacKey::new("k1", [7; 32]);
        let template = Template::new(&key).unwrap();
        let stored = template.record(Records::new().of(3).next(template.text)).to_bytes(&key).len();
        // A time ends without its last zeros.
        assert!(stored.abs_diff(RECORD) <= 7, "{stored}");
        assert!(template.text > 50, "{}", template.text);
    }
}
