//! Questions about all requests at once, answered by cvc5 through Cedar's symbolic compiler.
//!
//! Needed by `policy prove` and `policy diff` alone. What the solver does not answer, answers with an error or too late is
//! *unknown*, never a yes; after any of these it is started afresh. What it refutes is shown by a request, and only a
//! request that the engine confirms counts.

pub mod diff;
pub mod prove;
pub mod universe;
pub mod witness;

use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet, Env};
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use witness::Witness;

/// The version that is Debian's, and that proofs were tried with.
const TRIED: &str = "1.0.3";

/// The solver, and how long it may think.
pub struct Prover {
    program: PathBuf,
    limit: Duration,
    compiler: Option<CedarSymCompiler<LocalSolver>>,
    /// How often it had to be started again.
    pub restarts: usize,
}

/// Bytes of the stack that a proof is worked out on. Only what is used is ever taken.
const STACK: usize = 2 << 30;

/// Does solver work on a stack of its own: the symbolic compiler walks sets of policies as deep trees, one level a policy.
pub fn deep<T: Send, F: Future<Output = T>>(work: impl FnOnce() -> F + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work()))
        };
        let thread = std::thread::Builder::new().name("solver".into()).stack_size(STACK).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the proof ended early")))
    })
}

/// There is no solver.
#[derive(Debug, thiserror::Error)]
#[error(
    "the solver cvc5 is not there ({why}): install it (Debian and Ubuntu: `apt install cvc5`; tried with {TRIED}), or name its path in CVC5"
)]
pub struct NoSolver {
    why: String,
}

/// What is asked.
pub enum Query<'q> {
    /// No request is allowed by both.
    Disjoint(&'q CompiledPolicySet, &'q CompiledPolicySet),
    /// What the first allows, the second allows.
    Implies(&'q CompiledPolicySet, &'q CompiledPolicySet),
    /// It allows nothing.
    AlwaysDenies(&'q CompiledPolicySet),
    /// It allows everything.
    AlwaysAllows(&'q CompiledPolicySet),
    /// It never fails to be evaluated.
    NeverErrors(&'q CompiledPolicy),
    /// It matches no request.
    NeverMatches(&'q CompiledPolicy),
}

/// What came of a question.
#[derive(Debug)]
pub enum Answered {
    /// Yes, for all requests.
    Yes,
    /// No: here is one.
    No(Box<Witness>),
    /// Nobody knows, and why.
    Unknown(String),
}

impl Prover {
    /// The solver of the variable `CVC5`, or `cvc5` of the path. `limit` is for one question.
    pub async fn find(limit: Duration) -> Result<Self, NoSolver> {
        let program: PathBuf = std::env::var_os("CVC5").map_or_else(|| "cvc5".into(), PathBuf::from);
        let missing = |why: String| NoSolver { why: format!("`{}`: {why}", program.display()) };
        let asked = Command::new(&program).arg("--version").kill_on_drop(true).output();
        let said = tokio::time::timeout(limit, asked).await;
        let said = said.map_err(|_| missing("no answer".into()))?.map_err(|e| missing(e.to_string()))?;
        if !String::from_utf8_lossy(&said.stdout).contains("cvc5") {
            return Err(missing("it is not cvc5".into()));
        }
        Ok(Self { program, limit, compiler: None, restarts: 0 })
    }

    /// Asks.
    pub async fn ask(&mut self, query: Query<'_>) -> Answered {
        let mut compiler = match self.compiler.take().map_or_else(|| self.start(), Ok) {
            Ok(compiler) => compiler,
            Err(why) => return Answered::Unknown(why),
        };
        let asked = async {
            match query {
                Query::Disjoint(a, b) => compiler.check_disjoint_with_counterexample_opt(a, b).await,
                Query::Implies(a, b) => compiler.check_implies_with_counterexample_opt(a, b).await,
                Query::AlwaysDenies(set) => compiler.check_always_denies_with_counterexample_opt(set).await,
                Query::AlwaysAllows(set) => compiler.check_always_allows_with_counterexample_opt(set).await,
                Query::NeverErrors(policy) => compiler.check_never_errors_with_counterexample_opt(policy).await,
                Query::NeverMatches(policy) => compiler.check_never_matches_with_counterexample_opt(policy).await,
            }
        };
        match tokio::time::timeout(self.limit, asked).await {
            Ok(Ok(counterexample)) => {
                self.compiler = Some(compiler);
                match counterexample {
                    None => Answered::Yes,
                    Some(Env { request, entities }) => Answered::No(Box::new(Witness { request, entities })),
                }
            }
            // The solver is dropped, which kills it: what is still under way there must not answer the next question.
            Ok(Err(e)) => {
                self.restarts += 1;
                Answered::Unknown(e.to_string())
            }
            Err(_) => {
                self.restarts += 1;
                Answered::Unknown(format!("no answer within {:.1} s", self.limit.as_secs_f64()))
            }
        }
    }

    fn start(&self) -> Result<CedarSymCompiler<LocalSolver>, String> {
        let mut command = Command::new(&self.program);
        // `like` with several stars is beyond the default strings solver.
        command.args(["--lang", "smt", "--strings-exp"]).kill_on_drop(true);
        let solver = LocalSolver::from_command(&mut command).map_err(|e| format!("the solver does not start: {e}"))?;
        CedarSymCompiler::new(solver).map_err(|e| e.to_string())
    }
}
