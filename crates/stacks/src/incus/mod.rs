//! A cluster of Incus: system containers in the manner of LXD. All members are equal; one of the founders makes the cluster, the others
//! join it. No token travels: every certificate is made beforehand, so whoever joins is known before it asks.
//!
//! ```text
//! every member:  lan* > lan-leases, lan-names               (* tasks)
//!                lxcfs, lan* > instances > incusd > cluster* > guard
//!                                                            > member* (zone and labels, where there are any)
//! first:         cluster* makes the cluster and trusts the others; image* follows
//! others:        cluster* joins it, again and again until the first is so far
//! usable:        instances are found by name (every member); all members are online, the pool and the image are there (the first)
//! ```
//!
//! - [`layout`]: the cluster, looked at; [`keys`]: certificates; [`places`]: paths
//! - [`lan`]: the network between instances, with addresses and names; [`daemon`]: lxcfs, incusd and what belongs to them
//! - [`storage`]: where instances are kept; [`cluster`]: how it is founded and joined; [`preseed`]: what it is founded with; [`guard`]: what watches over a member
//! - [`conditions`]: when a member is usable; [`steps`]: what is done when members come and go

mod cluster;
mod conditions;
mod daemon;
mod guard;
mod keys;
mod lan;
mod layout;
mod places;
mod preseed;
mod steps;
mod storage;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::SystemTime;

use bivouac_spec::facts::Applied;
use bivouac_spec::node::config::FORMAT;
use bivouac_spec::{Cluster, NodeConfig, NodeName, Problem};
use camino::Utf8PathBuf;

use crate::stack::{Access, Change, IncusAccess, Keys, RenderRequest, Stack, Step};
use keys::Secrets;
use layout::{API_PORT, Layout, Member};

/// The version that the node image holds.
const VERSION: &str = "6.0";

/// The `incus` stack.
#[derive(Debug)]
pub(crate) struct Incus {
    pub(crate) settings: bivouac_spec::cluster::Incus,
}

impl Stack for Incus {
    fn ensure_keys(
        &self,
        existing: Option<Keys>,
        request: &RenderRequest<'_>,
        now: SystemTime,
    ) -> Result<Keys, Problem> {
        keys::ensure(existing, &Layout::of(request, &self.settings)?, now)
    }

    fn render(
        &self,
        request: &RenderRequest<'_>,
        keys: &Keys,
    ) -> Result<BTreeMap<NodeName, NodeConfig>, Problem> {
        let layout = Layout::of(request, &self.settings)?;
        let secrets = Secrets::of(keys)?;
        let render =
            |member: &Member| Ok((member.name().clone(), node_config(&layout, member, &secrets)?));
        layout.members.iter().map(render).collect()
    }

    fn steps(
        &self,
        request: &RenderRequest<'_>,
        change: &Change<'_>,
    ) -> Result<Vec<Step>, Problem> {
        Ok(steps::steps(&Layout::of(request, &self.settings)?, change))
    }

    fn data(&self) -> Vec<Utf8PathBuf> {
        vec!["/var".into()]
    }

    fn fork_joins(&self, _cluster: &Cluster) -> Result<BTreeSet<NodeName>, Problem> {
        Err(no_fork())
    }

    fn fork(&self, _before: &Applied, _request: &RenderRequest<'_>) -> Result<Vec<Step>, Problem> {
        Err(no_fork())
    }

    fn access(&self, request: &RenderRequest<'_>, keys: &Keys) -> Result<Access, Problem> {
        let layout = Layout::of(request, &self.settings)?;
        let Secrets { cluster, client, .. } = Secrets::of(keys)?;
        let first = layout.first();
        Ok(Access::Incus(IncusAccess {
            cluster: layout.cluster.clone(),
            node: first.name().clone(),
            address: SocketAddr::new(first.address, API_PORT),
            certificate: cluster.certificate,
            client,
        }))
    }

    fn describe(&self) -> String {
        format!("Incus {VERSION}")
    }
}

/// incusd's database names its members by their addresses, in the members' own files too, and offers no way to change them.
fn no_fork() -> Problem {
    let message = "a cluster of Incus cannot be forked: its database keeps its members' addresses, and a fork has others";
    Problem::usage("stack.incus.fork", message).help(
        "restore the snapshot into the same cluster (`bivouac snapshot restore`), or start another cluster and copy instances to it (`incus copy`)",
    )
}

fn node_config(
    layout: &Layout<'_>,
    member: &Member,
    secrets: &Secrets,
) -> Result<NodeConfig, Problem> {
    let mut files = daemon::files();
    files.extend(lan::files(layout, member));
    files.extend(cluster::files(layout, member, secrets)?);
    let mut services = lan::services(layout, member);
    services.extend(daemon::services(layout, member));
    services.extend(guard::service_of(layout, member));
    let mut tasks = lan::tasks(layout, member);
    tasks.extend(storage::tasks(layout.settings));
    tasks.extend(cluster::tasks(layout, member));
    Ok(NodeConfig {
        format: FORMAT,
        cluster: layout.cluster.clone(),
        node: member.name().clone(),
        modules: daemon::modules(layout),
        sysctls: daemon::sysctls(layout),
        mounts: daemon::mounts(),
        files,
        services,
        tasks,
        conditions: conditions::conditions(layout, member),
    })
}
