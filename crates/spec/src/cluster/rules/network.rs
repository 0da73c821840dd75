//! The networks against each other and against the number of nodes. What the ground uses is not known here.

use ipnet::IpNet;

use super::Finding;
use crate::cluster::path::{field, item};
use crate::cluster::{IpFamily, Network};

const NETWORK: &str = "spec.network";

/// Of the node network: its own address, the ground's and the broadcast address.
const NODE_NETWORK_TAKEN: u64 = 3;

/// The API server refuses a Service network of more addresses than 2^20.
const SERVICE_BITS_MAX: u8 = 20;

/// A Service network of fewer addresses than 2^8 runs out with a handful of applications.
const SERVICE_BITS_MIN: u8 = 8;

/// Networks that mean something else on every machine.
const UNUSABLE: [(&str, &str); 7] = [
    ("::/8", "is for addresses with a meaning of their own"),
    ("fe80::/10", "is for one link only"),
    ("ff00::/8", "is for multicast"),
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
    net: IpNet,
}

pub(super) fn check(network: &Network, nodes: u64, findings: &mut Vec<Finding>) {
    check_families(&network.ip_families, findings);
    let mut entries = Vec::new();
    let all = [
        ("nodeCIDR", Use::Nodes, &network.node_cidr),
        ("podCIDR", Use::Pods, &network.pod_cidr),
        ("serviceCIDR", Use::Services, &network.service_cidr),
    ];
    for (name, usage, nets) in all {
        let path = field(NETWORK, name);
        for (index, net) in nets.iter().enumerate() {
            let entry = Entry { path: item(&path, index), usage, net: *net };
            if network.ip_families.contains(&IpFamily::of(net)) {
                entries.push(entry);
            } else {
                not_asked_for(&entry, findings);
            }
        }
    }
    let mut compared: Vec<&Entry> = Vec::new();
    for entry in &entries {
        check_alone(entry, nodes, findings);
        if unusable(&entry.net).is_some() {
            continue;
        }
        let is_same = |other: &&&Entry| {
            other.usage == entry.usage && IpFamily::of(&other.net) == IpFamily::of(&entry.net)
        };
        if let Some(first) = compared.iter().find(is_same) {
            // One of the two has to go, so what it overlaps is of no interest.
            second_of_family(first, entry, findings);
            continue;
        }
        compared.iter().for_each(|other| check_pair(other, entry, findings));
        compared.push(entry);
    }
}

fn check_families(families: &[IpFamily], findings: &mut Vec<Finding>) {
    let path = field(NETWORK, "ipFamilies");
    if families.is_empty() {
        let finding = Finding::new(&path, "spec.no_family", "it names no IP family");
        findings.push(finding.help("Write `[IPv4]`, or `[IPv4, IPv6]` for both."));
    }
    for (index, family) in families.iter().enumerate().filter(|(i, f)| families[..*i].contains(f)) {
        let message = format!("{} is named twice", family.name());
        let finding = Finding::new(&item(&path, index), "spec.duplicate_family", message);
        findings.push(finding.scope(&path).help("Remove one of the two."));
    }
}

fn not_asked_for(entry: &Entry, findings: &mut Vec<Finding>) {
    let (name, family) = (entry.usage.name(), IpFamily::of(&entry.net).name());
    let families = field(NETWORK, "ipFamilies");
    let message =
        format!("the {name} `{}` is {family}, which `{families}` does not name", entry.net);
    let help = format!("Add {family} to `{families}`, or remove the network.");
    let finding = Finding::new(&entry.path, "spec.family_not_asked", message);
    findings.push(finding.scope(&families).help(help));
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
        let such = if matches!(net, IpNet::V4(_)) { "10.0.0.0/8" } else { "fd00::/8" };
        let finding = Finding::new(path, "spec.cidr_unusable", message);
        findings
            .push(finding.help(format!("Choose a private network, such as one within {such}.")));
        return;
    }
    // Bits that tell the network's own addresses apart.
    let bits = net.max_prefix_len() - net.prefix_len();
    let share = IpFamily::of(net).pod_share();
    match usage {
        Use::Nodes => {
            let room = power_of_two(bits).saturating_sub(NODE_NETWORK_TAKEN);
            if room < nodes {
                let fitting = format!("/{}", net.max_prefix_len() - 8);
                too_small(entry, "spec.node_cidr_too_small", room, nodes, &fitting, findings);
            }
        }
        Use::Pods => {
            let room = share.checked_sub(net.prefix_len()).map_or(0, power_of_two);
            if room < nodes {
                let fitting = format!("/{}", share - 8);
                too_small(entry, "spec.pod_cidr_too_small", room, nodes, &fitting, findings);
            }
        }
        Use::Services if !(SERVICE_BITS_MIN..=SERVICE_BITS_MAX).contains(&bits) => {
            let whole = net.max_prefix_len();
            let (least, most) = (whole - SERVICE_BITS_MAX, whole - SERVICE_BITS_MIN);
            let message = format!("the {name} `{net}` must have a prefix from /{least} to /{most}");
            let finding = Finding::new(path, "spec.service_cidr_size", message);
            let such = if whole == 32 { "10.96.0.0/16" } else { "fd00:10:96::/112" };
            findings.push(finding.help(format!("Write a network such as `{such}`.")));
        }
        Use::Services => {}
    }
}

/// How many values so many bits have.
fn power_of_two(bits: u8) -> u64 {
    1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX)
}

fn unusable(net: &IpNet) -> Option<(IpNet, &'static str)> {
    let table = UNUSABLE.iter();
    let mut table = table.map(|(net, why)| (net.parse().expect("the table holds networks"), *why));
    table.find(|(other, _): &(IpNet, _)| other.contains(net) || net.contains(other))
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
    let each = match entry.usage {
        Use::Pods => format!(" (a /{} each)", IpFamily::of(&entry.net).pod_share()),
        Use::Nodes | Use::Services => String::new(),
    };
    let message =
        format!("the {name} `{}` has room for {room} nodes{each}, not for {nodes}", entry.net);
    let help = format!("Use a larger network, such as a {fitting}, or fewer nodes.");
    findings.push(Finding::new(&entry.path, code, message).help(help));
}

fn second_of_family(first: &Entry, second: &Entry, findings: &mut Vec<Finding>) {
    let name = first.usage.name();
    let family = IpFamily::of(&first.net).name();
    let message =
        format!("the {name} has two {family} networks: `{}` and `{}`", first.net, second.net);
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
