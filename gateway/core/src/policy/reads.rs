//! What policies read of a context. Whatever they do not read need not be there when they are asked.

use super::est::{conditions, context_path, parts};
use cedar_policy::Policy;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is read of a value: all of it, some members, or only whether it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    whole: bool,
    members: BTreeMap<String, Reads>,
}

impl Reads {
    /// All of it.
    pub fn whole() -> Self {
        Self { whole: true, members: BTreeMap::new() }
    }

    /// Of a context, by the conditions of policies.
    pub fn of<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Self {
        let mut reads = Self::default();
        for policy in policies {
            match policy.to_json() {
                Ok(est) => conditions(&est).for_each(|(_, body)| reads.add(body)),
                Err(_) => reads.whole = true,
            }
        }
        reads
    }

    /// Adds what an expression reads of the context.
    pub fn add(&mut self, expression: &Value) {
        let has = expression.get("has");
        if let Some(mut path) = has.and_then(|has| context_path(has.get("left")?)) {
            match has.and_then(|has| has.get("attr")) {
                Some(Value::String(name)) => path.push(name),
                Some(Value::Array(names)) => path.extend(names.iter().filter_map(Value::as_str)),
                // No form that is known: anything may be meant.
                _ => self.at(&path).whole = true,
            }
            self.at(&path);
        } else if let Some(path) = context_path(expression) {
            self.at(&path).whole = true;
        } else {
            parts(expression).into_iter().for_each(|part| self.add(part));
        }
    }

    /// Adds what others read.
    pub fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        for (name, reads) in &other.members {
            self.members.entry(name.clone()).or_default().merge(reads);
        }
    }

    /// What is read of a member; nothing where nobody even asks whether it is there.
    pub fn member(&self, name: &str) -> Option<&Self> {
        if self.whole { Some(self) } else { self.members.get(name) }
    }

    /// Whether a member is read, or whether it is there.
    pub fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    /// What is read of the arguments. That there are any depends on the action alone, and reads none.
    pub fn of_input(&self) -> Option<&Self> {
        self.member("input").filter(|input| input.whole || !input.members.is_empty())
    }

    fn at(&mut self, path: &[&str]) -> &mut Self {
        path.iter().fold(self, |reads, name| reads.members.entry((*name).to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::Reads;
    use cedar_policy::Policy;

    fn reads(condition: &str) -> Reads {
        Reads::of([
            &Policy::parse(None, format!("permit(principal, action, resource) when {{ {condition} }};")).unwrap()
        ])
    }

    fn has(reads: &Reads, path: &str) -> bool {
        path.split('.').try_fold(reads, |reads, name| reads.member(name)).is_some()
    }

    #[test]
    fn a_path_is_read_and_its_siblings_are_not() {
        for (condition, read, not) in [
            ("context.session.terminal", "session.terminal", "session.status"),
            ("context[\"session\"][\"facts\"].f3 > 1", "session.facts.f3", "session.facts.f4"),
            ("context has session && 1 < 2", "session", "session.id"),
            ("context.session has confidence", "session.confidence", "session.signal"),
            ("context has session.facts.f1", "session.facts.f1", "session.facts.f2"),
            ("if context.task.ambient then true else {a: [context.task.id]}.a.contains(\"x\")", "task.id", "task.zone"),
            ("\"x\" == \"context.session.id\" || context.acknowledged", "acknowledged", "session"),
        ] {
            let reads = reads(condition);
            assert!(has(&reads, read) && !has(&reads, not), "{condition}: {reads:?}");
        }
    }

    #[test]
    fn what_is_used_as_a_value_is_read_whole() {
        for condition in [
            "context.session == context.session",
            "{s: context.session}.s.terminal",
            "(if 1 < 2 then context.session else context.session).terminal",
            "[context.session].containsAny([])",
            "context == {}",
        ] {
            let reads = reads(condition);
            assert!(has(&reads, "session.facts.any") && has(&reads, "session.status"), "{condition}: {reads:?}");
        }
    }

    #[test]
    fn whether_there_is_an_input_reads_none_of_it() {
        assert_eq!(reads("context has input").of_input(), None);
        assert_eq!(reads("context.acknowledged").of_input(), None);
        assert!(reads("context has input.path").of_input().is_some_and(|input| input.has("path") && !input.has("to")));
        assert!(reads("context.input.to like \"*\"").of_input().is_some_and(|input| input.has("to")));
        assert!(reads("context.input == context.input").of_input().is_some_and(|input| input.has("anything")));
    }

    #[test]
    fn merging_reads_what_either_reads() {
        let mut both = reads("context.session.id == \"\"");
        both.merge(&reads("context.session.facts.f1 > 0"));
        both.merge(&reads("context.budget == context.budget"));
        assert!(["session.id", "session.facts.f1", "budget.tokens"].iter().all(|path| has(&both, path)));
        assert!(!has(&both, "session.status"));
    }
}
