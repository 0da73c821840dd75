//! Networks of pods on one node: the CNI configuration, translation towards the outside, and a pod network to ask questions from.
//!
//! Pods are joined by `ptp`: each has a link of its own to the node, and everything between pods is routed. A bridge would carry
//! the answer of a Service's pod straight to a client on the same node, past the translation that the client waits for, unless
//! the kernel has `br_netfilter`. Routes to the pods of other nodes are the ground's work, or that of [`super::flannel`], whose
//! tunnel takes some bytes of each packet. Where a person brings a network of their own, nothing of this is there.

use bivouac_spec::cluster::Cni;
use bivouac_spec::node::config::SysctlScope;
use bivouac_spec::node::{File, Sysctl, Task};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::command::{after, run};
use super::layout::{Layout, Member, join};
use super::places::{
    self, NAT_RULES, POD_NETWORK, POD_NETWORK_DRAFT, PROBE_NAMESPACES, PROBE_NETWORK,
};
use super::versions::CNI_PLUGINS;

/// A task: the network of one pod that never is, to ask questions from.
pub(super) const PROBE_NETWORK_TASK: &str = "pod-network";
/// A task: translation towards the outside.
const NAT: &str = "nat";
/// A task: pods know how large their packets may be.
const POD_MTU: &str = "pod-mtu";

const CNI_VERSION: &str = "1.0.0";
const NETWORK: &str = "bivouac";

/// Makes a network namespace and has the CNI plugin join it as containerd would for a pod. What an earlier try left is removed
/// first. The shell is there for the redirection: a plugin reads its configuration from standard input.
const JOIN: &str = r#"set -eu
mkdir -p "$1"
umount "$1/probe" 2>/dev/null || :
: > "$1/probe"
unshare --net="$1/probe" true
export CNI_CONTAINERID=bivouac-probe CNI_NETNS="$1/probe" CNI_IFNAME=eth0 CNI_PATH="$2"
CNI_COMMAND=ADD "$2/ptp" < "$3" || { CNI_COMMAND=DEL "$2/ptp" < "$3"; CNI_COMMAND=ADD "$2/ptp" < "$3"; }"#;

/// Writes the configuration with what a tunnel over the node's own interface leaves of its packets.
const FIT: &str = r#"set -eu
device=$(ip -o address show to "$1" | cut -d ' ' -f 2)
mtu=$(cat "/sys/class/net/${device%@*}/mtu")
sed "s/\"mtu\": 0/\"mtu\": $((mtu - $2))/" "$3" > "$4.new"
mv "$4.new" "$4""#;

/// Files of the node's networks.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    let list_path = match layout.cni {
        Cni::Bridge => POD_NETWORK,
        Cni::Flannel => POD_NETWORK_DRAFT,
        Cni::None => return Vec::new(),
    };
    let mut plugin = pod_plugin(member);
    if layout.cni == Cni::Flannel {
        plugin["mtu"] = json!(0);
    }
    let ports =
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"});
    let list = json!({"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [&plugin, ports]});
    let mut alone = json!({"cniVersion": CNI_VERSION, "name": NETWORK});
    for (key, value) in plugin.as_object().into_iter().flatten() {
        alone[key] = value.clone();
    }
    vec![
        File::public(list_path, format!("{list:#}\n")),
        File::public(PROBE_NETWORK, format!("{alone:#}\n")),
        File::public(NAT_RULES, nat_rules(layout, member)),
    ]
}

fn pod_plugin(member: &Member) -> Value {
    let ranges: Vec<Value> =
        member.pod_networks.iter().map(|net| json!([{"subnet": net}])).collect();
    let everywhere = |net: &IpNet| if net.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let routes: Vec<Value> =
        member.pod_networks.iter().map(|net| json!({"dst": everywhere(net)})).collect();
    json!({
        "type": "ptp",
        // Masquerading here would hide pods from pods of other nodes; see `nat_rules`.
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            // Leases end with the namespaces that they are for: when the node restarts.
            "dataDir": "/run/cni/networks",
            "ranges": ranges,
            "routes": routes,
        },
    })
}

