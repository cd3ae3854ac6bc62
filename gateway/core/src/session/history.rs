//! History: what a session's earlier calls add up to, declared by its app as facts and seen by policy as plain numbers.
//!
//! A fact counts calls, sums an argument of theirs, counts its distinct values, or says whether there was one before; over the whole
//! session, or over a window of time. It is counted before the verdict and given back when that is no, so that two calls at once never
//! both see the same. What a call counts as is in its decision's record, so that the sums are folded again from the journal.

use crate::catalogue::Effect;
use crate::glob::fits;
use crate::json::Json;
use crate::proposal::DecisionId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Calls in one window, and distinct values of one argument; a call beyond is refused, since it could not be counted.
pub const KEPT_MAX: usize = 10_000;
/// Values that one call can add; each costs a keyed hash.
pub const VALUES_MAX: usize = 1_000;
/// Facts of one app.
pub const FACTS_MAX: usize = 64;

/// What a fact says of the calls it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counts {
    /// How many there were.
    Calls,
    /// What their argument adds up to; whole numbers, none of them negative.
    Sum(String),
    /// How many different values their argument had. Of a list each item is a value.
    Distinct(String),
    /// Whether there was one; of an argument, whether there was one with each of the values that it has now.
    Seen(Option<String>),
}

/// One declared fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it says.
    pub counts: Counts,
    /// The calls it fits: `SERVER/TOOL`, with `*` and `?`.
    pub tools: Vec<String>,
    /// Arguments that must fit a pattern. A path by its text alone: `..` is the charter's to refuse.
    pub given: BTreeMap<String, String>,
    /// Only tools of this effect.
    pub effect: Option<Effect>,
    /// For how many seconds a call counts; as long as the session lasts when absent.
    pub within_s: Option<u32>,
}

/// What a fact is for policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A `Bool`.
    Seen(bool),
    /// A `Long`.
    Number(i64),
}

/// What one call adds to one fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// To its number.
    #[serde(skip_serializing_if = "is_zero")]
    pub by: i64,
    /// To its distinct values: keyed tags of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// For how many seconds; for good when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_s: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// What the calls so far add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    #[serde(skip_serializing_if = "is_zero")]
    total: i64,
    /// How many calls had each value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, u32>,
    /// Of a fact with a window: its calls, the oldest first.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    recent: VecDeque<(Timestamp, DecisionId, Step)>,
}

/// Why a call cannot be counted: a reason code.
pub type Uncounted = &'static str;

/// A call, as facts look at it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// `SERVER/TOOL`.
    pub tool: &'c str,
    /// Its effect.
    pub effect: Effect,
    /// Its arguments.
    pub arguments: &'c Json,
}

impl Fact {
    /// Whether it is a `Bool` for policy.
    pub fn is_flag(&self) -> bool {
        matches!(self.counts, Counts::Seen(_))
    }

    /// Whether a call counts.
    pub fn fits(&self, call: Call<'_>) -> bool {
        let given = |(name, pattern): (&String, &String)| match call.arguments.get(name) {
            Some(Json::String(text)) => fits(pattern, text),
            Some(other) => fits(pattern, &other.to_string()),
            None => false,
        };
        self.tools.iter().any(|pattern| fits(pattern, call.tool))
            && self.effect.is_none_or(|effect| effect == call.effect)
            && self.given.iter().all(given)
    }

