//! `bivouac incus`

use std::process::ExitCode;

use bivouac_provider::{ExecRequest, Stdio};
use bivouac_spec::cluster::{Role, Stack};
use bivouac_spec::facts::ObservedState;
use bivouac_spec::{Problem, Problems};

use crate::args::{self, Global};
use crate::grounds::Existing;
use crate::selection::choose;

/// Where the client is in a node.
const CLIENT: &str = "/usr/bin/incus";

/// Runs the client in a member, over that member's own socket. Any of them serves the whole cluster.
pub async fn run(global: &Global, arguments: &args::Incus) -> Result<ExitCode, Problems> {
    let existing = choose(global, arguments.chosen.cluster.as_ref()).await?;
    let member = running_member(&existing)?;
    let node = existing.node(&member).await?;
    let command = std::iter::once(CLIENT.to_owned()).chain(arguments.arguments.iter().cloned());
    let request = ExecRequest {
        command: command.collect(),
        stdio: Stdio::Inherited,
        ..ExecRequest::default()
    };
    let code = node.exec(&request).await?.exit.await?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn running_member(existing: &Existing) -> Result<bivouac_spec::NodeName, Problem> {
    let (name, cluster) = (existing.name(), &existing.known()?.applied.cluster);
    let stack = &cluster.spec.stack;
    if !matches!(stack, Stack::Incus(_)) {
        let message = format!("cluster `{name}` is of stack {}, not of Incus", stack.name());
        return Err(Problem::usage("cli.not_incus", message)
            .help("name another cluster with `--cluster`, or use `bivouac kubectl`"));
    }
    let runs = |node: &bivouac_spec::NodeName| {
        let observed = existing.observed.nodes.get(node);
        observed.is_some_and(|node| node.state == ObservedState::Running)
    };
    let mut members = cluster.nodes().into_iter().filter(|node| node.role == Role::Member);
    members.find(|node| runs(&node.name)).map(|node| node.name).ok_or_else(|| {
        let message = format!("no member of cluster `{name}` runs");
        Problem::failed("cli.no_member", message).help(format!("run `bivouac start {name}`"))
    })
}
