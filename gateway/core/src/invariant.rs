//! The promises, named once. Tests, simulation and the running gateway check them by these names.

use std::sync::atomic::{AtomicU64, Ordering};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Nothing is forwarded without a durable decision that allows it.
    W1,
    /// No policy, composition, message, model output or header can relax the charter.
    W2,
    /// An evaluation error, a full queue, a failed write, a missing policy: deny.
    W3,
    /// No known secret value reaches an upstream, a prompt, a reply, a log line, the journal or a view.
    W4,
    /// An acknowledgement runs the exact stored proposal, within its scope, count and time.
    W5,
    /// Spent and reserved never exceed a budget's total.
    W6,
    /// Every engine event carries its enclosing task.
    W7,
    /// The journal shows any edit, reorder, gap or truncation.
    W8,
    /// One run of a worker at a time; an effect with an idempotency key happens at most once.
    W9,
    /// A dry run performs no effect but the brain's own engine calls.
    W10,
}

/// All of them, in order.
pub const ALL: [Invariant; 10] = [
    Invariant::W1,
    Invariant::W2,
    Invariant::W3,
    Invariant::W4,
    Invariant::W5,
    Invariant::W6,
    Invariant::W7,
    Invariant::W8,
    Invariant::W9,
    Invariant::W10,
];

static VIOLATIONS: [AtomicU64; ALL.len()] = [const { AtomicU64::new(0) }; ALL.len()];

/// Counts a violation unless `holds`, and passes `holds` on.
pub fn check(holds: bool, invariant: Invariant) -> bool {
    if !holds {
        VIOLATIONS[invariant as usize].fetch_add(1, Ordering::Relaxed);
    }
    holds
}

/// How often a promise was found broken since the start. Anything but 0 is a defect.
pub fn violations(invariant: Invariant) -> u64 {
    VIOLATIONS[invariant as usize].load(Ordering::Relaxed)
}