/// What pods send to neither pods nor nodes leaves with the node's own address; where the ground does not know the networks of pods,
/// only what they send to pods leaves with theirs. Loaded whole, in one transaction, as often as
/// one likes; no other rules are touched.
fn nat_rules(layout: &Layout<'_>, member: &Member) -> String {
    let mut text = String::new();
    for (family, is_v4) in [("ip", true), ("ip6", false)] {
        let of = |nets: &[IpNet]| -> Vec<IpNet> {
            nets.iter().copied().filter(|net| net.addr().is_ipv4() == is_v4).collect()
        };
        let own = of(&member.pod_networks);
        if own.is_empty() {
            continue;
        }
        let mut inside = of(&layout.addresses.pod_networks);
        if layout.cni == Cni::Bridge {
            let nodes = layout.addresses.node_networks.iter().map(|own| own.network);
            inside.extend(of(&nodes.collect::<Vec<_>>()));
        }
        let (own, inside) = (join(&own), join(&inside));
        text.push_str(&format!(
            "table {family} bivouac\n\
             delete table {family} bivouac\n\
             table {family} bivouac {{\n\
             \tchain postrouting {{\n\
             \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\t{family} saddr {{ {own} }} {family} daddr != {{ {inside} }} masquerade\n\
             \t}}\n\
             }}\n"
        ));
    }
    text
}

/// Tasks of the node's networks. None waits for anything.
pub(super) fn tasks(layout: &Layout<'_>, member: &Member) -> Vec<Task> {
    if layout.cni == Cni::None {
        return Vec::new();
    }
    let now = |name: &str, command: &[&str]| run(name, Vec::new(), command);
    let join = ["/bin/sh", "-c", JOIN, "join", PROBE_NAMESPACES, CNI_PLUGINS, PROBE_NETWORK];
    let mut tasks =
        vec![now(NAT, &["/usr/sbin/nft", "-f", NAT_RULES]), now(PROBE_NETWORK_TASK, &join)];
    if layout.cni == Cni::Flannel {
        let (address, tunnel) =
            (member.address().to_string(), super::flannel::overhead(layout).to_string());
        let fit = ["/bin/sh", "-c", FIT, "fit", &address, &tunnel, POD_NETWORK_DRAFT, POD_NETWORK];
        tasks.push(now(POD_MTU, &fit));
    }
    tasks
}

/// What containerd waits for: it would say that there is no network, and the kubelet asks again only after five seconds.
pub(super) fn before_containerd(layout: &Layout<'_>) -> Vec<String> {
    if layout.cni == Cni::Flannel { after([POD_MTU]) } else { Vec::new() }
}

/// What kube-proxy waits for: who loads rules at the same moment may have to do it again.
pub(super) fn before_proxy(layout: &Layout<'_>) -> Vec<String> {
    if layout.cni == Cni::None { Vec::new() } else { after([NAT]) }
}

/// Kernel parameters of a node: routing, and what the kubelet wants to find.
pub(super) fn sysctls(layout: &Layout<'_>) -> Vec<Sysctl> {
    let mut wanted = Vec::new();
    if layout.has(true) {
        wanted.push(("net.ipv4.ip_forward", "1", SysctlScope::Namespaced));
    }
    if layout.has(false) {
        wanted.push(("net.ipv6.conf.all.forwarding", "1", SysctlScope::Namespaced));
    }
    // The kubelet writes these when they differ (pkg/kubelet/cm/container_manager_linux.go), and they are the whole kernel's.
    let kernel = [
        ("vm.overcommit_memory", "1"),
        ("vm.panic_on_oom", "0"),
        ("kernel.panic", "10"),
        ("kernel.panic_on_oops", "1"),
        ("kernel.keys.root_maxkeys", "1000000"),
        ("kernel.keys.root_maxbytes", "25000000"),
    ];
    wanted.extend(kernel.map(|(name, value)| (name, value, SysctlScope::Kernel)));
    wanted
        .into_iter()
        .map(|(name, value, scope)| Sysctl {
            name: name.to_owned(),
            value: value.to_owned(),
            scope,
        })
        .collect()
}

/// Kernel modules, where they are modules.
pub(super) fn modules(layout: &Layout<'_>) -> Vec<String> {
    let mut modules = vec!["overlay", "nf_conntrack", "nf_tables"];
    if layout.cni == Cni::Flannel {
        modules.push("vxlan");
    }
    modules.into_iter().map(str::to_owned).collect()
}

/// Folders that programs expect.
pub(super) fn folders() -> Vec<File> {
    [places::STATIC_PODS, places::REGISTRIES, places::VOLUMES]
        .map(|path| File::directory(path, 0o755))
        .into()
}
