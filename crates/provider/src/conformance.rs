//! The conformance suite: what every provider must do, as cases that run over the in-memory one and over every real one.
//!
//! It prints nothing: [`run`] returns a [`Report`]. A case is skipped only for a reason that is a [`Skip`], so that skips can be
//! counted. Nodes must have `sh`, `cat`, `echo`, `sleep`, `true` and `false`, and an agent that writes a log and says its status.

mod cases;
mod commands;
mod life;
#[cfg(test)]
pub(crate) mod samples;

use std::time::Duration;

use bivouac_spec::Problem;
use futures::future::BoxFuture;

use crate::{NetworkRequest, NodeRequest, Provider};

pub use cases::ALL;

/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a cluster on the ground under test is made from. Nothing else may touch the cluster meanwhile.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Its network.
    pub network: NetworkRequest,
    /// Its nodes, at least one; some cases need two.
    pub nodes: Vec<NodeRequest>,
}

/// A named case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What must hold.
    pub name: &'static str,
    run: Run,
}

type Run = for<'a> fn(&'a dyn Provider, &'a Ground) -> BoxFuture<'a, Result<(), Stop>>;

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It was not asked.
    Skipped(Skip),
    /// It does not hold, and how.
    Failed(String),
}

/// Why a case was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// The ground describes fewer than two nodes.
    OneNode,
    /// The ground has no numbers of processes, so a restart cannot be told.
    NoPids,
}

/// Why a case ended early.
#[derive(Debug)]
enum Stop {
    Skip(Skip),
    Fail(String),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        let causes = problem.causes.join(": ");
        Self::Fail(format!("[{}] {problem}: {causes}", problem.code))
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Fail(error.to_string())
    }
}

/// How all cases went.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Each case and its outcome, in order.
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// What does not hold, and how.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.outcomes.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(text) => Some((*name, text.as_str())),
            _ => None,
        })
    }

    /// How many cases went so.
    pub fn count(&self, so: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| so(outcome)).count()
    }
}

/// Runs every case, one after another, each on an empty ground. The cluster is removed in the end.
pub async fn run(provider: &dyn Provider, ground: &Ground) -> Report {
    let mut report = Report::default();
    for case in ALL {
        report.outcomes.push((case.name, case.run(provider, ground).await));
    }
    report
}

impl Case {
    /// Runs this case alone.
    pub async fn run(&self, provider: &dyn Provider, ground: &Ground) -> Outcome {
        let cluster = &ground.network.cluster;
        let before = provider.destroy_cluster(cluster).await;
        let result = match before {
            Ok(()) => tokio::time::timeout(PATIENCE, (self.run)(provider, ground)).await,
            Err(problem) => Ok(Err(problem.into())),
        };
        let after = provider.destroy_cluster(cluster).await;
        match (result, after) {
            (Err(_), _) => Outcome::Failed(format!("not done after {} s", PATIENCE.as_secs())),
            (Ok(Err(Stop::Fail(text))), _) => Outcome::Failed(text),
            (_, Err(problem)) => {
                Outcome::Failed(format!("the cluster cannot be removed: {problem}"))
            }
            (Ok(Err(Stop::Skip(skip))), _) => Outcome::Skipped(skip),
            (Ok(Ok(())), Ok(())) => Outcome::Passed,
        }
    }
}

/// Fails the case with this sentence unless it holds.
fn check(holds: bool, otherwise: impl Into<String>) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Fail(otherwise.into())) }
}

/// Fails the case unless this is an error, and hands the problem on.
fn refused<T>(result: Result<T, Problem>, what: &str) -> Result<Problem, Stop> {
    match result {
        Ok(_) => Err(Stop::Fail(format!("{what} is not refused"))),
        Err(problem) => {
            let known = problem.code.starts_with("provider.") && !problem.message.is_empty();
            check(known, format!("{what} is refused without code or message: {problem:?}"))?;
            Ok(problem)
        }
    }
}
