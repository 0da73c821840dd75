//! Kubernetes from its upstream programs. By default they are supervised services: no `init`, no `join`, every node is rendered in full
//! beforehand and starts at the same moment, and only probes order what runs in it. [`kubeadm`] is the other way.
//!
//! ```text
//! control plane: etcd > kube-apiserver > nodes* > dns* > roles* > storage*    (* tasks; these of the first one; provisioner*,
//!                                                                                metrics-server* last)
//!                     (etcd > etcd-votes* > kube-apiserver where control planes have joined)
//!                              |            +--> kube-scheduler
//!                              +--> api* > kube-controller-manager
//! every node:    balancer (where there are several control planes)
//!                api* (the API answers everybody, and has its roles), announced* (its Node object is there), nat*, pod-network*
//!                containerd > images* > kubelet        (kubelet waits for `announced`)
//!                                       kube-proxy     (waits for `announced`, `nat`)
//!                                       load-balancer  (waits for `kube-proxy`)
//!                                       flanneld       (where the ground does not route pods; waits for `announced`)
//! usable:        a pod's network gets a DNS answer (every node); all nodes Ready, default service account (first control plane)
//! ```
//!
//! - [`layout`]: the cluster, looked at; [`keys`]: certificates and kubeconfigs; [`manifests`]: objects in the API
//! - [`etcd`], [`control_plane`], [`node`], [`balancer`], or [`kubeadm`] in their place; [`runtime`], [`network`], [`flannel`], [`load_balancer`]:
//!   services, tasks and files
//! - [`registries`]: where images come from; [`image_cache`]: what is kept of them; [`sources`]: what the cluster file only points to
//! - [`watch`]: what a change of files means; [`steps`], [`drain`], [`remake`], [`addons`]: what else a change of the cluster means; [`fork`]: a copy becomes another cluster
//! - [`probes`]: the questions that order them; [`conditions`]: when a node is usable
//! - [`settings`]: configuration that all nodes share; [`places`], [`versions`], [`tuning`]: paths, images and figures

mod addons;
mod balancer;
mod command;
mod conditions;
mod control_plane;
mod drain;
mod etcd;
mod flannel;
mod fork;
mod image_cache;
mod keys;
mod kubeadm;
mod layout;
mod load_balancer;
mod manifests;
mod network;
mod node;
mod places;
mod probes;
mod registries;
mod remake;
mod runtime;
mod settings;
mod sources;
mod steps;
#[cfg(test)]
mod tests;
mod tuning;
mod versions;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::SystemTime;

use bivouac_spec::cluster::{Bootstrap, Cni};
use bivouac_spec::facts::Applied;
use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::{File, Service, Task};
use bivouac_spec::{Cluster, NodeConfig, NodeName, Problem, cluster};
use camino::Utf8PathBuf;

use crate::stack::{
    Access, Change, Drain, Given, Keys, KubernetesAccess, RenderRequest, Shared, Stack, Step,
};
use command::after;
use image_cache::ImageCache;
use layout::{API_PORT, Layout, Member};

/// The `kubernetes` stack.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) settings: cluster::Kubernetes,
    /// What the caller gives beside.
    pub(crate) given: Given,
}

impl Stack for Kubernetes {
    fn ensure_keys(
        &self,
        existing: Option<Keys>,
        request: &RenderRequest<'_>,
        now: SystemTime,
    ) -> Result<Keys, Problem> {
        let kept = sources::kept(existing.as_ref())?;
        let keys = keys::ensure(existing, &Layout::of(request, &self.settings)?, now)?;
        let sources = sources::gather(kept, &self.given.found, &self.settings)?;
        Ok(sources::keep(keys, &sources))
    }

    fn expiry(&self, keys: &Keys) -> Result<Option<SystemTime>, Problem> {
        keys::expiry(keys)
    }

    fn render(
        &self,
        request: &RenderRequest<'_>,
        keys: &Keys,
    ) -> Result<BTreeMap<NodeName, NodeConfig>, Problem> {
        let layout = Layout::of(request, &self.settings)?;
        let mut files = keys::render(&layout, keys)?;
        let (sources, cache) = (sources::kept(Some(keys))?, ImageCache::of(&layout, keys)?);
        let mut registries = registries::files(&layout, &sources, cache.as_ref())?;
        if let Some(cache) = cache {
            registries.push(cache.file(&layout, &sources)?);
        }
        let render = |member: &Member| {
            let mut secret = files.remove(member.name()).unwrap_or_default();
            secret.extend(registries.iter().cloned());
            (member.name().clone(), node_config(&layout, member, secret))
        };
        let mut configs: BTreeMap<_, _> = layout.members.iter().map(render).collect();
        if let Some(balancer) = &layout.balancer {
            let secret = files.remove(&balancer.name).unwrap_or_default();
            let config = balancer::node_config(&layout, &balancer.name, secret);
            configs.insert(balancer.name.clone(), config);
        }
        configs.values_mut().for_each(watch::fill);
        Ok(configs)
    }