    /// What a call adds; nothing when it does not count. `tag` hides a value.
    pub fn step(&self, call: Call<'_>, tag: &impl Fn(&str) -> String) -> Result<Option<Step>, Uncounted> {
        if !self.fits(call) {
            return Ok(None);
        }
        let values = |name: &str| -> Result<Vec<String>, Uncounted> {
            let mut values: Vec<String> = match call.arguments.get(name) {
                None | Some(Json::Null) => Vec::new(),
                Some(Json::Array(items)) if items.len() > VALUES_MAX => return Err("history_full"),
                Some(Json::Array(items)) => items.iter().map(|item| tag(&text(item))).collect(),
                Some(one) => vec![tag(&text(one))],
            };
            values.sort_unstable();
            values.dedup();
            Ok(values)
        };
        let (by, values) = match &self.counts {
            Counts::Calls | Counts::Seen(None) => (1, Vec::new()),
            Counts::Sum(of) => (whole(call.arguments.get(of))?, Vec::new()),
            Counts::Distinct(of) | Counts::Seen(Some(of)) => (0, values(of)?),
        };
        Ok(Some(Step { by, values, within_s: self.within_s }))
    }

    /// What policy sees at `now`, before the call that is decided.
    pub fn value(&self, tally: Option<&Tally>, step: Option<&Step>, now: Timestamp) -> Value {
        let none = Tally::default();
        let tally = tally.unwrap_or(&none);
        let stale = self.within_s.map(|within_s| tally.before(now, within_s)).unwrap_or_default();
        match &self.counts {
            Counts::Calls | Counts::Sum(_) => Value::Number(tally.total.saturating_sub(stale.total)),
            Counts::Seen(None) => Value::Seen(tally.total > stale.total),
            Counts::Distinct(_) => {
                let live = tally.values.iter().filter(|(value, count)| stale.values.get(*value) != Some(count));
                Value::Number(i64::try_from(live.count()).unwrap_or(i64::MAX))
            }
            Counts::Seen(Some(_)) => {
                let seen = |value: &String| {
                    tally.values.get(value).is_some_and(|count| stale.values.get(value) != Some(count))
                };
                Value::Seen(step.is_some_and(|step| !step.values.is_empty() && step.values.iter().all(seen)))
            }
        }
    }
}

/// A number as it is added up. A negative one would take back what others have added.
fn whole(value: Option<&Json>) -> Result<i64, Uncounted> {
    match value {
        None | Some(Json::Null) => Ok(0),
        Some(Json::Number(number)) => {
            number.to_string().parse::<i64>().ok().filter(|n| *n >= 0).ok_or("uncountable_argument")
        }
        Some(_) => Err("uncountable_argument"),
    }
}

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.sorted().to_string(),
    }
}

/// When a window begins that ends now.
fn start(now: Timestamp, within_s: u32) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(within_s.into())).unwrap_or(Timestamp::MIN)
}

impl Tally {
    /// What has left the window.
    fn before(&self, now: Timestamp, within_s: u32) -> Tally {
        let start = start(now, within_s);
        let mut stale = Tally::default();
        for (_, _, step) in self.recent.iter().take_while(|(at, ..)| *at <= start) {
            stale.add(step);
        }
        stale
    }

    fn add(&mut self, step: &Step) {
        self.total = self.total.saturating_add(step.by);
        for value in &step.values {
            *self.values.entry(value.clone()).or_default() += 1;
        }
    }

