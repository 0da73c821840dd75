//! Kubernetes from its upstream programs, as supervised services. No `init`, no `join`: every node is rendered in full beforehand and
//! starts at the same moment, and only probes order what runs in it.
//!
//! ```text
//! control plane: etcd > kube-apiserver > nodes* > dns* > roles* > storage*    (* tasks; these of the first one; provisioner* last)
//!                              |            +--> kube-scheduler
//!                              +--> api* > kube-controller-manager
//! every node:    api* (the API answers everybody), announced* (its Node object is there), nat*, pod-network*
//!                containerd > images* > kubelet        (kubelet waits for `announced`)
//!                                       kube-proxy     (waits for `announced`, `nat`)
//! usable:        a pod's network gets a DNS answer (every node); all nodes Ready, default service account (first control plane)
//! ```
//!
//! - [`layout`]: the cluster, looked at; [`keys`]: certificates and kubeconfigs; [`manifests`]: objects in the API
//! - [`control_plane`], [`node`], [`network`]: services, tasks and files; [`probes`]: the questions that order them
//! - [`places`], [`versions`], [`tuning`]: paths, images and figures, each in one place

mod command;
mod control_plane;
mod keys;
mod layout;
mod manifests;
mod network;
mod node;
mod places;
mod probes;
#[cfg(test)]
mod tests;
mod tuning;
mod versions;

use std::collections::BTreeMap;
use std::time::SystemTime;

use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::{Condition, File, Probe};
use bivouac_spec::{NodeConfig, NodeName, Problem, cluster};

use crate::stack::{Access, Keys, KubernetesAccess, RenderRequest, Stack};
use layout::{Layout, Member};

/// The `kubernetes` stack.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) settings: cluster::Kubernetes,
}

impl Stack for Kubernetes {
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
        let mut files = keys::render(&layout, keys)?;
        let render = |member: &Member| {
            let secret = files.remove(member.name()).unwrap_or_default();
            (member.name().clone(), node_config(&layout, member, secret))
        };
        Ok(layout.members.iter().map(render).collect())
    }

    fn access(&self, request: &RenderRequest<'_>, keys: &Keys) -> Result<Access, Problem> {
        let layout = Layout::of(request, &self.settings)?;
        let (authority, client) = keys::administrator(keys)?;
        let first = layout.first();
        Ok(Access::Kubernetes(KubernetesAccess {
            cluster: layout.cluster.clone(),
            node: first.name().clone(),
            address: first.api,
            authority,
            client,
        }))
    }

    fn describe(&self) -> String {
        format!("Kubernetes {}", self.settings.version)
    }
}

fn node_config(layout: &Layout<'_>, member: &Member, secret: Vec<File>) -> NodeConfig {
    let mut files = network::folders();
    let (mut services, mut tasks) = (Vec::new(), Vec::new());
    if member.is_control_plane() {
        files.extend(control_plane::files(layout));
        services.extend(control_plane::services(layout, member));
    }
    files.extend(node::files(layout, member));
    files.extend(network::files(layout, member));
    files.extend(secret);
    services.extend(node::services(layout, member));
    tasks.extend(network::tasks());
    tasks.extend(node::tasks(layout, member));
    if layout.is_first(member) {
        tasks.extend(manifests::tasks(layout));
    }
    NodeConfig {
        format: FORMAT,
        cluster: layout.cluster.clone(),
        node: member.name().clone(),
        modules: network::modules(),
        sysctls: network::sysctls(layout),
        mounts: Vec::new(),
        files,
        services,
        tasks,
        conditions: conditions(layout, member),
    }
}

/// When the node is usable. DNS is asked on every node, from a network made as a pod's is, because that is what a user's pod there
/// will do; the rest is the cluster's and asked once.
fn conditions(layout: &Layout<'_>, member: &Member) -> Vec<Condition> {
    let condition = |name: &str, after: &[&str], probe: Probe| Condition {
        name: name.to_owned(),
        after: after.iter().map(|unit| (*unit).to_owned()).collect(),
        probe,
    };
    let dns = probes::dns_from_a_pod(layout);
    let mut conditions =
        vec![condition(probes::DNS_ANSWERS, &[network::PROBE_NETWORK_TASK, node::PROXY], dns)];
    if layout.is_first(member) {
        let (api, nodes) = (&[control_plane::API][..], probes::nodes_ready(layout));
        conditions.push(condition("all nodes are Ready", api, nodes));
        let account = probes::default_service_account(layout);
        conditions.push(condition("the default service account exists", api, account));
    }
    conditions
}
