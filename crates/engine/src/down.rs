//! `down`: removes a cluster, whole or in part, and everything of it.

use std::sync::Arc;

use bivouac_pki::entry_name;
use bivouac_plan::{Action, plan_down};
use bivouac_provider::Provider;
use bivouac_spec::{ClusterName, Problem, Problems};

use crate::kubeconfig::UserFile;
use crate::{Event, Reporter, StateDirectory};

/// What `down` needs.
pub struct DownRequest<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// Where it runs.
    pub provider: Arc<dyn Provider>,
    /// What is known.
    pub state: &'a StateDirectory,
    /// The user's kubeconfig file, for a cluster whose state does not say where its context is.
    pub kubeconfig: Option<UserFile>,
}

/// What a `down` came to.
#[derive(Debug)]
pub struct Downed {
    /// What was removed; empty when there was nothing.
    pub actions: Vec<Action>,
}

/// Removes a cluster. There may be nothing of it.
///
/// # Errors
/// When something of it is left, after everything else was removed.
pub async fn down(request: &DownRequest<'_>, reporter: &Reporter) -> Result<Downed, Problems> {
    let cluster = request.cluster;
    let lock = request.state.lock(cluster, "down")?;
    reporter.report(Event::Started { verb: "down".to_owned(), cluster: cluster.clone() });
    let observed = request.provider.observe().await?;
    let plan = plan_down(cluster, observed.iter().find(|observed| observed.name == *cluster));
    reporter
        .report(Event::Planned { actions: plan.actions.iter().map(Action::describe).collect() });
    // Asked even when nothing was observed: whatever the ground still has of the cluster goes.
    let mut problems: Vec<Problem> =
        request.provider.destroy_cluster(cluster).await.err().into_iter().collect();
    if problems.is_empty() {
        for node in plan.actions.iter().filter_map(Action::node) {
            reporter.report(Event::NodeRemoved { node: node.clone() });
        }
    }
    problems.extend(remove_access(request).err());
    // A cluster of which something is left stays known, so that the next `down` finds it.
    if problems.is_empty() {
        problems.extend(request.state.remove(cluster).err());
        problems.extend(lock.remove().err());
        request.state.remove_if_empty();
    }
    Problems::check(problems)?;
    Ok(Downed { actions: plan.actions })
}

fn remove_access(request: &DownRequest<'_>) -> Result<(), Problem> {
    // A state of another format still has its cluster removed: only the user's file must be named by hand then.
    let state = request.state.read(request.cluster).ok().flatten();
    let recorded = state.as_ref().and_then(|state| state.kubeconfig.clone());
    let owner = request.kubeconfig.as_ref().and_then(|file| file.owner);
    let file = match (recorded, &request.kubeconfig) {
        (Some(path), _) => UserFile { path, owner },
        (None, Some(file)) => file.clone(),
        (None, None) => return Ok(()),
    };
    if file.read()?.is_none() {
        return Ok(());
    }
    let unmergeable =
        |error: bivouac_pki::Error| Problem::from_error("kubeconfig.unmergeable", &error);
    let mut is_empty = false;
    file.edit(|before| {
        let name = entry_name(request.cluster.as_str());
        let after = bivouac_pki::remove(before.unwrap_or_default(), &name).map_err(unmergeable)?;
        is_empty = bivouac_pki::is_empty(&after).map_err(unmergeable)?;
        Ok(after)
    })?;
    if is_empty && state.is_some_and(|state| state.kubeconfig_made) {
        return file.remove();
    }
    Ok(())
}
