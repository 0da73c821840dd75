//! An upgrade that fails is taken back: the nodes that have the new node image already get the old one, and the cluster is as it was.
//!
//! ```text
//! up (node image: current) --ok--> upgraded
//!      | refused: nothing was changed
//!      | failed, when it had begun               what was recorded as usable last: the cluster and its node image
//!      +--> up (node image: former) --ok--> as before    --failed--> in between; the same commands go on from there
//! ```
//!
//! Whoever interrupts an upgrade has it neither finished nor taken back: the same command finishes it, and `up` with the file as it was
//! before, or `upgrade --to` the old version, takes it back.

use bivouac_spec::facts::ObservedState;
use bivouac_spec::{Class, Cluster, ClusterName, ObservedCluster, Problem, Problems};
use tokio_util::sync::CancellationToken;

use crate::images::{ImageChoice, former_image};
use crate::prepare::prepare_and_record;
use crate::up::carry_out;
use crate::{ClusterState, Event, PrepareRequest, Reporter, UpOptions};

/// Takes back what was begun and has failed. Gives what is to be told.
pub(crate) async fn take_back(
    request: &PrepareRequest<'_>,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
    failed: Problems,
) -> Problems {
    if cancel.is_cancelled() {
        return failed;
    }
    // What cannot be read now could be read before anything was changed, or nothing was.
    let Ok(Some(state)) = request.state.read(request.cluster.name()) else { return failed };
    let (Some(cluster), Some(image)) = (&state.applied.completed, former_image(&state)) else {
        return failed;
    };
    // Nothing was to be changed, or all of it is done and only the user's access is missing.
    if state.applied.cluster == **cluster && state.image == image {
        return failed;
    }
    let name = cluster.name();
    let stack = bivouac_stacks::open(&cluster.spec.stack);
    let was = stack.describe();
    let reasons = failed.as_slice().iter().map(|problem| problem.message.as_str());
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    let note = format!("the upgrade of cluster `{name}` has failed and is taken back: {reasons}");
    reporter.report(Event::Noted { note });
    let former = PrepareRequest {
        cluster,
        provider: request.provider.clone(),
        stack: stack.as_ref(),
        node_image: ImageChoice::Former,
        ..*request
    };
    let back = async {
        let prepared = prepare_and_record(&former, &options.only, reporter).await?;
        carry_out(&former, options, prepared, reporter, cancel).await
    };
    match back.await {
        Ok(_) => {
            let message = format!("cluster `{name}` was not upgraded, and is as it was: {was}");
            told(Class::Failed, "engine.upgrade_taken_back", message, &failed).into()
        }
        Err(problems) => {
            let message = format!(
                "the upgrade of cluster `{name}` has failed, and could not be taken back: some nodes have another node image than others"
            );
            let first = problems.as_slice().first();
            let class = first.map_or(Class::Partial, |problem| problem.class);
            let class = if class == Class::Interrupted { class } else { Class::Partial };
            let mut problem = told(class, "engine.upgrade_unfinished", message, &failed);
            let causes = problems.as_slice().iter().map(|back| format!("taking it back: {back}"));
            problem.causes.extend(causes);
            let asked = request.cluster.spec.stack.version();
            let (on, to) = (command(name, asked), cluster.spec.stack.version());
            let back = if asked == to {
                format!("`{on}` to go on")
            } else {
                format!("`{}` to take it back, or `{on}` to go on", command(name, to))
            };
            problem.help(format!("mend what is told above, then run {back}")).into()
        }
    }
}

/// The command that brings a cluster to a version. Without one the verb asks for the newest that it has.
fn command(name: &ClusterName, version: Option<&str>) -> String {
    let version = version.map(|version| format!(" --to {version}")).unwrap_or_default();
    format!("bivouac upgrade {name}{version}")
}

/// Why a cluster cannot get the image at this moment. Whoever goes on with an upgrade or takes it back is not kept from that.
pub(crate) fn refusals(
    choice: ImageChoice,
    known: &ClusterState,
    observed: &ObservedCluster,
    image: &str,
) -> Vec<Problem> {
    let Some(completed) = &known.applied.completed else { return Vec::new() };
    let is_begun = image == known.image || former_image(known).as_deref() == Some(image);
    let unfinished = (choice == ImageChoice::Current).then(|| unfinished(known, completed));
    let stopped = (!is_begun).then(|| stopped(known, observed));
    unfinished.into_iter().chain(stopped).flatten().collect()
}

/// What is taken back becomes what was usable last. That must not take nodes away that were added since.
fn unfinished(known: &ClusterState, completed: &Cluster) -> Option<Problem> {
    let applied = &known.applied.cluster;
    let mut expected = completed.clone();
    let version = expected.set_version(applied.spec.stack.version());
    if version.is_ok() && expected == *applied {
        return None;
    }
    let name = applied.name();
    let message = format!(
        "cluster `{name}` cannot be upgraded: it was changed, and that has not come to its end"
    );
    let help = format!("finish it with `bivouac up {name}`, then run the same command again");
    Some(Problem::usage("engine.change_unfinished", message).help(help))
}

/// Who is stopped would get the image when all others are started, and not in turn.
fn stopped(known: &ClusterState, observed: &ObservedCluster) -> Option<Problem> {
    let nodes = observed.nodes.iter().filter(|(_, node)| node.state == ObservedState::Stopped);
    let nodes: Vec<&str> = nodes.map(|(name, _)| name.as_str()).collect();
    if nodes.is_empty() {
        return None;
    }
    let (name, nodes) = (known.applied.cluster.name(), nodes.join(", "));
    let message =
        format!("cluster `{name}` cannot be upgraded while nodes of it are stopped: {nodes}");
    let help = format!("run `bivouac start {name}`, then the same command again");
    Some(Problem::usage("engine.upgrade_of_stopped", message).help(help))
}

/// The problem of an upgrade: why it failed, and what helps against that.
fn told(class: Class, code: &str, message: String, failed: &Problems) -> Problem {
    let mut problem = Problem::new(class, code, message);
    for failed in failed.as_slice() {
        problem.causes.push(failed.to_string());
        problem.causes.extend(failed.causes.iter().cloned());
    }
    problem.help = failed.as_slice().iter().find_map(|problem| problem.help.clone());
    problem
}
