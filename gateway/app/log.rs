//! Log lines on stderr.

use crate::cli::LogFormat;
use std::io::{self, Write};
use tracing_subscriber::EnvFilter;

/// Starts logging. `WARDEN_LOG` says what; by default the gateway tells its doings and other commands only trouble. In shadow, every line
/// says so.
pub fn start(format: LogFormat, quiet: bool, shadow: bool) {
    let default = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("WARDEN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let mark = shadow.then_some(format);
    let builder =
        tracing_subscriber::fmt().with_writer(move || Marked(mark)).with_env_filter(filter).with_target(false);
    // What cannot be logged is told on stderr otherwise, and where that stands on the same full disk the telling panics:
    // a gateway goes on denying, log or no log.
    let builder = builder.log_internal_errors(false);
    // A second start in one process, as tests have it, keeps the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Stderr, with the mark of the shadow on every line.
struct Marked(Option<LogFormat>);

impl Write for Marked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        match self.0 {
            None => stderr.lock().write(line),
            // The whole line in one write: others write there too.
            Some(format) => {
                stderr.lock().write_all(&marked(format, line))?;
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn marked(format: LogFormat, line: &[u8]) -> Vec<u8> {
    match (format, line.strip_prefix(b"{")) {
        (LogFormat::Json, Some(rest)) => [b"{\"shadow\":true,", rest].concat(),
        _ => [b"[SHADOW: not enforced] ", line].concat(),
    }
}
