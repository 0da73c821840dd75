//! Changing a node that runs.
//!
//! ```text
//! limits, routes, hosts, config    in place, by a process that enters the node; then `bivouac agent apply` in it
//! image, disk, an agent too old    stopped, and started anew around its data
//! ports                            rules of the host: `ensure_network` made them
//! ```
//!
//! Meanwhile the record names no config, so that a command that is killed leaves a node that differs from whatever is wanted next. Then
//! all of it is done again.

use std::time::Duration;

use bivouac_provider::{ExecRequest, Node, NodeRequest, Reader, Stdio};
use bivouac_spec::facts::Aspect;
use bivouac_spec::node::paths;
use bivouac_spec::node::stream::Answer;
use bivouac_spec::{Problem, network::NodeAddresses};
use tokio::io::AsyncReadExt as _;

use super::folder::StateFolder;
use super::node::LinuxNode;
use super::order::{Order, Target, Update};
use super::problem::{OrProblem as _, failed, not_running};
use super::record::{NodeRecord, find_process, write_secret};
use super::{blocking, group, launch, limits, names, remove};
use crate::UNREADABLE;

/// How long a node that is made anew may take to stop.
const GRACE: Duration = Duration::from_secs(20);

/// How many lines of what the agent says are kept.
const LAST_LINES: usize = 5;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The node is what the request says.
    Done,
    /// It was stopped, and is to be started anew.
    Stopped,
}

/// Changes a node that runs, in what differs.
pub(super) async fn update(
    state: &StateFolder,
    request: &NodeRequest,
    aspects: &[Aspect],
) -> Result<Outcome, Problem> {
    let has = |aspect| aspects.contains(&aspect);
    if has(Aspect::Image) || has(Aspect::Disk) {
        return stop(state, request).await;
    }
    let (owned_state, owned) = (state.clone(), request.clone());
    let (resources, config) = (has(Aspect::Resources), has(Aspect::Config));
    let order = blocking(move || begin(&owned_state, &owned, resources, config)).await?;
    let config = order.config;
    launch::ask(&Order::Update(Box::new(order))).await?;
    if config && !apply(&node(state, request)?).await? {
        return stop(state, request).await;
    }
    let (state, owned) = (state.clone(), request.clone());
    blocking(move || note(&state, &owned, owned.record())).await.map(|()| Outcome::Done)
}

/// Stopping keeps its data, and what it changed of its image.
async fn stop(state: &StateFolder, request: &NodeRequest) -> Result<Outcome, Problem> {
    let (state, cluster, node) = (state.clone(), request.cluster.clone(), request.node.clone());
    let stopped = blocking(move || remove::stop(&state, &cluster, &node, GRACE)).await;
    stopped.map(|()| Outcome::Stopped)
}

/// Looks whether it can be done, notes that it is being done, and says what there is to do.
fn begin(
    state: &StateFolder,
    request: &NodeRequest,
    resources: bool,
    config: bool,
) -> Result<Update, Problem> {
    let (cluster, node) = (&request.cluster, &request.node);
    let folder = state.node(cluster, node);
    let process = find_process(&folder, cluster, node)?;
    let process = process.ok_or_else(|| not_running(cluster, node))?;
    // One that was begun and not ended: nobody knows how far it came.
    let (resources, config) = match NodeRecord::read(&folder)? {
        Some(record) if record.made.config.is_empty() => (true, true),
        _ => (resources, config),
    };
    if resources && let Some(group) = group::find(&folder, cluster, node)? {
        limits::check(&group, &names::label(cluster, node), request.resources)?;
    }
    note(state, request, bivouac_spec::NodeRecord { config: String::new(), ..request.record() })?;
    if config {
        let text = serde_json::to_vec(&request.config)
            .or_problem("config", format_args!("the config of node {node} cannot be written"))?;
        write_secret(&folder.config(), &text)?;
    }
    Ok(Update {
        node: Target::new(cluster.clone(), node.clone(), folder, &process),
        addresses: request.addresses.clone(),
        resources: resources.then_some(request.resources),
        config,
    })
}

