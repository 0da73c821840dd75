//! Places inside a node, laid out as kubeadm does.

/// Certificates and keys.
pub(super) const PKI: &str = "/etc/kubernetes/pki";
/// The certificate of the cluster's authority.
pub(super) const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
/// Kubeconfigs.
pub(super) const KUBERNETES: &str = "/etc/kubernetes";
/// Pods that the kubelet runs of its own.
pub(super) const STATIC_PODS: &str = "/etc/kubernetes/manifests";
/// The administrator whom authorization never refuses, as files for the agent's requests.
pub(super) const SUPER_ADMIN: (&str, &str) =
    ("/etc/kubernetes/pki/super-admin.crt", "/etc/kubernetes/pki/super-admin.key");
/// The kubelet as a client of the API, as files for the agent's requests.
pub(super) const KUBELET_CLIENT: (&str, &str) =
    ("/var/lib/kubelet/pki/kubelet-client.crt", "/var/lib/kubelet/pki/kubelet-client.key");
/// The kubelet as a server.
pub(super) const KUBELET_SERVING: (&str, &str) =
    ("/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/kubelet.key");
/// The kubeconfig that kubeadm finds the cluster with.
pub(super) const DISCOVERY: &str = "discovery";
/// What kubeadm is told.
pub(super) const KUBEADM_CONFIG: &str = "/etc/kubernetes/kubeadm.yaml";
/// What kubeadm was told when it was last through. It lies where kubeadm's own files lie, so that it is lost with them.
pub(super) const KUBEADM_DONE: &str = "/etc/kubernetes/kubeadm.done.yaml";
/// Changes to what kubeadm makes.
pub(super) const KUBEADM_PATCHES: &str = "/etc/kubernetes/patches";
/// The flags that kubeadm gives to a kubelet.
pub(super) const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// How a kubelet reaches the API for the first time.
pub(super) const KUBELET_BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// How a kubelet reaches the API ever after.
pub(super) const KUBELET_IDENTITY: &str = "/var/lib/kubelet/kubelet.conf";
/// The kubelet's configuration.
pub(super) const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// kube-proxy's configuration.
pub(super) const PROXY_CONFIG: &str = "/var/lib/kube-proxy/config.conf";
/// Who gives and has addresses of Services, as files for it. Not below [`PKI`]: it is started again when they change.
pub(super) const LOAD_BALANCER: (&str, &str) =
    ("/etc/bivouac/load-balancer.crt", "/etc/bivouac/load-balancer.key");
/// The one who joins a node by kubeadm, as files for the agent's requests.
pub(super) const JOINER: (&str, &str) =
    ("/etc/kubernetes/pki/join.crt", "/etc/kubernetes/pki/join.key");
/// etcd's data.
pub(super) const ETCD_DATA: &str = "/var/lib/etcd";
/// Who the members of etcd are, for a shell.
pub(super) const ETCD_MEMBERS: &str = "/etc/bivouac/etcd-members.sh";
/// containerd's configuration.
pub(super) const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
/// The limits of the node, for those that read them of the machine when they start.
pub(super) const LIMITS: &str = "/etc/bivouac/limits";
/// How registries are reached, one folder each.
pub(super) const REGISTRIES: &str = "/etc/containerd/certs.d";
/// What the cache of images is told.
pub(super) const IMAGE_CACHE: &str = "/etc/bivouac/image-cache.json";
/// containerd's socket.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Networks of pods.
pub(super) const CNI_CONFIG: &str = "/etc/cni/net.d";
/// The network of pods.
pub(super) const POD_NETWORK: &str = "/etc/cni/net.d/10-bivouac.conflist";
/// The same before it is known how large packets may be.
pub(super) const POD_NETWORK_DRAFT: &str = "/etc/bivouac/pod-network.conflist";
/// What flannel is to keep.
pub(super) const FLANNEL_CONFIG: &str = "/etc/bivouac/flannel.json";
/// The Secret of metrics-server, as it is applied.
pub(super) const METRICS_SECRET: &str = "/etc/bivouac/metrics-server-secret.json";
/// The API of metrics-server, as it is applied.
pub(super) const METRICS_API: &str = "/etc/bivouac/metrics-server-api.json";
/// The network that the probing pod network is joined to: the first plugin of [`CNI_CONFIG`].
pub(super) const PROBE_NETWORK: &str = "/etc/bivouac/probe-network.json";
/// A folder with the one network namespace that questions are asked from as a pod would ask them.
pub(super) const PROBE_NAMESPACES: &str = "/run/bivouac/netns";
/// Address translation for pods that talk to the outside.
pub(super) const NAT_RULES: &str = "/etc/bivouac/nat.nft";
/// Where volumes of the default storage class lie: a folder that is on a real file system and outlives restarts of the node.
pub(super) const VOLUMES: &str = "/var/lib/bivouac/volumes";

/// The kubeconfig of this name.
pub(super) fn kubeconfig(name: &str) -> String {
    format!("{KUBERNETES}/{name}.conf")
}

/// Certificate and key of this name below [`PKI`].
pub(super) fn pair(name: &str) -> (String, String) {
    (format!("{PKI}/{name}.crt"), format!("{PKI}/{name}.key"))
}
