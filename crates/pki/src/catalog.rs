//! The certificates of a cluster: subjects, names and usages as in kubeadm 1.36 (`cmd/kubeadm/app/phases/certs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::authority::Signer;
use crate::leaf::{LeafRequest, Usage};

/// Group of administrators; it has rights only after its binding is made (since kubeadm 1.29).
const ADMINISTRATORS: &str = "kubeadm:cluster-admins";

/// Who may join a cluster of kubeadm as a node.
const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";

/// The user name of those who have addresses of Services.
pub const LOAD_BALANCER: &str = "bivouac:load-balancer";
/// The group of those of them who give addresses.
pub const LOAD_BALANCER_ALLOCATORS: &str = "bivouac:load-balancer-allocators";
/// The user name of flannel.
pub const FLANNEL: &str = "bivouac:flannel";

/// What the certificates of a control plane node say about it.
#[derive(Debug, Clone, Copy)]
pub struct ControlPlane<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Addresses of the node, the one it advertises first.
    pub addresses: &'a [IpAddr],
    /// First address of each service CIDR: the address of the service `kubernetes`.
    pub service_addresses: &'a [IpAddr],
    /// DNS domain of the cluster, such as `cluster.local`.
    pub domain: &'a str,
    /// More names and addresses under which the API server is reached.
    pub extra: &'a [String],
}

/// What the serving certificate of a kubelet says.
#[derive(Debug, Clone, Copy)]
pub struct KubeletServing<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Addresses of the node.
    pub addresses: &'a [IpAddr],
}

/// `apiserver`.
pub fn apiserver(control_plane: &ControlPlane<'_>) -> LeafRequest {
    let mut dns_names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    dns_names.push(format!("kubernetes.default.svc.{}", control_plane.domain));
    dns_names.push(control_plane.node.to_owned());
    dns_names.push("localhost".to_owned());
    let mut addresses = control_plane.service_addresses.to_vec();
    addresses.extend(control_plane.addresses);
    addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    for extra in control_plane.extra {
        match extra.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => dns_names.push(extra.clone()),
        }
    }
    server("kube-apiserver", Usage::Server, Signer::Cluster, dns_names, addresses)
}

/// `apiserver-kubelet-client`: the API server towards kubelets.
pub fn apiserver_kubelet_client() -> LeafRequest {
    client("kube-apiserver-kubelet-client", Some(ADMINISTRATORS), Signer::Cluster)
}

/// `apiserver-etcd-client`: the API server towards etcd.
pub fn apiserver_etcd_client() -> LeafRequest {
    client("kube-apiserver-etcd-client", None, Signer::Etcd)
}

/// `front-proxy-client`: the API server towards extension API servers.
pub fn front_proxy_client() -> LeafRequest {
    client("front-proxy-client", None, Signer::FrontProxy)
}

/// `etcd/server`: what clients of etcd see.
pub fn etcd_server(control_plane: &ControlPlane<'_>) -> LeafRequest {
    etcd(control_plane)
}

/// `etcd/peer`: what members of etcd see of each other.
pub fn etcd_peer(control_plane: &ControlPlane<'_>) -> LeafRequest {
    etcd(control_plane)
}

/// `etcd/healthcheck-client`: probes of etcd.
pub fn etcd_healthcheck_client() -> LeafRequest {
    client("kube-etcd-healthcheck-client", None, Signer::Etcd)
}

/// The controller manager (`controller-manager.conf`).
pub fn controller_manager() -> LeafRequest {
    client("system:kube-controller-manager", None, Signer::Cluster)
}

/// The scheduler (`scheduler.conf`).
pub fn scheduler() -> LeafRequest {
    client("system:kube-scheduler", None, Signer::Cluster)
}

/// kube-proxy. kubeadm gives it a service account; the built-in role is bound to this user as well.
pub fn kube_proxy() -> LeafRequest {
    client("system:kube-proxy", None, Signer::Cluster)
}

/// flannel, which has no rights until they are given to [`FLANNEL`].
pub fn flannel() -> LeafRequest {
    client(FLANNEL, None, Signer::Cluster)
}

/// Who has addresses of Services, and gives them. Has no rights until they are given to [`LOAD_BALANCER`] and [`LOAD_BALANCER_ALLOCATORS`].
pub fn load_balancer(allocates: bool) -> LeafRequest {
    client(LOAD_BALANCER, allocates.then_some(LOAD_BALANCER_ALLOCATORS), Signer::Cluster)
}

/// Who joins a node by `kubeadm join`, in the place of a bootstrap token.
pub fn joiner(node: &str) -> LeafRequest {
    client(&format!("bivouac:join:{node}"), Some(BOOTSTRAPPERS), Signer::Cluster)
}

/// A kubelet towards the API server (`kubelet.conf`).
pub fn kubelet_client(node: &str) -> LeafRequest {
    client(&format!("system:node:{node}"), Some("system:nodes"), Signer::Cluster)
}

/// What is seen by who connects to a kubelet: as the API server's signer `kubernetes.io/kubelet-serving` issues it.
pub fn kubelet_serving(kubelet: &KubeletServing<'_>) -> LeafRequest {
    let common_name = format!("system:node:{}", kubelet.node);
    let names = vec![kubelet.node.to_owned()];
    let addresses = kubelet.addresses.to_vec();
    LeafRequest {
        organization: Some("system:nodes".to_owned()),
        ..server(&common_name, Usage::Server, Signer::Cluster, names, addresses)
    }
}

/// The administrator (`admin.conf`): has rights once the group `kubeadm:cluster-admins` is bound.
pub fn admin() -> LeafRequest {
    client("kubernetes-admin", Some(ADMINISTRATORS), Signer::Cluster)
}

/// The administrator whom authorization never refuses (`super-admin.conf`).
pub fn super_admin() -> LeafRequest {
    client("kubernetes-super-admin", Some("system:masters"), Signer::Cluster)
}

fn etcd(control_plane: &ControlPlane<'_>) -> LeafRequest {
    let names = vec![control_plane.node.to_owned(), "localhost".to_owned()];
    let mut addresses = control_plane.addresses.to_vec();
    addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    server(control_plane.node, Usage::ServerAndClient, Signer::Etcd, names, addresses)
}

fn client(common_name: &str, organization: Option<&str>, signer: Signer) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organization: organization.map(str::to_owned),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        usage: Usage::Client,
        signer,
    }
}

fn server(
    common_name: &str,
    usage: Usage,
    signer: Signer,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organization: None,
        dns_names: distinct(dns_names),
        addresses: distinct(addresses),
        usage,
        signer,
    }
}

/// Without repetitions, in the order of the first ones.
fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    items.into_iter().fold(Vec::new(), |mut kept, item| {
        if !kept.contains(&item) {
            kept.push(item);
        }
        kept
    })
}
