//! One line a record, in four formats. Each line carries the stored bytes of its record whole, so that it can be checked.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io;
use warden_core::journal::record::{Body, Record};
use warden_core::verdict::Verdict;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `{"seq": N, "record": RECORD}` a line.
    Ndjson,
    /// [OCSF 1.5.0](https://schema.ocsf.io/1.5.0/classes/api_activity), class API Activity, a line each; the record is `raw_data`.
    Ocsf,
    /// [CloudEvents 1.0](https://github.com/cloudevents/spec) in JSON, a line each; the record is `data`.
    Cloudevents,
    /// [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180); the record is the last column.
    Csv,
}

/// The columns of CSV.
const COLUMNS: [&str; 18] = [
    "seq", "time", "kind", "id", "worker", "session", "task", "run", "server", "tool", "action", "verdict", "enforced",
    "reason", "policies", "happened", "operator", "record",
];

/// What the formats show of a record.
#[derive(Default)]
struct Shown<'r> {
    id: &'r str,
    worker: &'r str,
    session: &'r str,
    task: &'r str,
    run: &'r str,
    server: &'r str,
    tool: &'r str,
    action: &'r str,
    verdict: &'r str,
    enforced: &'r str,
    reason: &'r str,
    policies: String,
    happened: String,
    operator: &'r str,
}

impl<'r> Shown<'r> {
    fn of(record: &'r Record) -> Self {
        let some = |text: &'r Option<String>| text.as_deref().unwrap_or_default();
        match &record.body {
            Body::Decision(d) => Self {
                id: d.id.as_str(),
                worker: &d.worker,
                session: some(&d.session),
                task: some(&d.task),
                run: some(&d.run),
                server: &d.server,
                tool: some(&d.tool),
                action: &d.action,
                verdict: d.verdict.name(),
                enforced: d.enforced.name(),
                reason: &d.reason,
                policies: d.policies.join(" "),
                ..Self::default()
            },
            Body::Outcome(outcome) => {
                let happened = serde_json::to_value(outcome.happened).unwrap_or_default();
                let happened = happened.as_str().unwrap_or_default().to_owned();
                Self { id: outcome.decision.as_str(), happened, ..Self::default() }
            }
            Body::Policy(change) => Self { operator: some(&change.operator), ..Self::default() },
            Body::Operator(act) => Self { operator: &act.operator, action: &act.act, ..Self::default() },
            Body::Read(read) => Self { operator: &read.operator, action: &read.how, ..Self::default() },
            Body::Retention(dropped) => Self { operator: some(&dropped.operator), ..Self::default() },
            Body::Hold(change) => Self { operator: &change.operator, ..Self::default() },
            Body::Key(change) => Self { operator: some(&change.operator), ..Self::default() },
            Body::Budget(change) => Self { operator: &change.operator, action: "budget", ..Self::default() },
            Body::Task(change) => Self { task: change.task.as_str(), ..Self::default() },
            Body::Ack(change) => Self {
                id: change.decision.as_ref().map_or("", |id| id.as_str()),
                operator: some(&change.operator),
                ..Self::default()
            },
            Body::Inbox(change) => Self {
                worker: &change.worker,
                run: some(&change.run),
                operator: some(&change.operator),
                reason: some(&change.reason),
                ..Self::default()
            },
            Body::Session(change) => Self { session: &change.session, ..Self::default() },
            Body::Delegate(change) => Self { id: &change.delegate, ..Self::default() },
            Body::State(_) => Self::default(),
        }
    }
}

impl Format {
    /// What stands before the first line.
    pub fn head(self) -> String {
        match self {
            Format::Csv => format!("{}\r\n", COLUMNS.join(",")),
            _ => String::new(),
        }
    }

    /// The line of a record, its line break included. `origin` is the log's name.
    pub fn line(self, seq: u64, stored: &[u8], origin: &str) -> io::Result<String> {
        let record = Record::from_bytes(stored).map_err(io::Error::other)?;
        let raw: &RawValue = serde_json::from_slice(stored)?;
        let kind = record.body.kind();
        let line = match self {
            Format::Ndjson => serde_json::to_string(&Line { seq, record: raw })?,
            Format::Cloudevents => serde_json::to_string(&CloudEvent {
                specversion: "1.0",
                id: &seq.to_string(),
                source: origin,
                kind: &format!("warden.{kind}.v{}", record.v),
                time: &record.ts.to_string(),
                datacontenttype: "application/json",
                sequence: &format!("{seq:020}"),
                data: raw,
            })?,
            Format::Ocsf => ocsf(seq, &record, raw, origin).to_string(),
            Format::Csv => return csv_line(seq, &record, raw.get()),
        };
        Ok(line + "\n")
    }
}

