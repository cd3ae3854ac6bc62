//! The binary.

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use warden::cli::Cli;
use warden::exit;

/// Threads hand proposals and records to each other, which the system's allocator pays for with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Policies are trees, and walking deep ones takes a deep stack.
const STACK: usize = 16 << 20;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = match e.use_stderr() {
                true if is_worker_run(std::env::args()) => exit::NO,
                true => exit::INVALID,
                false => 0,
            };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&exit::Failure::failed(e)),
    };
    let done = runtime.block_on(warden::run(cli));
    // A read of stdin that nobody waits for any more must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&failure),
    }
}

/// `warden worker run` says 2 of a wrong usage, as its users know it.
fn is_worker_run(args: impl Iterator<Item = String>) -> bool {
    let words: Vec<String> = args.filter(|arg| arg == "worker" || arg == "run").collect();
    words.first().is_some_and(|word| word == "worker") && words.get(1).is_some_and(|word| word == "run")
}

fn fail(failure: &exit::Failure) -> ExitCode {
    if !failure.message.is_empty() {
        let _ = writeln!(std::io::stderr(), "error: {}", failure.message);
    }
    ExitCode::from(failure.code)
}
