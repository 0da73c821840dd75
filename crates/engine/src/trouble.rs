//! What is wrong with a cluster, each with the command that mends it.

use std::time::SystemTime;

use bivouac_spec::node::status::UnitKind;
use bivouac_spec::{ClusterName, NodeName, NodeStatus, Problem};
use bivouac_stacks::Keys;
use jiff::{SignedDuration, Timestamp};

use crate::observe::{ClusterStatus, NodeReport, NodeWord};
use crate::{ClusterState, StateDirectory};

/// From how long before their end on certificates are a problem. `up` renews them from then on.
const RENEWAL: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The code of a node that does not run.
const ABSENT: &str = "status.node_absent";

/// What is wrong.
pub(crate) fn problems(status: &ClusterStatus, state: Option<&ClusterState>) -> Vec<Problem> {
    let name = &status.name;
    let nodes = status.nodes.iter();
    let mut problems: Vec<Problem> =
        nodes.filter_map(|(node, report)| of_node(name, node, report)).collect();
    // An absent node is often why others are not well.
    problems.sort_by_key(|problem| problem.code != ABSENT);
    if let Some(state) = state {
        problems
            .extend(status.nodes.iter().filter_map(|(node, report)| surplus(name, node, report)));
        problems.extend(unfinished(status, state));
    } else {
        let message = format!("the state folder knows nothing of cluster `{name}`");
        problems.push(Problem::failed("status.unrecorded", message).help(format!(
            "use the `--state-dir` that it was made with, or remove it with `bivouac down {name}`"
        )));
    }
    if !status.remains.is_empty() && status.nodes.values().all(|node| node.state.is_none()) {
        let message = format!("parts of cluster `{name}` are there without any node");
        let help = format!("run `bivouac up {name}` to make it whole, or `bivouac down {name}`");
        problems.push(Problem::failed("status.remains", message).help(help));
    }
    problems
}

fn of_node(cluster: &ClusterName, name: &NodeName, node: &NodeReport) -> Option<Problem> {
    let word = node.word();
    let unwell = || {
        let message = format!("node `{name}` is {}", word.name());
        let mut problem = Problem::failed("status.node_unwell", message);
        problem.causes = node.status.as_ref().map(causes).unwrap_or_default();
        problem
    };
    let restart = format!("`bivouac restart {cluster} --node {name}`");
    match word {
        NodeWord::Usable | NodeWord::Starting | NodeWord::Stopping => None,
        NodeWord::Degraded => Some(match node.status.as_ref().and_then(unready_service) {
            Some(service) => unwell().help(format!(
                "run `bivouac logs -c {cluster} {name} {service}` to see why; {restart} starts the node anew"
            )),
            // What does not hold is often about other nodes.
            None => unwell().help(format!(
                "mend what else is wrong first; where nothing is, `bivouac logs -c {cluster} {name}` says more"
            )),
        }),
        NodeWord::Failed => Some(unwell().help(format!(
            "run `bivouac up {cluster}` to give it its config again; `bivouac logs -c {cluster} {name}` says more"
        ))),
        NodeWord::Silent => Some(
            unwell().help(format!("run {restart} if this lasts; `bivouac logs -c {cluster} {name}` says more")),
        ),
        NodeWord::Missing | NodeWord::Stopped | NodeWord::Broken => Some(
            Problem::failed(ABSENT, format!("node `{name}` is {}", word.name()))
                .help(format!("run `bivouac up {cluster}` to bring it back")),
        ),
    }
}

/// Why a node is not well, as it says itself.
fn causes(status: &NodeStatus) -> Vec<String> {
    let problems = status.problems.iter().map(|problem| problem.message.clone());
    let units = status
        .pending()
        .map(|unit| format!("{}: {}", unit.name, unit.detail.as_deref().unwrap_or("not ready")));
    problems.chain(units).collect()
}

/// The first service that is not ready.
fn unready_service(status: &NodeStatus) -> Option<&str> {
    let mut services = status.pending().filter(|unit| unit.kind == UnitKind::Service);
    services.next().map(|unit| unit.name.as_str())
}

