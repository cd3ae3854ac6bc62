//! One writer of a session at a time. Whoever comes second is told so at once; nobody waits.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The sessions that somebody is changing.
#[derive(Debug, Default)]
pub struct Locks(Mutex<HashSet<String>>);

/// The right to change one session; given back when dropped. Whatever is done under it is given this, and does not ask again.
#[derive(Debug)]
#[must_use]
pub struct Writer<'l> {
    locks: &'l Locks,
    session: String,
}

impl Locks {
    /// The right to change a session, unless somebody has it: `session_busy`.
    pub fn try_write(&self, session: &str) -> Option<Writer<'_>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(session.to_owned()).then(|| Writer { locks: self, session: session.to_owned() })
    }

    /// Whether somebody is changing a session. Asking leaves nothing behind.
    #[cfg(test)]
    fn is_busy(&self, session: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(session)
    }

    /// How many are being changed.
    #[cfg(test)]
    fn busy(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Writer<'_> {
    /// The session.
    pub fn session(&self) -> &str {
        &self.session
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.locks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::Locks;

    #[test]
    fn s2_50_s2_51_the_second_writer_is_told_at_once_and_other_sessions_go_on() {
        let locks = Locks::default();
        assert!(!locks.is_busy("A"));
        assert_eq!(locks.busy(), 0, "asking leaves nothing behind");
        let first = locks.try_write("A").unwrap();
        assert!(locks.try_write("A").is_none() && locks.is_busy("A"));
        let other = locks.try_write("B").unwrap();
        assert_eq!((first.session(), other.session(), locks.busy()), ("A", "B", 2));
        drop(first);
        assert!(locks.try_write("A").is_some(), "free again");
        drop(other);
        assert_eq!(locks.busy(), 0, "nothing grows");
    }

    #[test]
    fn s2_50_a_writer_that_panics_or_is_cancelled_gives_it_back() {
        let locks = std::sync::Arc::new(Locks::default());
        let theirs = std::sync::Arc::clone(&locks);
        let panicked = std::thread::spawn(move || {
            let _writer = theirs.try_write("A").unwrap();
            panic!("as tests do");
        });
        assert!(panicked.join().is_err());
        assert!(locks.try_write("A").is_some());
    }

    #[test]
    fn s2_51_of_many_at_once_one_writes() {
        let locks = Locks::default();
        let barrier = std::sync::Barrier::new(16);
        let written = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let writer = locks.try_write("A");
                        barrier.wait();
                        writer.is_some()
                    })
                })
                .collect();
            tries.into_iter().filter(|_| true).map(|one| one.join().unwrap()).filter(|wrote| *wrote).count()
        });
        assert_eq!(written, 1);
    }
}