    fn take(&mut self, step: &Step) {
        self.total = self.total.saturating_sub(step.by);
        for value in &step.values {
            if let Some(count) = self.values.get_mut(value) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.values.remove(value);
                }
            }
        }
    }

    /// Counts a call. One that nobody could count any more is refused.
    pub fn count(&mut self, id: &DecisionId, step: &Step, now: Timestamp) -> Result<(), Uncounted> {
        if let Some(within_s) = step.within_s {
            let start = start(now, within_s);
            while self.recent.front().is_some_and(|(at, ..)| *at <= start) {
                if let Some((_, _, gone)) = self.recent.pop_front() {
                    self.take(&gone);
                }
            }
        }
        let fresh = step.values.iter().filter(|value| !self.values.contains_key(*value)).count();
        if self.recent.len() >= KEPT_MAX || self.values.len() + fresh > KEPT_MAX {
            return Err("history_full");
        }
        // Cut to the largest number, it would take others with it when it is given back.
        self.total.checked_add(step.by).ok_or("uncountable_argument")?;
        self.add(step);
        if step.within_s.is_some() {
            self.recent.push_back((now, id.clone(), step.clone()));
        }
        Ok(())
    }

    /// Takes a call back that did not come to pass.
    pub fn give_back(&mut self, id: &DecisionId, step: &Step) {
        match step.within_s {
            None => self.take(step),
            Some(_) => {
                if let Some(at) = self.recent.iter().rposition(|(_, of, _)| of == id) {
                    self.recent.remove(at);
                    self.take(step);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, Limits};
    use proptest::prelude::*;

    fn read(text: &str) -> Json {
        json::parse(text.as_bytes(), Limits { bytes_max: 1 << 16, depth_max: 16 }).unwrap()
    }

    fn fact(counts: Counts, within_s: Option<u32>) -> Fact {
        Fact {
            counts,
            tools: vec!["pay/refund".into(), "mail/*".into()],
            given: BTreeMap::new(),
            effect: None,
            within_s,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn call(fact: &Fact, tally: &mut Tally, tool: &str, arguments: &str, second: i64) -> Result<Value, Uncounted> {
        let arguments = read(arguments);
        let call = Call { tool, effect: Effect::Write, arguments: &arguments };
        let step = fact.step(call, &str::to_owned)?;
        let value = fact.value(Some(tally), step.as_ref(), at(second));
        if let Some(step) = step {
            tally.count(&DecisionId::new(format!("{second}-{arguments}")), &step, at(second))?;
        }
        Ok(value)
    }

    #[test]
    fn each_kind_of_fact_says_what_came_before_the_call() {
        let mut tally = Tally::default();
        let calls = fact(Counts::Calls, None);
        let values: Vec<_> = (0..3).map(|n| call(&calls, &mut tally, "pay/refund", "{}", n).unwrap()).collect();
        assert_eq!(values, [Value::Number(0), Value::Number(1), Value::Number(2)]);
        assert_eq!(call(&calls, &mut tally, "pay/other", "{}", 9), Ok(Value::Number(3)), "another tool counts nothing");

        let (sum, mut tally) = (fact(Counts::Sum("cents".into()), None), Tally::default());
        for (cents, before) in [("5", 0), ("7", 5), ("null", 12), ("1", 12)] {
            let said = call(&sum, &mut tally, "pay/refund", &format!(r#"{{"cents":{cents}}}"#), 0);
            assert_eq!(said, Ok(Value::Number(before)));
        }
        for cents in ["-1", "1.5", "\"5\"", "99999999999999999999"] {
            let said = call(&sum, &mut tally, "pay/refund", &format!(r#"{{"cents":{cents}}}"#), 0);
            assert_eq!(said, Err("uncountable_argument"), "{cents}");
        }

        let (distinct, mut tally) = (fact(Counts::Distinct("to".into()), None), Tally::default());
        for (to, before) in [(r#""a""#, 0), (r#"["a","b","b"]"#, 1), (r#""b""#, 2)] {
            let said = call(&distinct, &mut tally, "mail/send", &format!(r#"{{"to":{to}}}"#), 0);
            assert_eq!(said, Ok(Value::Number(before)));
        }

        let (seen, mut tally) = (fact(Counts::Seen(Some("to".into())), None), Tally::default());
        for (to, before) in [(r#""a""#, false), (r#"["a","b"]"#, false), (r#"["b","a"]"#, true), ("null", false)] {
            let said = call(&seen, &mut tally, "mail/send", &format!(r#"{{"to":{to}}}"#), 0);
            assert_eq!(said, Ok(Value::Seen(before)), "{to}");
        }
    }

    #[test]
    fn arguments_and_effects_narrow_what_counts() {
        let fact = Fact {
            given: [("path".to_owned(), "/secrets/*".to_owned())].into(),
            effect: Some(Effect::Read),
            tools: vec!["*".into()],
            ..fact(Counts::Seen(None), None)
        };
        let fits = |arguments: &str, effect| {
            let arguments = read(arguments);
            fact.fits(Call { tool: "fs/read", effect, arguments: &arguments })
        };
        assert!(fits(r#"{"path":"/secrets/a"}"#, Effect::Read));
        assert!(!fits(r#"{"path":"/secrets/a"}"#, Effect::Write));
        assert!(!fits(r#"{"path":"/srv/secrets/a"}"#, Effect::Read));
        assert!(!fits("{}", Effect::Read));
    }

    #[test]
    fn a_window_forgets_and_a_full_one_refuses() {
        let (fact, mut tally) = (fact(Counts::Calls, Some(60)), Tally::default());
        for (second, before) in [(0, 0), (30, 1), (59, 2), (60, 2), (200, 0)] {
            assert_eq!(call(&fact, &mut tally, "mail/x", "{}", second), Ok(Value::Number(before)), "{second}");
        }
        let mut tally = Tally::default();
        let step = Step { by: 1, within_s: Some(60), ..Step::default() };
        for n in 0..KEPT_MAX {
            tally.count(&DecisionId::new(n.to_string()), &step, at(0)).unwrap();
        }
        assert_eq!(tally.count(&DecisionId::new("x"), &step, at(1)), Err("history_full"));
        assert_eq!(tally.count(&DecisionId::new("x"), &step, at(61)), Ok(()));
    }

    #[test]
    fn a_call_that_is_too_large_to_add_up_takes_nothing_away() {
        for within_s in [None, Some(60)] {
            let (sum, mut tally) = (fact(Counts::Sum("cents".into()), within_s), Tally::default());
            assert_eq!(call(&sum, &mut tally, "pay/refund", r#"{"cents":5000}"#, 1), Ok(Value::Number(0)));
            let huge = format!(r#"{{"cents":{}}}"#, i64::MAX);
            assert_eq!(call(&sum, &mut tally, "pay/refund", &huge, 2), Err("uncountable_argument"));
            assert_eq!(call(&sum, &mut tally, "pay/refund", r#"{"cents":0}"#, 3), Ok(Value::Number(5000)));
        }
    }

    proptest! {
        /// What is given back was never there, whatever came between.
        #[test]
        fn giving_back_leaves_no_trace(
            calls in prop::collection::vec((prop_oneof![0i64..100, Just(i64::MAX), i64::MAX / 2..i64::MAX], 0u8..4, any::<bool>()), 0..40),
            windowed in any::<bool>(),
        ) {
            let within_s = windowed.then_some(1000);
            let (mut all, mut kept) = (Tally::default(), Tally::default());
            let mut back = Vec::new();
            for (n, (by, value, stays)) in calls.iter().enumerate() {
                let id = DecisionId::new(n.to_string());
                let step = Step { by: *by, values: vec![value.to_string()], within_s };
                // Refused, it is nowhere.
                if all.count(&id, &step, at(n as i64)).is_err() {
                    continue;
                }
                if *stays {
                    kept.count(&id, &step, at(n as i64)).unwrap();
                } else {
                    back.push((id, step));
                }
            }
            for (id, step) in back.iter().rev() {
                all.give_back(id, step);
            }
            prop_assert_eq!(all, kept);
        }

        /// The running sums are those of the calls that are in the window.
        #[test]
        fn a_windowed_sum_is_that_of_the_calls_within(gaps in prop::collection::vec((0i64..40, 0i64..50), 1..40)) {
            let fact = fact(Counts::Sum("n".into()), Some(60));
            let (mut tally, mut second, mut all) = (Tally::default(), 0, Vec::<(i64, i64)>::new());
            for (gap, n) in gaps {
                second += gap;
                let said = call(&fact, &mut tally, "pay/refund", &format!(r#"{{"n":{n}}}"#), second).unwrap();
                let expected: i64 = all.iter().filter(|(at, _)| *at > second - 60).map(|(_, n)| n).sum();
                prop_assert_eq!(said, Value::Number(expected));
                all.push((second, n));
            }
        }
    }
}
