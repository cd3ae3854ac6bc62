//! A look at policy text before it is parsed: what nobody can see, and what would take a parser's stack or a validator's day.

use super::layer::SourceFile;
use super::{Problem, Span};
use crate::catalogue::is_invisible;

/// Brackets within brackets.
const DEPTH_MAX: usize = 48;
/// `&&`, `||`, `+`, `-`, `*`, `.` and `if` in one policy. Each may be a level of the tree that validation walks.
const OPERATORS_MAX: usize = 400;
/// Bytes of one file.
const BYTES_MAX: usize = 16 << 20;

/// What keeps a file from being parsed at all.
pub(super) fn refused(file: &SourceFile) -> Vec<Problem> {
    let problem = |at: usize, length: usize, code: &str, message: String, help: &str| Problem {
        help: Some(help.into()),
        ..Problem::at(file, Span { offset: at, length }, code, message)
    };
    let mut problems = Vec::new();
    if file.text.len() > BYTES_MAX {
        let message = format!("the file has {} bytes, and {BYTES_MAX} are read at most", file.text.len());
        return vec![problem(0, 0, "too_large", message, "split it: every `*.cedar` file of the folder is read")];
    }
    let unseen = |(_, c): &(usize, char)| is_invisible(*c) && !matches!(c, '\n' | '\r' | '\t');
    if let Some((at, c)) = file.text.char_indices().find(unseen) {
        let message = format!("the character `{}` cannot be seen here", c.escape_unicode());
        let help = "take it out: what people review has to be what decides";
        problems.push(problem(at, c.len_utf8(), "invisible_character", message, help));
    }
    let mut walk = Walk::default();
    for (at, c) in file.text.char_indices() {
        match walk.step(&file.text, at, c) {
            Some(Limit::Depth) => {
                let message = format!("brackets stand {DEPTH_MAX} deep");
                problems.push(problem(
                    at,
                    1,
                    "too_complex",
                    message,
                    "write the condition flatter, or as several policies",
                ));
                return problems;
            }
            Some(Limit::Operators) => {
                let message = format!("one policy has more than {OPERATORS_MAX} operators");
                let help = "many values of one attribute are `[\"a\", \"b\"].contains(context.input.x)`; many conditions are several policies";
                problems.push(problem(at, 1, "too_complex", message, help));
                return problems;
            }
            None => {}
        }
    }
    problems
}

enum Limit {
    Depth,
    Operators,
}

/// Where a walk through the text is.
#[derive(Default)]
struct Walk {
    in_text: bool,
    in_comment: bool,
    escaped: bool,
    depth: usize,
    operators: usize,
}

impl Walk {
    fn step(&mut self, text: &str, at: usize, c: char) -> Option<Limit> {
        if self.in_comment {
            self.in_comment = c != '\n';
            return None;
        }
        if self.in_text {
            match (self.escaped, c) {
                (true, _) => self.escaped = false,
                (false, '\\') => self.escaped = true,
                (false, '"') => self.in_text = false,
                _ => {}
            }
            return None;
        }
        let rest = &text.as_bytes()[at..];
        match c {
            '"' => self.in_text = true,
            '/' if rest.starts_with(b"//") => self.in_comment = true,
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            ';' => (self.depth, self.operators) = (0, 0),
            '+' | '-' | '*' | '.' => self.operators += 1,
            '&' if rest.starts_with(b"&&") => self.operators += 1,
            '|' if rest.starts_with(b"||") => self.operators += 1,
            'i' if rest.starts_with(b"if ") || rest.starts_with(b"if(") => self.operators += 1,
            _ => {}
        }
        match (self.depth >= DEPTH_MAX, self.operators > OPERATORS_MAX) {
            (true, _) => Some(Limit::Depth),
            (_, true) => Some(Limit::Operators),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<String> {
        let file = SourceFile { name: "a.cedar".into(), text: text.into() };
        refused(&file)
            .into_iter()
            .map(|problem| format!("{}:{}:{}", problem.line, problem.column, problem.code))
            .collect()
    }

    #[test]
    fn what_cannot_be_seen_or_walked_is_refused_before_it_is_parsed() {
        assert_eq!(codes("// fine é 日本\n@id(\"a\")\npermit (principal, action, resource);\n"), Vec::<String>::new());
        assert_eq!(codes("permit\n \u{202e}(principal"), ["2:2:invisible_character"]);
        assert_eq!(codes("@id(\"a\0\")"), ["1:7:invisible_character"]);
        assert_eq!(codes(&"(".repeat(60)), [format!("1:{DEPTH_MAX}:too_complex")]);
        let many =
            format!("permit (principal, action, resource) when {{ {} true }};", "context.x == 1 || ".repeat(300));
        assert!(codes(&many)[0].ends_with("too_complex"));
        let text = format!(
            "@advice(\"{}\") permit (principal, action, resource); // {}",
            "((( && ".repeat(500),
            "+ ".repeat(900)
        );
        assert_eq!(codes(&text), Vec::<String>::new(), "texts and comments are not conditions");
        assert_eq!(
            codes(&"forbid (principal, action, resource) when { context.a && context.b };\n".repeat(1000)),
            Vec::<String>::new()
        );
    }
}
