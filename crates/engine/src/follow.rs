//! Follows what nodes say of themselves until they are usable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bivouac_provider::{ExecRequest, LogRequest, Node, Process, Stdio};
use bivouac_spec::node::status::UnitKind;
use bivouac_spec::node::{NodePhase, UnitState, paths};
use bivouac_spec::{Class, NodeName, NodeStatus, Problem, Problems};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Event, Reporter};

/// What each node said last.
type Latest = BTreeMap<NodeName, NodeStatus>;

/// How far nodes are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All of each holds.
    Usable,
    /// Their services run; what holds of the whole cluster is not asked.
    ServicesReady,
}

impl Until {
    fn is_reached(self, status: &NodeStatus) -> bool {
        match self {
            Self::Usable => status.phase == NodePhase::Usable,
            Self::ServicesReady => {
                status.phase != NodePhase::Applying
                    && status.pending().all(|unit| unit.kind != UnitKind::Service)
            }
        }
    }
}

/// Follows all `nodes` until every one is so far. The first that fails ends it: the others often wait for that one.
///
/// # Errors
/// When a node ends or cannot become usable, when `within` is over (the message says what each node waited for), or when
/// `cancel` was called.
pub async fn follow_until(
    until: Until,
    nodes: &[Arc<dyn Node>],
    within: Duration,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<(), Problems> {
    let (latest, _) = watch::channel(Latest::new());
    let all = futures::future::try_join_all(
        nodes.iter().map(|node| follow(until, node.as_ref(), &latest, reporter)),
    );
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(up_interrupted().into()),
        outcome = all => outcome.map(drop).map_err(Problems::from),
        () = tokio::time::sleep(within) => Err(timed_out(nodes, &latest.borrow(), within).into()),
    }
}

/// The problem of a verb that the user stopped.
pub(crate) fn interrupted(message: &str) -> Problem {
    Problem::new(Class::Interrupted, "engine.interrupted", message)
}

/// The problem of an `up` that the user stopped.
pub(crate) fn up_interrupted() -> Problem {
    interrupted("stopped before the cluster was usable")
        .help("run the same command again to go on, or `bivouac down` to remove what is there")
}

async fn follow(
    until: Until,
    node: &dyn Node,
    latest: &watch::Sender<Latest>,
    reporter: &Reporter,
) -> Result<(), Problem> {
    let mut request = ExecRequest::piped([paths::AGENT, "agent", "status", "--follow"]);
    request.stdio = Stdio::NoInput;
    let mut process = node.exec(&request).await?;
    let stdout = process.stdout.take().ok_or_else(|| no_stream(node.name()))?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) =
        lines.next_line().await.map_err(|error| ended(node.name(), &error.to_string()))?
    {
        let status: NodeStatus = serde_json::from_str(&line)
            .map_err(|error| ended(node.name(), &format!("{error} in `{line}`")))?;
        let (name, phase, after) = (status.node.clone(), status.phase, status.uptime);
        let (is_reached, is_usable) = (until.is_reached(&status), phase == NodePhase::Usable);
        latest.send_modify(|latest| drop(latest.insert(name.clone(), status.clone())));
        let failure = (phase == NodePhase::Failed).then(|| cannot_apply(&status));
        reporter.report(Event::NodeStatus { status });
        if let Some(failure) = failure {
            return Err(failure);
        }
        if is_usable {
            reporter.report(Event::NodeUsable { node: name, after });
        }
        if is_reached {
            return Ok(());
        }
    }
    Err(explain_end(node, process).await)
}

fn no_stream(node: &NodeName) -> Problem {
    Problem::failed(
        "engine.no_stream",
        format!("the status of node `{node}` came without a stream"),
    )
}

fn ended(node: &NodeName, why: &str) -> Problem {
    let message = format!("node `{node}` ended or cannot be reached while it was starting: {why}");
    Problem::failed("engine.node_ended", message).help(format!(
        "run `bivouac up` again to start it anew, or `bivouac logs {node}` to see why it ended"
    ))
}