    fn steps(
        &self,
        request: &RenderRequest<'_>,
        change: &Change<'_>,
    ) -> Result<Vec<Step>, Problem> {
        let drain = self.given.drain.unwrap_or(Drain::Within(self.settings.drain_timeout));
        Ok(steps::steps(&Layout::of(request, &self.settings)?, change, drain))
    }

    fn data(&self) -> Vec<Utf8PathBuf> {
        vec!["/var".into()]
    }

    fn fork_joins(&self, cluster: &Cluster) -> Result<BTreeSet<NodeName>, Problem> {
        fork::joins(&self.settings, cluster)
    }

    fn fork_shares(&self, cluster: &Cluster) -> Option<Shared> {
        fork::shares(cluster)
    }

    fn fork(&self, before: &Applied, request: &RenderRequest<'_>) -> Result<Vec<Step>, Problem> {
        fork::steps(&Layout::of(request, &self.settings)?, before)
    }

    fn access(&self, request: &RenderRequest<'_>, keys: &Keys) -> Result<Access, Problem> {
        let layout = Layout::of(request, &self.settings)?;
        let (authority, client) = keys::administrator(keys)?;
        let first = layout.first();
        let (node, address) = match &layout.balancer {
            Some(balancer) => (&balancer.name, balancer.addresses.primary),
            None => (first.name(), first.address()),
        };
        Ok(Access::Kubernetes(KubernetesAccess {
            cluster: layout.cluster.clone(),
            node: node.clone(),
            address: SocketAddr::new(address, API_PORT),
            authority,
            client,
        }))
    }

    fn describe(&self) -> String {
        format!("Kubernetes {}", self.settings.version)
    }
}

fn node_config(layout: &Layout<'_>, member: &Member, secret: Vec<File>) -> NodeConfig {
    let mut units = units(layout, member);
    let announced = std::mem::take(&mut units.announced);
    let mut files = network::folders();
    files.append(&mut units.files);
    files.push(runtime::file(layout));
    files.push(File::public(places::LIMITS, format!("{}\n", member.spec.resources)));
    files.extend(network::files(layout, member));
    let mut services = vec![runtime::service(layout)];
    services.append(&mut units.services);
    services.extend(image_cache::service(layout));
    let mut tasks = network::tasks(layout, member);
    tasks.append(&mut units.tasks);
    tasks.extend(runtime::tasks(layout));
    if layout.cni == Cni::Flannel {
        files.extend(flannel::files(layout));
        services.push(flannel::service(layout, member, announced.clone()));
    }
    files.extend(secret);
    services.extend(load_balancer::of_a_node(layout, member, &announced));
    if layout.is_first(member) {
        tasks.extend(manifests::tasks(layout));
    }
    NodeConfig {
        format: FORMAT,
        cluster: layout.cluster.clone(),
        node: member.name().clone(),
        modules: network::modules(layout),
        sysctls: network::sysctls(layout),
        mounts: Vec::new(),
        files,
        services,
        tasks,
        conditions: conditions::conditions(layout, member),
    }
}

/// What differs between the ways in which a cluster comes up.
struct Units {
    files: Vec<File>,
    services: Vec<Service>,
    tasks: Vec<Task>,
    /// The units after which the node's own Node object is there.
    announced: Vec<String>,
}

fn units(layout: &Layout<'_>, member: &Member) -> Units {
    match layout.settings.bootstrap {
        Bootstrap::Services => {
            let (mut files, mut tasks) = (Vec::new(), node::tasks(layout, member));
            let mut services: Vec<Service> =
                balancer::of_a_node(layout, member).into_iter().collect();
            if member.is_control_plane() {
                files.extend(control_plane::files(layout, member));
                tasks.extend(etcd::tasks(layout));
                services.extend(control_plane::services(layout, member));
            }
            files.extend(node::files(layout, member));
            services.extend(node::services(layout, member));
            let announced = after([node::ANNOUNCED]);
            Units { files, services, tasks, announced }
        }
        Bootstrap::Kubeadm => Units {
            files: kubeadm::files(layout, member),
            services: kubeadm::services(layout, member),
            tasks: kubeadm::tasks(member),
            announced: kubeadm::announced_by(member),
        },
    }
}