fn node(state: &StateFolder, request: &NodeRequest) -> Result<LinuxNode, Problem> {
    let (cluster, name) = (request.cluster.clone(), request.node.clone());
    Ok(LinuxNode {
        address: own(request)?.primary(),
        folder: state.node(&cluster, &name),
        cluster,
        name,
    })
}

fn own(request: &NodeRequest) -> Result<&NodeAddresses, Problem> {
    let (cluster, node) = (&request.cluster, &request.node);
    let own = request.addresses.nodes.get(node);
    own.ok_or_else(|| {
        failed("no_address", format_args!("node {node} of cluster {cluster} has no address"))
    })
}

/// Writes down what the node is made from now. Without the digest of a config it differs from whatever is wanted.
fn note(
    state: &StateFolder,
    request: &NodeRequest,
    made: bivouac_spec::NodeRecord,
) -> Result<(), Problem> {
    let folder = state.node(&request.cluster, &request.node);
    let path = folder.record();
    let record = NodeRecord::read(&folder)?
        .ok_or_else(|| failed("record", format_args!("{path} cannot be read")))?;
    let own = own(request)?;
    let record = NodeRecord {
        addresses: own.addresses,
        pod_networks: own.pod_networks.clone(),
        made,
        image_digest: request.image.digest.clone(),
        ..record
    };
    record.write(&folder)?;
    NodeRecord::sync(&folder)
}

/// Has the agent take the config that lies there. `false` if it is of a version that takes none while it runs, or cannot
/// read this one.
async fn apply(node: &LinuxNode) -> Result<bool, Problem> {
    let command = ExecRequest::piped([paths::AGENT, "agent", "apply"]);
    let mut process = node.exec(&ExecRequest { stdio: Stdio::NoInput, ..command }).await?;
    let read = |stream: Option<Reader>| async {
        let mut text = String::new();
        if let Some(mut stream) = stream {
            // Whatever can be read is better than nothing.
            let _ = stream.read_to_string(&mut text).await;
        }
        text
    };
    let (_, errors, code) =
        futures::join!(read(process.stdout.take()), read(process.stderr.take()), process.exit);
    answer(&node.name, code?, &errors)
}

/// What the agent's exit code and its words mean.
fn answer(node: &bivouac_spec::NodeName, code: i32, errors: &str) -> Result<bool, Problem> {
    let told = errors.lines().find_map(|line| match Answer::parse(line) {
        Some(Answer::Problem(problem)) => Some(problem),
        _ => None,
    });
    match (code, told) {
        (0, _) => Ok(true),
        (_, Some(problem)) if problem.code == UNREADABLE => Ok(false),
        (_, Some(problem)) => Err(problem),
        // So say commands that were made before it.
        (2, None) if errors.contains("unrecognized subcommand") => Ok(false),
        (code, None) => {
            let message = format!("the agent of node {node} does not take the new config");
            let mut problem = failed("apply", message)
                .help(format!("read what it says with `bivouac logs {node}`"));
            let lines: Vec<&str> = errors.lines().filter(|line| !line.is_empty()).collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            problem.causes.push(format!("it ended with {code}"));
            problem.causes.extend(last.iter().map(|line| (*line).to_owned()));
            Err(problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_takes_a_config_or_refuses_it_or_is_too_old() {
        let node = "worker-0".parse().unwrap();
        assert_eq!(answer(&node, 0, "warning: slow\n"), Ok(true));
        let old = "error: unrecognized subcommand 'apply'\n\nUsage: bivouac agent <COMMAND>\n";
        assert_eq!(answer(&node, 2, old), Ok(false));
        let problem = Problem::usage("agent.config", "it makes no sense");
        let line = Answer::Problem(problem.clone()).line();
        assert_eq!(answer(&node, 2, &format!("note\n{line}")), Err(problem));
        let newer = Answer::Problem(Problem::failed(UNREADABLE, "it is of a newer version")).line();
        assert_eq!(answer(&node, 1, &newer), Ok(false));
        let problem = answer(&node, 1, "a\n\nerror: no\n").unwrap_err();
        assert_eq!(problem.code, "provider.linux.apply");
        assert_eq!(problem.causes, ["it ended with 1", "a", "error: no"]);
    }
}
