//! The network between instances: one VXLAN that a bridge of each member is a port of, and on each member two programs that give
//! instances addresses and names.
//!
//! ```text
//!  instance -- lxd-lan (bridge, 10.244.I.1/16) -- lxd-vxlan ==UDP 4789==> lxd-vxlan of every other member
//!                 |
//!                 +-- lan-leases  addresses of this member's share; knows this member's instances by name (port 5353)
//!                 +-- lan-names   what instances ask (port 53): asks all members' lan-leases at once, and the node's own resolver
//! ```
//!
//! An own bridge and not one of Incus': those have one address and one range of leases for all members, and each knows only its own
//! instances. Leases stay with their member (the packet filter sees to it), so no address is given twice, and a member that is lost
//! takes no name with it but those of its instances.

use bivouac_spec::node::{Check, File, Probe, Service, Task};
use ipnet::IpNet;

use super::layout::{Layout, Member};
use super::places::{DNSMASQ, LEASES, RULES};
use super::units::{names, service, shell, task};

/// The bridge.
pub(super) const BRIDGE: &str = "lxd-lan";
/// A task: the network is there.
pub(super) const LAN: &str = "lan";
pub(super) const LEASES_SERVICE: &str = "lan-leases";
pub(super) const NAMES_SERVICE: &str = "lan-names";
/// The domain of instances.
pub(super) const DOMAIN: &str = "incus";
/// Where a member is asked for the names of its own instances.
const OWN_NAMES: u16 = 5353;

/// Members are known by their addresses. What floods goes to all of them, whether they run or not: nobody has to tell who came.
const SCRIPT: &str = include_str!("scripts/lan.sh");
/// A resolver of the node that dnsmasq itself watches would cost one of the inotify instances, of which a machine has few.
const LOOKUP: &str = include_str!("scripts/names.sh");

pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    vec![File::public(RULES, rules(layout, member))]
}

/// Loaded whole, in one transaction, as often as one likes; no other rules are touched.
fn rules(layout: &Layout<'_>, member: &Member) -> String {
    let v4 = |net: &&IpNet| net.addr().is_ipv4();
    let mut inside: Vec<String> = layout.nodes.iter().filter(v4).map(ToString::to_string).collect();
    inside.push(layout.instances.to_string());
    let (own, inside) = (member.share, inside.join(", "));
    format!(
        "table bridge bivouac\n\
         delete table bridge bivouac\n\
         table bridge bivouac {{\n\
         \tchain forward {{\n\
         \t\ttype filter hook forward priority 0; policy accept;\n\
         \t\toifname \"lxd-vxlan\" udp dport {{ 67, 68 }} drop\n\
         \t\tiifname \"lxd-vxlan\" udp dport {{ 67, 68 }} drop\n\
         \t}}\n\
         \tchain input {{\n\
         \t\ttype filter hook input priority 0; policy accept;\n\
         \t\tiifname \"lxd-vxlan\" udp dport {{ 67, 68 }} drop\n\
         \t}}\n\
         }}\n\
         table ip bivouac\n\
         delete table ip bivouac\n\
         table ip bivouac {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {{ {own} }} ip daddr != {{ {inside} }} masquerade\n\
         \t}}\n\
         }}\n"
    )
}

pub(super) fn tasks(layout: &Layout<'_>, member: &Member) -> Vec<Task> {
    let network = layout.settings.network;
    let (vni, mtu, own) =
        (network.vni.to_string(), network.mtu.to_string(), member.address.to_string());
    let address = format!("{}/{}", member.gateway(), layout.instances.prefix_len());
    let peers: Vec<String> = layout.others(member).map(|other| other.address.to_string()).collect();
    let mut arguments = vec![vni.as_str(), &mtu, &own, &address, RULES];
    arguments.extend(peers.iter().map(String::as_str));
    vec![task(LAN, &[], SCRIPT, &arguments, &[RULES])]
}

pub(super) fn services(layout: &Layout<'_>, member: &Member) -> Vec<Service> {
    let gateway = member.gateway();
    let listens = |port: u16| Some(Probe::new(Check::Tcp((gateway, port).into())));
    let mut leases = service(LEASES_SERVICE, leases(layout, member), listens(OWN_NAMES));
    let mut lookup = service(NAMES_SERVICE, lookup(layout, member), listens(53));
    leases.after = names(&[LAN]);
    lookup.after = names(&[LAN]);
    vec![leases, lookup]
}

fn leases(layout: &Layout<'_>, member: &Member) -> Vec<String> {
    let (gateway, (low, high)) = (member.gateway(), member.range());
    let (mask, mtu) = (layout.instances.netmask(), layout.settings.network.mtu);
    let mut command = dnsmasq();
    command.extend([
        format!("--interface={BRIDGE}"),
        "--except-interface=lo".to_owned(),
        format!("--port={OWN_NAMES}"),
        // What it does not know it refuses, so that the answer of another member counts.
        "--no-resolv".to_owned(),
        "--no-hosts".to_owned(),
        format!("--dhcp-range={low},{high},{mask},1h"),
        format!("--dhcp-option=option:router,{gateway}"),
        format!("--dhcp-option=option:dns-server,{gateway}"),
        format!("--dhcp-option=option:mtu,{mtu}"),
        format!("--domain={DOMAIN}"),
        // Nobody has an address of this family. Refused, the question would wait for members that are down.
        "--filter-AAAA".to_owned(),
        "--dhcp-authoritative".to_owned(),
        "--dhcp-rapid-commit".to_owned(),
        "--no-ping".to_owned(),
        format!("--dhcp-leasefile={LEASES}"),
        // The member itself has a name among instances.
        format!("--host-record={name},{name}.{DOMAIN},{gateway}", name = member.name()),
    ]);
    command
}

fn lookup(layout: &Layout<'_>, member: &Member) -> Vec<String> {
    let mut command = shell(NAMES_SERVICE, LOOKUP, &[]);
    command.extend(dnsmasq());
    command.extend([
        format!("--listen-address={}", member.gateway()),
        "--no-hosts".to_owned(),
        "--no-resolv".to_owned(),
        "--all-servers".to_owned(),
        // What a search list makes of a full name is nobody's, and waits for nobody.
        format!("--local=/{DOMAIN}.{DOMAIN}/"),
        "--cache-size=0".to_owned(),
    ]);
    for other in &layout.members {
        let server = format!("{}#{OWN_NAMES}", other.gateway());
        command.extend([
            format!("--server=/{DOMAIN}/{server}"),
            format!("--server=//{server}"),
            format!("--rev-server={},{server}", other.share),
        ]);
    }
    command
}

fn dnsmasq() -> Vec<String> {
    let flags = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--log-facility=-",
        "--user=root",
        "--bind-interfaces",
    ];
    std::iter::once(DNSMASQ).chain(flags).map(str::to_owned).collect()
}