/// A node that is there and should not be, as when its removal was cut short.
fn surplus(cluster: &ClusterName, name: &NodeName, node: &NodeReport) -> Option<Problem> {
    if node.role.is_some() {
        return None;
    }
    let message = format!("node `{name}` is not part of cluster `{cluster}` any more");
    Some(
        Problem::failed("status.node_surplus", message)
            .help(format!("run `bivouac up {cluster}` to remove it")),
    )
}

/// The cluster as it was asked for last was never seen to be usable. While nodes come up or end, a verb may be at work.
fn unfinished(status: &ClusterStatus, state: &ClusterState) -> Option<Problem> {
    let applied = &state.applied;
    if let Some(restoring) = &state.restoring {
        return Some(restoring.refusal(&status.name));
    }
    let completed = applied.completed.as_ref();
    let moves = |node: &NodeReport| matches!(node.word(), NodeWord::Starting | NodeWord::Stopping);
    let is_done = completed.is_some_and(|before| **before == applied.cluster) && !state.remaking;
    if is_done || status.nodes.values().any(moves) {
        return None;
    }
    let name = &status.name;
    let message = format!("the last change of cluster `{name}` did not come to its end");
    let help =
        format!("run `bivouac up {name}` to go on; `bivouac events -c {name}` says how it ended");
    Some(Problem::failed("status.unfinished", message).help(help))
}

/// Adds when the certificates of a cluster end, and whether that is soon.
///
/// # Errors
/// When the keys of the cluster cannot be read.
pub fn add_certificates(
    status: &mut ClusterStatus,
    directory: &StateDirectory,
    state: &ClusterState,
    now: Timestamp,
) -> Result<(), Problem> {
    let Some(keys) = directory.read_keys(&status.name)? else { return Ok(()) };
    let Some(end) = first_end(state, &keys)? else { return Ok(()) };
    if let Some(about) = &mut status.about {
        about.certificates_end = Some(end);
    }
    status.problems.extend(ending(&status.name, end, now));
    Ok(())
}

fn first_end(state: &ClusterState, keys: &Keys) -> Result<Option<Timestamp>, Problem> {
    let end = bivouac_stacks::open(&state.applied.cluster.spec.stack).expiry(keys)?;
    Ok(end.and_then(timestamp))
}

/// A time that no calendar has is the end of nothing.
pub(crate) fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

/// Whether certificates that end then are renewed now.
pub(crate) fn is_near(end: Timestamp, now: Timestamp) -> bool {
    end.duration_since(now) <= RENEWAL
}

