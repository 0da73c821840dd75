//! Addresses for Services of type `LoadBalancer`: a part of the nodes' network that this machine reaches as it reaches nodes. The agent gives
//! and has them; see there how. Where this machine is not on that network, nobody could use them, and such Services stay without.

use bivouac_spec::AddressRange;
use bivouac_spec::cluster::Bootstrap;
use bivouac_spec::node::{Service, paths};
use serde_json::{Value, json};

use super::command::{Command, after};
use super::layout::{Layout, Member};
use super::node::PROXY;
use super::places;
use super::probes::local;

/// The service.
pub(super) const LOAD_BALANCER: &str = "load-balancer";

/// Where nodes learn whether the others are there: beside the port of a node's balancer.
const PORT: u16 = 7444;

/// What it writes.
const BOOK: &str = "bivouac-load-balancer";
const NAMESPACE: &str = "kube-system";

/// The addresses that Services can have.
pub(super) fn ranges(layout: &Layout<'_>) -> Vec<AddressRange> {
    let networks = layout.addresses.node_networks.iter();
    networks.filter_map(|own| own.service_addresses()).collect()
}

/// The service of a node, where there are such addresses.
pub(super) fn of_a_node(
    layout: &Layout<'_>,
    member: &Member,
    announced: &[String],
) -> Option<Service> {
    if !layout.load_balances {
        return None;
    }
    let ranges = ranges(layout);
    // Of nodes that are older than the rule that nodes get none of these.
    let nodes = layout.addresses.nodes.values().flat_map(|node| node.addresses.iter());
    let nodes = nodes.filter(|one| ranges.iter().any(|range| range.contains(**one)));
    let (certificate, key) = places::LOAD_BALANCER;
    let mut command = Command::at(paths::AGENT)
        .word("agent")
        .word("load-balance")
        .flag("node", member.name())
        .flag("server", member.api)
        .flag("authority", places::AUTHORITY)
        .flag("certificate", certificate)
        .flag("key", key)
        .flag("listen", std::net::SocketAddr::new(member.address(), PORT))
        .flags(ranges.iter().map(|range| ("range", range.to_string())))
        .flags(nodes.map(|address| ("except", address.to_string())));
    if member.is_control_plane() {
        command = command.word("--allocate");
    }
    let mut service = command.service(layout, LOAD_BALANCER, local(PORT, "/"));
    service.ready = None;
    // A node has no address before it knows what to do with what comes to it.
    service.after = match layout.settings.bootstrap {
        Bootstrap::Services => after([PROXY]),
        Bootstrap::Kubeadm => announced.to_vec(),
    };
    service.oom_score = Some(-999);
    // Its threads have little to remember: they share what there is.
    service.environment.insert("MALLOC_ARENA_MAX".to_owned(), "1".to_owned());
    Some(service)
}

/// What it may do: see what decides which node has an address, and on control planes write who got which.
pub(super) fn rights() -> Vec<Value> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let look = ["list", "watch"];
    let user = json!({"apiGroup": GROUP, "kind": "User", "name": bivouac_pki::LOAD_BALANCER});
    let group =
        json!({"apiGroup": GROUP, "kind": "Group", "name": bivouac_pki::LOAD_BALANCER_ALLOCATORS});
    let (reader, writer) = (bivouac_pki::LOAD_BALANCER, bivouac_pki::LOAD_BALANCER_ALLOCATORS);
    let seen = json!([
        rule("", &["services", "nodes"], &look),
        rule("discovery.k8s.io", &["endpointslices"], &look),
    ]);
    let written = json!([
        rule("", &["services"], &["get"]),
        rule("", &["services/status"], &["patch"]),
        rule("", &["events"], &["create"]),
    ]);
    let mut own = rule("", &["configmaps"], &["get", "update"]);
    own["resourceNames"] = json!([BOOK]);
    let book = json!([rule("", &["configmaps"], &["create"]), own]);
    vec![
        role("ClusterRole", reader, &seen),
        binding("ClusterRole", reader, &user),
        role("ClusterRole", writer, &written),
        binding("ClusterRole", writer, &group),
        role("Role", writer, &book),
        binding("Role", writer, &group),
    ]
}

const GROUP: &str = "rbac.authorization.k8s.io";

fn role(kind: &str, name: &str, rules: &Value) -> Value {
    let (version, metadata) = (format!("{GROUP}/v1"), metadata(kind, name));
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules})
}

fn binding(role: &str, name: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": format!("{role}Binding"),
        "metadata": metadata(role, name),
        "roleRef": {"apiGroup": GROUP, "kind": role, "name": name},
        "subjects": [subject],
    })
}

fn metadata(role: &str, name: &str) -> Value {
    match role {
        "Role" => json!({"name": name, "namespace": NAMESPACE}),
        _ => json!({"name": name}),
    }
}