#[derive(Serialize)]
struct Line<'r> {
    seq: u64,
    record: &'r RawValue,
}

#[derive(Serialize)]
struct CloudEvent<'r> {
    specversion: &'r str,
    id: &'r str,
    source: &'r str,
    #[serde(rename = "type")]
    kind: &'r str,
    time: &'r str,
    datacontenttype: &'r str,
    sequence: &'r str,
    data: &'r RawValue,
}

/// Class API Activity: what was asked is the operation, who asked the actor, the verdict the status.
fn ocsf(seq: u64, record: &Record, raw: &RawValue, origin: &str) -> Value {
    let shown = Shown::of(record);
    // Activities: 2 reads, 99 is anything else. Severities: 1 informational, 3 medium.
    let activity = if matches!(record.body, Body::Read(_)) { 2 } else { 99 };
    let (status, severity) = match &record.body {
        Body::Decision(d) if d.verdict == Verdict::Deny => (2, 3),
        Body::Decision(d) if d.verdict == Verdict::Escalate => (99, 1),
        _ => (1, 1),
    };
    let kind = record.body.kind();
    let who = if shown.worker.is_empty() { shown.operator } else { shown.worker };
    let mut event = json!({
        "category_uid": 6, "class_uid": 6003, "activity_id": activity, "activity_name": kind, "type_uid": 600_300 + activity,
        "time": record.ts.as_millisecond(), "severity_id": severity, "status_id": status,
        "metadata": { "version": "1.5.0", "uid": seq.to_string(), "sequence": seq, "log_name": origin,
            "product": { "name": "Warden", "vendor_name": "Warden" } },
        "actor": { "user": { "name": who } },
        "api": { "operation": if shown.action.is_empty() { kind } else { shown.action }, "service": { "name": shown.server } },
        "src_endpoint": { "name": who },
    });
    for (name, value) in [("status", shown.verdict), ("status_detail", shown.reason)] {
        if !value.is_empty() {
            event[name] = value.into();
        }
    }
    if !shown.id.is_empty() {
        event["metadata"]["correlation_uid"] = shown.id.into();
    }
    if !shown.session.is_empty() {
        event["actor"]["session"] = json!({ "uid": shown.session });
    }
    event["raw_data"] = raw.get().into();
    event
}

fn csv_line(seq: u64, record: &Record, raw: &str) -> io::Result<String> {
    let shown = Shown::of(record);
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let (seq, time) = (seq.to_string(), record.ts.to_string());
    let cells = [
        &seq,
        &time,
        record.body.kind(),
        shown.id,
        shown.worker,
        shown.session,
        shown.task,
        shown.run,
        shown.server,
        shown.tool,
        shown.action,
        shown.verdict,
        shown.enforced,
        shown.reason,
        &shown.policies,
        &shown.happened,
        shown.operator,
        raw,
    ];
    writer.write_record(cells.map(harmless)).map_err(io::Error::other)?;
    let bytes = writer.into_inner().map_err(|e| io::Error::other(e.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// A spreadsheet runs a cell that starts like a formula; behind an apostrophe it is text.
fn harmless(cell: &str) -> String {
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

/// The stored bytes and the sequence number that a line carries.
pub(super) fn carried(format: Format, line: &str) -> Result<(u64, String), String> {
    let bad = |what: &str| format!("{what} is missing or unreadable");
    #[derive(Deserialize)]
    struct Carries<'l> {
        seq: Option<u64>,
        id: Option<String>,
        #[serde(borrow)]
        record: Option<&'l RawValue>,
        #[serde(borrow)]
        data: Option<&'l RawValue>,
        raw_data: Option<String>,
        metadata: Option<Value>,
    }
    if format == Format::Csv {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let row = reader.records().next().and_then(Result::ok).ok_or_else(|| bad("the row"))?;
        let seq = row.get(0).and_then(|seq| seq.parse().ok()).ok_or_else(|| bad("`seq`"))?;
        return Ok((seq, row.get(COLUMNS.len() - 1).ok_or_else(|| bad("`record`"))?.to_owned()));
    }
    let carries: Carries<'_> = serde_json::from_str(line).map_err(|_| bad("the JSON object"))?;
    let (seq, raw) = match format {
        Format::Ndjson => (carries.seq, carries.record.map(|raw| raw.get().to_owned())),
        Format::Cloudevents => {
            (carries.id.and_then(|id| id.parse().ok()), carries.data.map(|raw| raw.get().to_owned()))
        }
        _ => (carries.metadata.and_then(|metadata| metadata["sequence"].as_u64()), carries.raw_data),
    };
    Ok((seq.ok_or_else(|| bad("the sequence number"))?, raw.ok_or_else(|| bad("the record"))?))
}
