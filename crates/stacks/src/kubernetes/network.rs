//! Networks of pods on one node: the CNI configuration, translation towards the outside, and a pod network to ask questions from.
//!
//! Pods are joined by `ptp`: each has a link of its own to the node, and everything between pods is routed. A bridge would carry
//! the answer of a Service's pod straight to a client on the same node, past the translation that the client waits for, unless
//! the kernel has `br_netfilter`. Routes to the pods of other nodes are the ground's work.

use std::net::IpAddr;

use bivouac_spec::node::config::SysctlScope;
use bivouac_spec::node::{File, Run, Sysctl, Task};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::layout::{Layout, Member, join};
use super::places::{self, CNI_CONFIG, NAT_RULES, PROBE_NAMESPACES, PROBE_NETWORK};
use super::versions::CNI_PLUGINS;

/// A task: the network of one pod that never is, to ask questions from.
pub(super) const PROBE_NETWORK_TASK: &str = "pod-network";
/// A task: translation towards the outside.
pub(super) const NAT: &str = "nat";

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

/// Files of the node's networks.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    let plugin = pod_plugin(member);
    let ports =
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"});
    let list = json!({"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [&plugin, ports]});
    let mut alone = json!({"cniVersion": CNI_VERSION, "name": NETWORK});
    for (key, value) in plugin.as_object().into_iter().flatten() {
        alone[key] = value.clone();
    }
    vec![
        File::public(format!("{CNI_CONFIG}/10-bivouac.conflist"), format!("{list:#}\n")),
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

/// What pods send to neither pods nor nodes leaves with the node's own address. Loaded whole, in one transaction, as often as
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
        inside.extend(of(&[layout.addresses.node_network]));
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
pub(super) fn tasks() -> Vec<Task> {
    let run = |name: &str, command: &[&str]| Task {
        name: name.to_owned(),
        after: Vec::new(),
        run: Run::Command(command.iter().map(|word| (*word).to_owned()).collect()),
    };
    let join = ["/bin/sh", "-c", JOIN, "join", PROBE_NAMESPACES, CNI_PLUGINS, PROBE_NETWORK];
    vec![run(NAT, &["/usr/sbin/nft", "-f", NAT_RULES]), run(PROBE_NETWORK_TASK, &join)]
}

/// Kernel parameters of a node: routing, and what the kubelet wants to find.
pub(super) fn sysctls(layout: &Layout<'_>) -> Vec<Sysctl> {
    let has = |v4: bool| layout.addresses.pod_networks.iter().any(|net| net.addr().is_ipv4() == v4);
    let mut wanted = Vec::new();
    if has(true) {
        wanted.push(("net.ipv4.ip_forward", "1", SysctlScope::Namespaced));
    }
    if has(false) || matches!(layout.first().address, IpAddr::V6(_)) {
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
pub(super) fn modules() -> Vec<String> {
    ["overlay", "nf_conntrack", "nf_tables"].map(str::to_owned).into()
}

/// Folders that programs expect.
pub(super) fn folders() -> Vec<File> {
    [places::STATIC_PODS, places::REGISTRIES, places::VOLUMES]
        .map(|path| File::directory(path, 0o755))
        .into()
}
