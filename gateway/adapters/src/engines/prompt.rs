//! The one trait of all engines: a prompt in, its answer out.
//!
//! An engine that waits for its answer on the network or for a process implements [`Adapter`] itself. One that can only block
//! implements [`Blocking`], and [`OnThread`] gives it a thread of its own. Budget, time-out and record are not an adapter's
//! business: whatever calls one goes through [`within`] and the pipeline, so a new adapter cannot forget them.

use futures::future::{BoxFuture, join_all};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use warden_core::amount::Usage;
use warden_core::outcome::Lost;

/// What an engine is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The prompt.
    pub prompt: String,
    /// What comes before it, from the one who set the worker up.
    pub system: Option<String>,
    /// The model.
    pub model: String,
    /// Tokens of the answer at most.
    pub max_tokens: Option<u64>,
}

/// What an engine answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The answer.
    pub content: String,
    /// The model, as the engine names it.
    pub model: Option<String>,
    /// What it used, if it said.
    pub usage: Option<Usage>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Nothing was sent. The words are Warden's own.
    #[error("nothing was sent: {0}")]
    NotSent(String),
    /// The engine refused it, with a status of HTTP or one that comes close.
    #[error("the engine refused it with status {status}")]
    Refused {
        /// The status.
        status: u16,
        /// What it said, for the worker, once scanned.
        message: String,
        /// What it used all the same.
        usage: Option<Usage>,
    },
    /// It was sent, and no answer came.
    #[error("it was sent, and no answer came: {0:?}")]
    Lost(Lost),
}

/// An engine.
pub trait Adapter: Send + Sync {
    /// Executes a prompt. Dropping the future ends whatever it began.
    fn execute<'a>(&'a self, prompt: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>>;
}

/// An engine that can only block.
pub trait Blocking: Send + Sync {
    /// Executes a prompt on a thread of its own.
    fn execute_blocking(&self, prompt: &Prompt) -> Result<Completion, Failed>;
}

/// A blocking engine as any other.
pub struct OnThread<B>(Arc<B>);

impl<B: Blocking + 'static> OnThread<B> {
    /// Of `engine`.
    pub fn new(engine: B) -> Self {
        Self(Arc::new(engine))
    }
}

impl<B: Blocking + 'static> Adapter for OnThread<B> {
    fn execute<'a>(&'a self, prompt: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>> {
        let (engine, prompt) = (Arc::clone(&self.0), prompt.clone());
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || engine.execute_blocking(&prompt)).await;
            // What panicked may have sent something before.
            done.unwrap_or(Err(Failed::Lost(Lost::Gone)))
        })
    }
}

/// Executes a prompt until a deadline, and ends it there. One that is over before it began sends nothing.
pub async fn within(engine: &dyn Adapter, prompt: &Prompt, deadline: Instant) -> Result<Completion, Failed> {
    if deadline <= Instant::now() {
        return Err(Failed::NotSent("its time was over before it was sent".into()));
    }
    timeout_at(deadline, engine.execute(prompt)).await.unwrap_or(Err(Failed::Lost(Lost::TimedOut)))
}

/// Executes prompts on engines at once. Answers stand in the order of the questions, and one that fails leaves the others.
pub async fn gather(calls: &[(&dyn Adapter, Prompt)], patience: Duration) -> Vec<Result<Completion, Failed>> {
    let deadline = Instant::now() + patience;
    join_all(calls.iter().map(|(engine, prompt)| within(*engine, prompt, deadline))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Barrier;

    /// Answers once all of them are on their way.
    struct Waits {
        all: Arc<Barrier>,
        says: Result<&'static str, u16>,
    }

    impl Adapter for Waits {
        fn execute<'a>(&'a self, prompt: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>> {
            Box::pin(async move {
                self.all.wait().await;
                match self.says {
                    Ok(text) => {
                        Ok(Completion { content: format!("{text} {}", prompt.prompt), ..Completion::default() })
                    }
                    Err(status) => Err(Failed::Refused { status, message: String::new(), usage: None }),
                }
            })
        }
    }

    struct Thread(Arc<Barrier>, tokio::runtime::Handle);

    impl Blocking for Thread {
        fn execute_blocking(&self, prompt: &Prompt) -> Result<Completion, Failed> {
            self.1.block_on(self.0.wait());
            Ok(Completion { content: format!("thread {}", prompt.prompt), ..Completion::default() })
        }
    }

    fn prompt(text: &str) -> Prompt {
        Prompt { prompt: text.into(), ..Prompt::default() }
    }

    #[tokio::test]
    async fn s3_17_four_are_on_their_way_at_once_in_order_and_one_that_fails_leaves_three() {
        // A barrier of four: with fewer at once nobody would ever answer.
        let all = Arc::new(Barrier::new(4));
        let waits = |says| Waits { all: all.clone(), says };
        let (first, second, third) = (waits(Ok("first")), waits(Err(500)), waits(Ok("third")));
        let fourth = OnThread::new(Thread(all.clone(), tokio::runtime::Handle::current()));
        let calls: [(&dyn Adapter, Prompt); 4] =
            [(&first, prompt("a")), (&second, prompt("b")), (&third, prompt("c")), (&fourth, prompt("d"))];
        let answers = gather(&calls, Duration::from_secs(60)).await;
        let said: Vec<_> =
            answers.iter().map(|answer| answer.as_ref().map(|done| done.content.as_str()).ok()).collect();
        assert_eq!(said, [Some("first a"), None, Some("third c"), Some("thread d")]);
        assert!(matches!(answers[1], Err(Failed::Refused { status: 500, .. })));
    }

    struct Never(Arc<AtomicUsize>);

    impl Adapter for Never {
        fn execute<'a>(&'a self, _: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn s3_18_a_deadline_ends_a_call_and_one_that_is_over_sends_nothing() {
        let sent = Arc::new(AtomicUsize::new(0));
        let engine = Never(sent.clone());
        let late = within(&engine, &prompt("a"), Instant::now()).await;
        assert!(matches!(late, Err(Failed::NotSent(_))));
        assert_eq!(sent.load(Ordering::SeqCst), 0);
        let answer = within(&engine, &prompt("a"), Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(answer, Err(Failed::Lost(Lost::TimedOut)));
    }

    struct Panics;

    impl Blocking for Panics {
        fn execute_blocking(&self, _: &Prompt) -> Result<Completion, Failed> {
            std::panic::resume_unwind(Box::new("a panic"))
        }
    }

    #[tokio::test]
    async fn s3_14_a_panic_on_a_thread_is_an_error_and_the_runtime_goes_on() {
        let answer = OnThread::new(Panics).execute(&prompt("a")).await;
        assert_eq!(answer, Err(Failed::Lost(Lost::Gone)));
    }
}
