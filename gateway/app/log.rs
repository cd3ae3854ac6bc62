//! Log lines on stderr.

use crate::cli::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging. `WARDEN_LOG` says what; by default the gateway tells its doings and other commands only trouble.
pub fn start(format: LogFormat, quiet: bool) {
    let default = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("WARDEN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_target(false);
    // What cannot be logged is told on stderr otherwise, and where that stands on the same full disk the telling panics:
    // a gateway goes on denying, log or no log.
    let builder = builder.log_internal_errors(false);
    // A second start in one process, as tests have it, keeps the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
