//! When a node is usable. DNS is asked on every node, from a network made as a pod's is, because that is what a user's pod there will
//! do; the rest is the cluster's and asked once. Where pods have no network before a person brings one, it is enough that every
//! kubelet has reported.

use bivouac_spec::cluster::{Bootstrap, Cni};
use bivouac_spec::node::{Condition, Probe};

use super::layout::{Layout, Member};
use super::{control_plane, kubeadm, network, node, probes};

/// What must hold.
pub(super) fn conditions(layout: &Layout<'_>, member: &Member) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if layout.cni != Cni::None {
        let proxy = match layout.settings.bootstrap {
            Bootstrap::Services => node::PROXY,
            Bootstrap::Kubeadm => node::KUBELET,
        };
        let after = [network::PROBE_NETWORK_TASK, proxy];
        conditions.push(condition(probes::DNS_ANSWERS, &after, probes::dns_from_a_pod(layout)));
    }
    let asks = match layout.settings.bootstrap {
        Bootstrap::Services => probes::kubelet(),
        Bootstrap::Kubeadm if member.is_control_plane() => probes::super_admin(),
        Bootstrap::Kubeadm => probes::joiner(),
    };
    let reported = probes::node_reported(layout, member, asks);
    conditions.push(condition("the kubelet has reported", &[node::KUBELET], reported));
    if layout.is_first(member) {
        let api = &[control_plane::API][..];
        conditions.push(if layout.cni == Cni::None {
            condition("all nodes are registered", api, probes::nodes_registered(layout))
        } else {
            condition("all nodes are Ready", api, probes::nodes_ready(layout))
        });
        let account = probes::default_service_account(layout);
        conditions.push(condition("the default service account exists", api, account));
    }
    if layout.settings.bootstrap == Bootstrap::Kubeadm {
        conditions.extend(kubeadm::conditions(member));
    }
    conditions
}

/// A condition of this name.
pub(super) fn condition(name: &str, after: &[&str], probe: Probe) -> Condition {
    let after = after.iter().map(|unit| (*unit).to_owned()).collect();
    Condition { name: name.to_owned(), after, probe }
}
