//! A cluster's kubeconfig, made from what is known of it. Asks only its ground, for the way to it.

use bivouac_engine::reachable_kubeconfig;
use bivouac_pki::Kubeconfig;
use bivouac_spec::Problem;

use crate::args::Global;
use crate::grounds::Existing;
use crate::selection::open_state;

/// The kubeconfig of a cluster.
///
/// # Errors
/// When nothing is known of it, or its API cannot be reached.
pub async fn kubeconfig(global: &Global, existing: &Existing) -> Result<Kubeconfig, Problem> {
    let state = existing.known()?;
    let keys = open_state(global).read_keys(existing.name())?.ok_or_else(|| {
        Problem::failed(
            "cli.no_keys",
            format!("the keys of cluster `{}` are missing", existing.name()),
        )
        .help("remove the cluster with `bivouac down` and make it again")
    })?;
    let stack = bivouac_stacks::open(&state.applied.cluster.spec.stack);
    let access = stack.access(&state.render_request(), &keys)?;
    let kubeconfig = reachable_kubeconfig(existing.ground.provider.as_ref(), &access).await?;
    kubeconfig.ok_or_else(|| {
        let (name, stack) = (existing.name(), state.applied.cluster.spec.stack.name());
        let message = format!("cluster `{name}` is of stack {stack}, which has no kubeconfig");
        Problem::usage("cli.no_kubeconfig", message)
            .help(format!("run `bivouac {stack} -c {name} -- ...` to use it"))
    })
}
