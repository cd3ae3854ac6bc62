//! Whoever appends.

use crate::Outcome;

/// Makes records and appends them, one after the other.
pub(crate) trait Appender: Send + 'static {
    /// What is appended.
    type Record: Send;

    /// The next record, made before the clock starts.
    fn next(&mut self) -> Self::Record;

    /// Returns once the record would survive a power cut.
    fn append(&self, record: Self::Record) -> impl Future<Output = Outcome<()>> + Send;
}