/// The stream of a node's status ended: with it, the last words of the agent.
async fn explain_end(node: &dyn Node, process: Process) -> Problem {
    let mut errors = String::new();
    if let Some(mut stderr) = process.stderr {
        // What cannot be read adds nothing to the explanation.
        let _ = stderr.read_to_string(&mut errors).await;
    }
    let exit = process.exit.await;
    let request = LogRequest { service: None, tail: Some(5), follow: false };
    let log = match node.logs(&request).await {
        Ok(mut log) => {
            let mut text = String::new();
            let _ = log.read_to_string(&mut text).await;
            Some(text)
        }
        Err(_) => None,
    };
    explained(node.name(), exit, errors.trim(), log.as_deref())
}

/// What the end of a stream means, by how its command ended, what that said, and the agent's log.
fn explained(
    node: &NodeName,
    exit: Result<i32, Problem>,
    errors: &str,
    log: Option<&str>,
) -> Problem {
    let mut problem = match exit {
        Ok(code) => ended(node, format!("exit code {code} {errors}").trim()),
        // It is the ground that does not answer, which says better why, and what to do.
        Err(mut problem) if log.is_none() => {
            problem.message = format!("node `{node}` was lost while it started: {problem}");
            return problem;
        }
        Err(lost) => {
            let mut problem = ended(node, format!("{lost} {errors}").trim());
            problem.causes = lost.causes;
            problem
        }
    };
    let lines = log.unwrap_or_default().lines();
    problem.causes.extend(lines.map(|line| format!("agent: {line}")));
    problem
}

fn cannot_apply(status: &NodeStatus) -> Problem {
    let mut problem = Problem::failed(
        "engine.node_failed",
        format!("node `{}` cannot be made what its config says", status.node),
    );
    problem.causes = status
        .pending()
        .filter_map(|unit| unit.detail.clone())
        .chain(status.warnings.clone())
        .collect();
    problem.help(format!("run `bivouac logs {}` for the agent's log", status.node))
}

fn timed_out(nodes: &[Arc<dyn Node>], latest: &Latest, within: Duration) -> Problem {
    let seconds = within.as_secs();
    let mut problem = Problem::new(
        Class::TimedOut,
        "engine.timed_out",
        format!("the cluster was not usable within {seconds} s"),
    );
    for node in nodes {
        let name = node.name();
        match latest.get(name) {
            None => problem.causes.push(format!("node `{name}` said nothing")),
            Some(status) => problem.causes.extend(
                status.pending().filter(|unit| unit.state != UnitState::Waiting).map(|unit| {
                    format!(
                        "node `{name}` waits: {} ({})",
                        unit.name,
                        unit.detail.as_deref().unwrap_or("no answer yet")
                    )
                }),
            ),
        }
    }
    problem.help("run `bivouac up` again to go on waiting, `bivouac status` to see more, or name a longer time with `--timeout`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Problem {
        let mut problem = Problem::failed("provider.docker.connection", "the connection broke");
        problem.causes.push("connection refused".to_owned());
        problem.help("see that the engine runs, then run the command again")
    }

    #[test]
    fn a_ground_that_does_not_answer_is_told_as_it_tells_it() {
        let node = "worker-0".parse().unwrap();
        let problem = explained(&node, Err(lost()), "", None);
        assert_eq!((&problem.code, &problem.help), (&lost().code, &lost().help));
        assert_eq!(problem.causes, lost().causes);
        assert!(problem.message.contains("`worker-0`"), "{problem}");
        assert!(problem.message.ends_with("the connection broke"), "{problem}");
    }

    #[test]
    fn a_node_that_ended_is_told_with_its_last_words() {
        let node = "worker-0".parse().unwrap();
        let problem = explained(&node, Ok(3), "no config", Some("one\ntwo\n"));
        assert_eq!(problem.code, "engine.node_ended");
        assert!(problem.message.ends_with("exit code 3 no config"), "{problem}");
        assert_eq!(problem.causes, ["agent: one", "agent: two"]);
        // The ground is back, and the node was not there for a while.
        let problem = explained(&node, Err(lost()), "", Some("one"));
        assert_eq!(problem.code, "engine.node_ended");
        assert_eq!(problem.causes, ["connection refused", "agent: one"]);
        assert!(problem.message.ends_with("the connection broke"), "{problem}");
    }
}
