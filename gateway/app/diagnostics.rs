//! Problems with policies, as people and programs want to read them.

use crate::cli::ErrorFormat;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity as Weight, SourceCode,
};
use serde_json::json;
use std::fmt;
use warden_core::policy::layer::SourceFile;
use warden_core::policy::{Problem, Severity};

/// A problem in the given format. `files` are those that it may be about.
pub fn shown(problem: &Problem, files: &[SourceFile], format: ErrorFormat) -> String {
    let Problem { file, line, column, code, message, severity, .. } = problem;
    match format {
        ErrorFormat::Json => json!(problem).to_string(),
        ErrorFormat::Plain => {
            let weight = if *severity == Severity::Warning { "warning: " } else { "" };
            format!("{file}:{line}:{column}: {weight}{code}: {}", message.replace('\n', " "))
        }
        ErrorFormat::Human => human(problem, files),
    }
}

fn human(problem: &Problem, files: &[SourceFile]) -> String {
    let source = files.iter().find(|file| file.name == problem.file);
    let Some(source) = source.filter(|_| problem.span.is_some()) else { return problem.to_string() };
    // A long file is read once a problem; what is shown of it is a few lines.
    let report = Report { problem, source: NamedSource::new(&source.name, source.text.clone()) };
    // Without colours: what is printed is made safe for a terminal afterwards.
    let mut text = String::new();
    match GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_context_lines(1)
        .render_report(&mut text, &report)
    {
        Ok(()) => text,
        Err(_) => problem.to_string(),
    }
}

struct Report<'p> {
    problem: &'p Problem,
    source: NamedSource<String>,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.problem)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)?;
        self.problem.policy.as_ref().map_or(Ok(()), |policy| write!(f, " (policy `{policy}`)"))
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.problem.code))
    }

    fn severity(&self) -> Option<Weight> {
        Some(if self.problem.severity == Severity::Warning { Weight::Warning } else { Weight::Error })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span?;
        // A whole rule is shown by its head: the message says what about it.
        let text = self.source.inner().get(span.offset..span.offset + span.length).unwrap_or_default();
        let length = text.lines().next().map_or(0, str::len);
        Some(Box::new(std::iter::once(LabeledSpan::new(None, span.offset, length))))
    }
}
