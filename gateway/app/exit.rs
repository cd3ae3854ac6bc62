//! Exit codes are an interface (see `docs/operations.md`), and failures are sentences.

/// Warden failed: I/O, a child that died.
pub const FAILED: u8 = 1;
/// The answer is no.
pub const NO: u8 = 2;
/// Invalid input or usage.
pub const INVALID: u8 = 3;
/// The answer is: only when acknowledged.
pub const ESCALATE: u8 = 4;

/// One is running already.
pub const BUSY: u8 = 5;

/// Why a command ended without doing what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What is told on stderr; empty when everything was said.
    pub message: String,
}

/// What a command comes to.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// Warden failed.
    pub fn failed(message: impl std::fmt::Display) -> Self {
        Self { code: FAILED, message: message.to_string() }
    }

    /// The input is invalid.
    pub fn invalid(message: impl std::fmt::Display) -> Self {
        Self { code: INVALID, message: message.to_string() }
    }

    /// The answer is no.
    pub fn no(message: impl std::fmt::Display) -> Self {
        Self { code: NO, message: message.to_string() }
    }

    /// An error with its causes.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::failed(message)
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self::invalid(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // What stands in a file is the author's to mend.
            std::io::ErrorKind::InvalidData => Self::invalid(error),
            _ => Self::failed(error),
        }
    }
}

impl From<warden_adapters::files::Error> for Failure {
    fn from(error: warden_adapters::files::Error) -> Self {
        Self::of(&error)
    }
}

impl From<warden_adapters::journal::OpenError> for Failure {
    fn from(error: warden_adapters::journal::OpenError) -> Self {
        let code = match error {
            warden_adapters::journal::OpenError::Damaged { .. } => NO,
            warden_adapters::journal::OpenError::Newer { .. } => INVALID,
            warden_adapters::journal::OpenError::Io { .. } => FAILED,
        };
        Self { code, ..Self::of(&error) }
    }
}

impl From<warden_adapters::secrets::Error> for Failure {
    fn from(error: warden_adapters::secrets::Error) -> Self {
        let code = if matches!(error, warden_adapters::secrets::Error::Io(_)) { FAILED } else { INVALID };
        Self { code, message: error.to_string() }
    }
}

impl From<warden_adapters::govern::Error> for Failure {
    fn from(error: warden_adapters::govern::Error) -> Self {
        let code = match error {
            warden_adapters::govern::Error::Policies(_) => INVALID,
            _ => FAILED,
        };
        Self { code, ..Self::of(&error) }
    }
}