fn ending(cluster: &ClusterName, end: Timestamp, now: Timestamp) -> Option<Problem> {
    if !is_near(end, now) {
        return None;
    }
    let left = end.duration_since(now);
    let message = match left.as_hours() / 24 {
        _ if left.is_negative() => format!("certificates of cluster `{cluster}` ended at {end:.0}"),
        0 => format!("certificates of cluster `{cluster}` end within a day"),
        1 => format!("certificates of cluster `{cluster}` end in 1 day"),
        days => format!("certificates of cluster `{cluster}` end in {days} days"),
    };
    let problem = Problem::failed("status.certificates_end", message);
    Some(problem.help(format!("run `bivouac up {cluster}` to renew them")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bivouac_spec::facts::ObservedState;
    use bivouac_spec::node::status::UnitStatus;
    use bivouac_spec::node::{NodePhase, UnitState};

    use super::*;

    fn unit(name: &str, kind: UnitKind, state: UnitState, detail: Option<&str>) -> UnitStatus {
        UnitStatus {
            name: name.to_owned(),
            kind,
            state,
            detail: detail.map(str::to_owned),
            pid: None,
            restarts: 0,
            ready_after: None,
            late: false,
        }
    }

    fn node(phase: Option<NodePhase>, state: Option<ObservedState>) -> NodeReport {
        let status = phase.map(|phase| {
            let status = serde_json::json!({
                "cluster": "demo", "node": "worker-0", "config": "", "phase": phase, "uptime": 1, "units": [],
            });
            serde_json::from_value(status).unwrap()
        });
        NodeReport { role: Some("worker".to_owned()), state, status, ..NodeReport::default() }
    }

    fn told(node: &NodeReport) -> Option<String> {
        let problem = of_node(&"demo".parse().unwrap(), &"worker-0".parse().unwrap(), node)?;
        let causes = problem.causes.join("; ");
        Some(format!("{} ({causes}) -> {}", problem.message, problem.help.unwrap()))
    }

    #[test]
    fn every_trouble_of_a_node_names_the_command_that_mends_it() {
        let running = Some(ObservedState::Running);
        for phase in [NodePhase::Usable, NodePhase::Starting, NodePhase::Applying] {
            assert_eq!(told(&node(Some(phase), running)), None);
        }
        let mut degraded = node(Some(NodePhase::Degraded), running);
        degraded.status.as_mut().unwrap().units = vec![
            unit("node-ready", UnitKind::Condition, UnitState::Starting, Some("NotReady")),
            unit("kubelet", UnitKind::Service, UnitState::Restarting, Some("exit code 1")),
            unit("containerd", UnitKind::Service, UnitState::Ready, None),
        ];
        assert_eq!(
            told(&degraded).unwrap(),
            "node `worker-0` is degraded (node-ready: NotReady; kubelet: exit code 1) -> run `bivouac logs -c demo worker-0 kubelet` to see why; `bivouac restart demo --node worker-0` starts the node anew"
        );
        degraded.status.as_mut().unwrap().units.remove(1);
        let others = told(&degraded).unwrap();
        assert!(others.contains("-> mend what else is wrong first; "), "{others}");
        let mut failed = node(Some(NodePhase::Failed), running);
        failed.status.as_mut().unwrap().problems = vec![Problem::failed("a.b", "no such file")];
        let failed = told(&failed).unwrap();
        assert!(
            failed.starts_with("node `worker-0` is failed (no such file) -> run `bivouac up demo`")
        );
        let silent = told(&node(None, running)).unwrap();
        assert!(silent.contains("is silent () -> run `bivouac restart demo --node worker-0`"));
        for state in [None, Some(ObservedState::Stopped), Some(ObservedState::Broken)] {
            assert!(
                told(&node(None, state))
                    .unwrap()
                    .ends_with("-> run `bivouac up demo` to bring it back")
            );
        }
    }

    #[test]
    fn what_belongs_to_nobody_is_told() {
        let mut status = ClusterStatus {
            name: "demo".parse().unwrap(),
            provider: "linux".to_owned(),
            usable: false,
            ground_answers: true,
            about: None,
            nodes: BTreeMap::new(),
            remains: vec!["network".to_owned()],
            problems: Vec::new(),
        };
        let codes = |status: &ClusterStatus| -> Vec<String> {
            problems(status, None).into_iter().map(|problem| problem.code).collect()
        };
        assert_eq!(codes(&status), ["status.unrecorded", "status.remains"]);
        let usable = node(Some(NodePhase::Usable), Some(ObservedState::Running));
        let stranger = NodeReport { role: None, ..usable.clone() };
        status.nodes.insert("worker-0".parse().unwrap(), usable.clone());
        assert_eq!(
            codes(&status),
            ["status.unrecorded"],
            "a node without its network is told by the node"
        );
        let (demo, name) = ("demo".parse().unwrap(), "worker-1".parse().unwrap());
        assert!(surplus(&demo, &name, &usable).is_none());
        assert_eq!(surplus(&demo, &name, &stranger).unwrap().code, "status.node_surplus");
    }

    #[test]
    fn certificates_are_told_of_from_thirty_days_before_their_end() {
        let name = "demo".parse().unwrap();
        let end: Timestamp = "2027-11-21T00:00:00Z".parse().unwrap();
        let told = |now: &str| ending(&name, end, now.parse().unwrap()).map(|it| it.message);
        assert_eq!(told("2027-10-21T00:00:00Z"), None);
        let message = |what: &str| Some(format!("certificates of cluster `demo` {what}"));
        assert_eq!(told("2027-10-22T00:00:00Z"), message("end in 30 days"));
        assert_eq!(told("2027-11-19T12:00:00Z"), message("end in 1 day"));
        assert_eq!(told("2027-11-20T12:00:00Z"), message("end within a day"));
        assert_eq!(told("2027-11-21T00:00:01Z"), message("ended at 2027-11-21T00:00:00Z"));
    }
}
