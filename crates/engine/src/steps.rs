//! Runs a stack's steps in nodes.

use std::collections::BTreeSet;

use bivouac_provider::{ExecRequest, Provider, Stdio};
use bivouac_spec::{Class, ClusterName, NodeName, Problem};
use bivouac_stacks::Step;
use tokio::io::AsyncReadExt as _;

use crate::{Event, Reporter};

/// How many lines of what a failed command said are told.
const LINES: usize = 12;

/// Runs steps one after another, each on the first of its nodes that runs.
///
/// # Errors
/// When none of a step's nodes runs, or its command fails or takes too long.
pub(crate) async fn run_steps(
    provider: &dyn Provider,
    cluster: &ClusterName,
    running: &BTreeSet<NodeName>,
    steps: &[Step],
    reporter: &Reporter,
) -> Result<(), Problem> {
    for step in steps {
        reporter.report(Event::Working { what: step.name.clone() });
        let Some(node) = step.nodes.iter().find(|node| running.contains(*node)) else {
            let nodes: Vec<&str> = step.nodes.iter().map(NodeName::as_str).collect();
            let message = format!(
                "`{}` cannot be done in cluster `{cluster}`: it needs one of {}, and none of them runs",
                step.name,
                nodes.join(", ")
            );
            return Err(Problem::failed("engine.step_nowhere", message)
                .help(format!("run `bivouac start {cluster}`, then the same command again")));
        };
        ask(provider, cluster, node, step).await?;
    }
    Ok(())
}

/// Runs a step on a node. Gives what it printed.
///
/// # Errors
/// When its command fails or takes too long.
pub(crate) async fn ask(
    provider: &dyn Provider,
    cluster: &ClusterName,
    node: &NodeName,
    step: &Step,
) -> Result<String, Problem> {
    let patience = step.patience;
    let done = tokio::time::timeout(patience, run_step(provider, cluster, node, step)).await;
    done.map_err(|_| {
        let seconds = patience.as_secs();
        let message = format!("`{}` was not done within {seconds} s on node `{node}`", step.name);
        Problem::new(Class::TimedOut, "engine.step_timed_out", message).help(step.help.clone())
    })?
}

async fn run_step(
    provider: &dyn Provider,
    cluster: &ClusterName,
    node: &NodeName,
    step: &Step,
) -> Result<String, Problem> {
    let opened = provider.open_node(cluster, node).await?;
    let request = ExecRequest {
        command: step.command.clone(),
        environment: step.environment.clone(),
        stdio: Stdio::NoInput,
    };
    let mut process = opened.exec(&request).await?;
    let (mut said, mut complained) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout.take(), process.stderr.take());
    let reading = async {
        // What cannot be read is missing from the message; the exit code tells.
        if let Some(stream) = &mut stdout {
            let _ = stream.read_to_string(&mut said).await;
        }
    };
    let complaining = async {
        if let Some(stream) = &mut stderr {
            let _ = stream.read_to_string(&mut complained).await;
        }
    };
    let ((), (), code) = tokio::join!(reading, complaining, process.exit);
    let code = code?;
    if code == 0 {
        return Ok(said);
    }
    let message = format!("`{}` failed on node `{node}` with exit code {code}", step.name);
    let mut problem = Problem::failed("engine.step_failed", message).help(step.help.clone());
    let lines: Vec<&str> = said.lines().chain(complained.lines()).collect();
    let last = lines.len().saturating_sub(LINES);
    problem.causes.extend(lines[last..].iter().map(|line| (*line).to_owned()));
    Err(problem)
}
