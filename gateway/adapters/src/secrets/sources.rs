//! Places of registered values: environment variables, files, the output of commands. Values are read and never shown.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use warden_core::secrets::registered::{self, Registration};
use zeroize::Zeroizing;

/// A place of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is called in findings.
    pub name: String,
    /// Where.
    pub from: From,
    /// Whether each line is a value of its own.
    pub lines: bool,
    /// Whether it is a canary.
    pub canary: bool,
}

/// Where values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// In an environment variable of the gateway.
    Env(String),
    /// In a file.
    File(PathBuf),
    /// In what a command writes to its standard output.
    Command(Vec<String>),
}

/// Why a place gives no values.
#[derive(Debug, thiserror::Error)]
#[error("`{name}`: {what}")]
pub struct Error {
    /// What it is called.
    pub name: String,
    /// What is wrong, without any value.
    pub what: String,
}

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are read of one place.
const BYTES_MAX: u64 = 4 << 20;

/// The values of all places.
pub fn read(sources: &[Source]) -> Result<Vec<Registration>, Error> {
    let mut values = Vec::new();
    for source in sources {
        let error = |what: String| Error { name: source.name.clone(), what };
        let text = match &source.from {
            From::Env(variable) => match std::env::var_os(variable) {
                None => return Err(error(format!("the environment variable `{variable}` is not set"))),
                Some(value) => Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value)),
            },
            From::File(path) => file(path).map_err(|e| error(format!("cannot read `{}`: {e}", path.display())))?,
            From::Command(command) => output(command).map_err(|e| error(format!("its command {e}")))?,
        };
        let parts: Vec<&[u8]> = if source.lines {
            text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
        } else {
            vec![text.trim_ascii()]
        };
        for (index, part) in parts.iter().enumerate() {
            let name = if source.lines { format!("{}[{index}]", source.name) } else { source.name.clone() };
            registered::check(part).map_err(|unfit| Error { name: name.clone(), what: unfit.to_string() })?;
            values.push(Registration { name, canary: source.canary, value: Zeroizing::new(part.to_vec()) });
        }
    }
    Ok(values)
}

/// A file, within bounds.
fn file(path: &std::path::Path) -> io::Result<Zeroizing<Vec<u8>>> {
    bounded(std::fs::File::open(path)?, BYTES_MAX)
}

/// What somebody gives, at most so many bytes.
pub fn bounded(reader: impl Read, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    reader.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

fn output(command: &[String]) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = command.split_first().ok_or("is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("`{program}` cannot be started: {e}"))?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    let (read, reader) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(read.send(bounded(stdout, BYTES_MAX))));
    let status = wait(&mut child).map_err(|e| format!("`{program}` {e}"))?;
    // A program of its own that goes on could keep the output open.
    let bytes = reader.recv_timeout(PATIENCE).map_err(|_| format!("`{program}` ended, and its output did not"))?;
    let bytes = bytes.map_err(|e| format!("`{program}`: {e}"))?;
    if status { Ok(bytes) } else { Err(format!("`{program}` failed")) }
}

fn wait(child: &mut Child) -> Result<bool, String> {
    let since = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if since.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("gave nothing within {} s", PATIENCE.as_secs()));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}
