//! The networks against each other and against the number of nodes. What the ground uses is not known here.

use ipnet::{IpNet, Ipv4Net};

use super::Finding;
use crate::cluster::Network;
use crate::cluster::path::{field, item};

const NETWORK: &str = "spec.network";

/// Of the node network: its own address, the ground's and the broadcast address.
const NODE_NETWORK_TAKEN: u64 = 3;

/// The API server refuses a Service network of more addresses than a /12 (2^20) has.
const SERVICE_PREFIX_MIN: u8 = 12;

/// A smaller Service network runs out with a handful of applications.
const SERVICE_PREFIX_MAX: u8 = 24;

/// Every node gets a /24 of the pod network.
const POD_PREFIX: u8 = 24;

/// Networks that mean something else on every machine.
const UNUSABLE: [(&str, &str); 4] = [
    ("0.0.0.0/8", "stands for no address"),
    ("127.0.0.0/8", "is every machine's own"),
    ("169.254.0.0/16", "is for one link only"),
    ("224.0.0.0/3", "is for multicast and reserved"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Nodes,
    Pods,
    Services,
}

impl Use {
    const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "node network",
            Self::Pods => "pod network",
            Self::Services => "Service network",
        }
    }
}

struct Entry {
    path: String,
    usage: Use,
    net: Ipv4Net,
}

pub(super) fn check(network: &Network, nodes: u64, findings: &mut Vec<Finding>) {
    let mut entries = Vec::new();
    let single = network.node_cidr.iter().map(|net| (field(NETWORK, "nodeCIDR"), Use::Nodes, *net));
    let pods = listed("podCIDR", Use::Pods, &network.pod_cidr);
    let services = listed("serviceCIDR", Use::Services, &network.service_cidr);
    for (path, usage, net) in single.chain(pods).chain(services) {
        match net {
            IpNet::V4(net) => entries.push(Entry { path, usage, net }),
            IpNet::V6(net) => {
                let message =
                    format!("the {} `{net}` is IPv6, which is not supported yet", usage.name());
                let finding = Finding::new(&path, "spec.ipv6_unsupported", message);
                findings.push(finding.help("Write an IPv4 network, or remove the field."));
            }
        }
    }
    let mut compared: Vec<&Entry> = Vec::new();
    for entry in &entries {
        check_alone(entry, nodes, findings);
        if unusable(&entry.net).is_some() {
            continue;
        }
        if let Some(first) = compared.iter().find(|other| other.usage == entry.usage) {
            // One of the two has to go, so what it overlaps is of no interest.
            second_of_family(first, entry, findings);
            continue;
        }
        compared.iter().for_each(|other| check_pair(other, entry, findings));
        compared.push(entry);
    }
}

fn listed<'a>(
    name: &'a str,
    usage: Use,
    nets: &'a [IpNet],
) -> impl Iterator<Item = (String, Use, IpNet)> + 'a {
    let path = field(NETWORK, name);
    nets.iter().enumerate().map(move |(index, net)| (item(&path, index), usage, *net))
}

fn check_alone(entry: &Entry, nodes: u64, findings: &mut Vec<Finding>) {
    let Entry { path, usage, net } = entry;
    let name = usage.name();
    if net.trunc() != *net {
        let message = format!("the {name} `{net}` has bits set behind its prefix");
        let finding = Finding::new(path, "spec.cidr_host_bits", message);
        findings.push(finding.help(format!("Write `{}`.", net.trunc())));
    }
    if let Some((other, why)) = unusable(net) {
        let message = format!("the {name} `{net}` overlaps `{other}`, which {why}");
        let finding = Finding::new(path, "spec.cidr_unusable", message);
        findings.push(finding.help("Choose a private network, such as one within 10.0.0.0/8."));
        return;
    }
    let prefix = net.prefix_len();
    match usage {
        Use::Nodes => {
            let room = (1_u64 << (32 - prefix)).saturating_sub(NODE_NETWORK_TAKEN);
            if room < nodes {
                too_small(entry, "spec.node_cidr_too_small", room, nodes, "/24", findings);
            }
        }
        Use::Pods => {
            let room = if prefix > POD_PREFIX { 0 } else { 1_u64 << (POD_PREFIX - prefix) };
            if room < nodes {
                too_small(entry, "spec.pod_cidr_too_small", room, nodes, "/16", findings);
            }
        }
        Use::Services if !(SERVICE_PREFIX_MIN..=SERVICE_PREFIX_MAX).contains(&prefix) => {
            let message = format!(
                "the {name} `{net}` must have a prefix from /{SERVICE_PREFIX_MIN} to /{SERVICE_PREFIX_MAX}"
            );
            let finding = Finding::new(path, "spec.service_cidr_size", message);
            findings.push(finding.help("Write a network such as `10.96.0.0/16`."));
        }
        Use::Services => {}
    }
}

fn unusable(net: &Ipv4Net) -> Option<(Ipv4Net, &'static str)> {
    let table = UNUSABLE.iter();
    let mut table = table.map(|(net, why)| (net.parse().expect("the table holds networks"), *why));
    table.find(|(other, _): &(Ipv4Net, _)| other.contains(net) || net.contains(other))
}

fn too_small(
    entry: &Entry,
    code: &str,
    room: u64,
    nodes: u64,
    fitting: &str,
    findings: &mut Vec<Finding>,
) {
    let name = entry.usage.name();
    let each = if entry.usage == Use::Pods { " (a /24 each)" } else { "" };
    let message =
        format!("the {name} `{}` has room for {room} nodes{each}, not for {nodes}", entry.net);
    let help = format!("Use a larger network, such as a {fitting}, or fewer nodes.");
    findings.push(Finding::new(&entry.path, code, message).help(help));
}

fn second_of_family(first: &Entry, second: &Entry, findings: &mut Vec<Finding>) {
    let name = first.usage.name();
    let message = format!("the {name} has two IPv4 networks: `{}` and `{}`", first.net, second.net);
    let finding = Finding::new(&second.path, "spec.duplicate_family", message).scope(&first.path);
    findings.push(finding.help("Remove one of the two."));
}

fn check_pair(one: &Entry, other: &Entry, findings: &mut Vec<Finding>) {
    let (first, second) = (one.net.trunc(), other.net.trunc());
    if !(first.contains(&second) || second.contains(&first)) {
        return;
    }
    let inside = (one.usage, other.usage) == (Use::Pods, Use::Services) && first.contains(&second);
    let finding = if inside {
        let message = format!(
            "the Service network `{second}` lies inside the pod network `{first}`: one address could be a Service's and a pod's"
        );
        Finding::new(&other.path, "spec.service_in_pod_cidr", message)
    } else {
        let (one, other_name) = (one.usage.name(), other.usage.name());
        let message = format!("the {other_name} `{second}` overlaps the {one} `{first}`");
        Finding::new(&other.path, "spec.cidr_overlap", message)
    };
    let help =
        "Choose networks apart, such as 10.244.0.0/16 for pods and 10.96.0.0/16 for Services.";
    findings.push(finding.scope(&one.path).help(help));
}
