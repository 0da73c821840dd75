//! The way of a cluster's access into the user's kubeconfig, and out of it again.

use bivouac_pki::{Kubeconfig, entry_name};
use bivouac_provider::Provider;
use bivouac_spec::{ClusterName, Problem};
use bivouac_stacks::Access;

use crate::kubeconfig::UserFile;
use crate::{ClusterState, StateDirectory};

/// The kubeconfig of an access, with the address at which its API is reached from here. Only Kubernetes has one.
///
/// # Errors
/// When the ground cannot reach it.
pub async fn reachable_kubeconfig(
    provider: &dyn Provider,
    access: &Access,
) -> Result<Option<Kubeconfig>, Problem> {
    let Access::Kubernetes(access) = access else { return Ok(None) };
    let node = provider.open_node(&access.cluster, &access.node).await?;
    Ok(Some(access.kubeconfig(node.forward(access.address.port()).await?)))
}

/// The state with the place of the user's kubeconfig, so that `down` takes the access out of it again. A file that was made for
/// another cluster was made by bivouac all the same: the last of them removes it.
pub(crate) fn remember_access(
    directory: &StateDirectory,
    file: &UserFile,
    state: &ClusterState,
) -> ClusterState {
    let made_for_another = || {
        let others = directory.clusters().unwrap_or_default();
        let mut states = others.iter().filter_map(|name| directory.read(name).ok().flatten());
        states.any(|other| other.kubeconfig_made && other.kubeconfig.as_ref() == Some(&file.path))
    };
    ClusterState {
        kubeconfig: Some(file.path.clone()),
        kubeconfig_made: state.kubeconfig_made || !file.path.exists() || made_for_another(),
        ..state.clone()
    }
}

/// Merges the access into the user's kubeconfig.
pub(crate) fn merge_access(file: &UserFile, ours: &Kubeconfig) -> Result<(), Problem> {
    file.edit(|existing| {
        bivouac_pki::merge(existing, ours, true).map_err(|error| unmergeable(&error))
    })
}

/// Takes the access of a cluster out of the file that `state` names, or else out of `file`.
pub(crate) fn remove_access(
    cluster: &ClusterName,
    state: Option<&ClusterState>,
    file: Option<&UserFile>,
) -> Result<(), Problem> {
    let recorded = state.and_then(|state| state.kubeconfig.clone());
    let owner = file.and_then(|file| file.owner);
    let file = match (recorded, file) {
        (Some(path), _) => UserFile { path, owner },
        (None, Some(file)) => file.clone(),
        (None, None) => return Ok(()),
    };
    if file.read()?.is_none() {
        return Ok(());
    }
    let mut is_empty = false;
    file.edit(|before| {
        let name = entry_name(cluster.as_str());
        let after = bivouac_pki::remove(before.unwrap_or_default(), &name)
            .map_err(|error| unmergeable(&error))?;
        is_empty = bivouac_pki::is_empty(&after).map_err(|error| unmergeable(&error))?;
        Ok(after)
    })?;
    if is_empty && state.is_some_and(|state| state.kubeconfig_made) {
        return file.remove();
    }
    Ok(())
}

fn unmergeable(error: &bivouac_pki::Error) -> Problem {
    Problem::from_error("kubeconfig.unmergeable", error)
        .help("correct the file, or name another one with the variable `KUBECONFIG`")
}
