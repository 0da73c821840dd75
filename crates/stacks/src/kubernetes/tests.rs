//! What is rendered, as documents, and what holds for every cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bivouac_spec::cluster::{Bootstrap, Cni, NodeGroup, Role, Stack as Chosen, Taint, TaintEffect};
use bivouac_spec::facts::{Applied, CgroupVersion};
use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};
use bivouac_spec::node::graph::check_units;
use bivouac_spec::node::{Content, FileKind, Run};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Addresses, Cluster, Facts, NodeConfig, NodeName};
use ipnet::IpNet;
use proptest::prelude::*;

use super::balancer;
use crate::stack::{Access, Change, Keys, KubernetesAccess, RenderRequest, Stack, Step, open};

mod addons;
mod certificates;
mod drain;
mod etcd;
mod families;
mod fork;
mod load_balancer;
mod registries;
mod remake;
mod several;

/// A cluster on a ground, with keys.
struct Bench {
    cluster: Cluster,
    addresses: Addresses,
    facts: Facts,
    stack: Box<dyn Stack>,
    joined: BTreeSet<NodeName>,
}

impl Bench {
    fn new(groups: Vec<NodeGroup>) -> Self {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        cluster.spec.nodes = groups;
        let addresses = addresses(&cluster);
        let stack = open(&cluster.spec.stack);
        Self { cluster, addresses, facts: facts(), stack, joined: BTreeSet::new() }
    }

    /// Three control planes and two workers, with a balancer therefore.
    fn several() -> Self {
        let groups = [(Role::ControlPlane, 3), (Role::Worker, 2)];
        Self::new(groups.map(|(role, count)| NodeGroup::new(role, count)).into())
    }

    /// Of these families, the preferred one first.
    fn of_families(mut self, v4: &[bool]) -> Self {
        self.addresses = addresses_of(&self.cluster, v4);
        self
    }

    fn joining(mut self, nodes: &[&str]) -> Self {
        self.joined = nodes.iter().map(|node| name(node)).collect();
        self
    }

    /// A node leaves.
    fn leaves(&self, node: &str) -> Vec<Step> {
        let applied = Applied::new(self.cluster.clone(), self.addresses.clone());
        self.steps(&Change::Leaves(&applied.members[&node.parse().unwrap()]))
    }

    fn steps(&self, change: &Change<'_>) -> Vec<Step> {
        self.stack.steps(&self.request(), change).unwrap()
    }

    fn with(mut self, bootstrap: Bootstrap, cni: Cni) -> Self {
        if let Chosen::Kubernetes(settings) = &mut self.cluster.spec.stack {
            settings.bootstrap = bootstrap;
        }
        self.cluster.spec.network.cni = cni;
        self.stack = open(&self.cluster.spec.stack);
        self
    }

    fn request(&self) -> RenderRequest<'_> {
        let Self { cluster, addresses, facts, joined, .. } = self;
        RenderRequest { cluster, addresses, facts, joined }
    }

    fn keys(&self, existing: Option<Keys>, now: SystemTime) -> Keys {
        self.stack.ensure_keys(existing, &self.request(), now).unwrap()
    }

    fn render(&self, keys: &Keys) -> BTreeMap<NodeName, NodeConfig> {
        self.stack.render(&self.request(), keys).unwrap()
    }

    fn configs(&self) -> BTreeMap<NodeName, NodeConfig> {
        self.render(&self.keys(None, now()))
    }
}

fn of_kubernetes(access: Access) -> KubernetesAccess {
    match access {
        Access::Kubernetes(access) => access,
        other => panic!("{other:?}"),
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

fn addresses(cluster: &Cluster) -> Addresses {
    addresses_of(cluster, &[true])
}

/// Of IPv4 (true) and IPv6, the preferred one first.
fn addresses_of(cluster: &Cluster, families: &[bool]) -> Addresses {
    let each = |v4: &str, v6: &str| -> Vec<String> {
        families.iter().map(|is_v4| if *is_v4 { v4 } else { v6 }.to_owned()).collect()
    };
    let nets = |v4: &str, v6: &str| -> Vec<IpNet> {
        each(v4, v6).iter().map(|net| net.parse().unwrap()).collect()
    };
    let ips = |v4: &str, v6: &str| -> Families<IpAddr> {
        let ips: Vec<IpAddr> = each(v4, v6).iter().map(|ip| ip.parse().unwrap()).collect();
        ips.try_into().unwrap()
    };
    let node = |(index, node): (usize, bivouac_spec::cluster::NodeSpec)| {
        let number = index + 2;
        let addresses = ips(&format!("10.89.0.{number}"), &format!("fd89::{number}"));
        let pod_networks = nets(&format!("10.244.{index}.0/24"), &format!("fd24:0:0:{index}::/64"));
        (node.name, NodeAddresses { addresses, pod_networks })
    };
    let own = nets("10.89.0.0/24", "fd89::/64");
    let gateways = ips("10.89.0.1", "fd89::1");
    let networks = own.iter().zip(gateways.iter());
    let networks =
        networks.map(|(network, gateway)| NodeNetwork { network: *network, gateway: *gateway });
    Addresses {
        node_networks: networks.collect::<Vec<_>>().try_into().unwrap(),
        pod_networks: nets("10.244.0.0/16", "fd24::/56"),
        service_networks: nets("10.96.0.0/16", "fd96::/112"),
        nodes: cluster.nodes().into_iter().enumerate().map(node).collect(),
    }
}

fn facts() -> Facts {
    Facts {
        kernel: "6.18.0".to_owned(),
        architecture: "amd64".to_owned(),
        cpus: 2,
        memory: Bytes(8 << 30),
        disk_free: Bytes(50 << 30),
        cgroup: CgroupVersion::V1,
        raises_limits: false,
        shares_kernel: true,
        shares_images: true,
        open_files: 524_288,
        occupied: BTreeMap::new(),
        reaches_nodes: true,
        shares_network: true,
        file_systems: BTreeSet::new(),
        identity: String::new(),
        place: String::new(),
        remote: false,
        remakes_for: Vec::new(),
        no_disks: None,
    }
}

fn single() -> Bench {
    Bench::new(vec![NodeGroup::new(Role::ControlPlane, 1)])
}

fn with_workers() -> Bench {
    let mut workers = NodeGroup::new(Role::Worker, 2);
    workers.zones = vec!["a".to_owned(), "b".to_owned()];
    workers.labels = [("disk".to_owned(), "fast".to_owned())].into();
    let (key, value) = ("dedicated".to_owned(), Some("batch".to_owned()));
    workers.taints = vec![Taint { key, value, effect: TaintEffect::PreferNoSchedule }];
    Bench::new(vec![NodeGroup::new(Role::ControlPlane, 1), workers])
}

/// The config as a document, without what differs from run to run and without keys.
fn document(config: &NodeConfig) -> serde_json::Value {
    /// `-----BEGIN` in Base64.
    const ENCODED: &str = "LS0tLS1CRUdJTi";
    let mut config = config.clone();
    for file in &mut config.files {
        if let FileKind::Regular(Content(content)) = &mut file.kind
            && ["-----BEGIN", "-data:", ENCODED].iter().any(|sign| content.contains(sign))
        {
            "(keys and certificates)".clone_into(content);
        }
    }
    let mut document = serde_json::to_value(&config).unwrap();
    for task in document["tasks"].as_array_mut().unwrap() {
        let Some(requests) = task.pointer_mut("/run/requests") else { continue };
        for request in requests.as_array_mut().unwrap() {
            let body = &mut request["request"]["body"];
            if let Some(text) = body.as_str() {
                *body = serde_json::from_str(text).unwrap();
            }
        }
    }
    document
}

/// The document with no more of each request than its method and URL.
fn outline(config: &NodeConfig) -> serde_json::Value {
    let mut document = document(config);
    for task in document["tasks"].as_array_mut().unwrap() {
        let Some(requests) = task.pointer_mut("/run/requests") else { continue };
        for request in requests.as_array_mut().unwrap() {
            let text = |key: &str| request["request"][key].as_str().unwrap();
            *request = format!("{} {}", text("method"), text("url")).into();
        }
    }
    document
}

/// What differs between two clusters of one node, line by line.
fn changes(from: &Bench, to: &Bench) -> String {
    let (theirs, ours) = (lines(&from.configs()), lines(&to.configs()));
    let signed = [("-", &theirs, &ours), ("+", &ours, &theirs)].into_iter();
    let changes = signed.flat_map(|(sign, from, to)| {
        from.iter().filter(|line| !to.contains(line)).map(move |line| format!("{sign} {line}"))
    });
    changes.collect::<Vec<_>>().join("\n")
}

/// The lines of the only node's document, files among them, without commas at their ends.
fn lines(configs: &BTreeMap<NodeName, NodeConfig>) -> Vec<String> {
    let mut document = document(&configs[&name("control-plane-0")]);
    let mut text = String::new();
    for file in document["files"].as_array_mut().unwrap() {
        if let Some(content) = file.pointer_mut("/kind/regular") {
            text.push_str(content.take().as_str().unwrap());
        }
    }
    text.push_str(&serde_json::to_string_pretty(&document).unwrap());
    text.lines().map(|line| line.trim().trim_end_matches(',').to_owned()).collect()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

#[test]
fn a_single_node_is_rendered() {
    let configs = single().configs();
    insta::assert_yaml_snapshot!(document(&configs[&name("control-plane-0")]));
}

#[test]
fn a_cluster_with_workers_is_rendered() {
    let configs = with_workers().configs();
    insta::assert_yaml_snapshot!(
        "control_plane_with_workers",
        document(&configs[&name("control-plane-0")])
    );
    insta::assert_yaml_snapshot!("worker", document(&configs[&name("worker-1")]));
}

#[test]
fn a_ground_with_cgroup_v2_and_every_right_is_used() {
    let mut bench = single();
    bench.facts.cgroup = CgroupVersion::V2;
    bench.facts.raises_limits = true;
    bench.facts.shares_images = false;
    bench.facts.open_files = 4 << 20;
    insta::assert_snapshot!(changes(&single(), &bench));
}

#[test]
fn a_cluster_by_kubeadm_is_rendered() {
    let configs = with_workers().with(Bootstrap::Kubeadm, Cni::Bridge).configs();
    insta::assert_yaml_snapshot!(
        "kubeadm_control_plane",
        outline(&configs[&name("control-plane-0")])
    );
    insta::assert_yaml_snapshot!("kubeadm_worker", outline(&configs[&name("worker-1")]));
}

#[test]
fn flannel_adds_itself_and_nothing_else() {
    let flannel = single().with(Bootstrap::Services, Cni::Flannel);
    insta::assert_snapshot!(changes(&single(), &flannel));
}

#[test]
fn without_a_network_nothing_waits_for_one() {
    let bare = single().with(Bootstrap::Services, Cni::None);
    insta::assert_snapshot!(changes(&single(), &bare));
}

#[test]
fn nobody_joins_by_kubeadm_with_a_token_or_a_key_of_somebody_else() {
    let bench = with_workers().with(Bootstrap::Kubeadm, Cni::Bridge);
    let keys = bench.keys(None, now());
    for (node, config) in bench.render(&keys) {
        let of = |path: &str| {
            config.files.iter().find(|file| file.path == path).map(|file| match &file.kind {
                FileKind::Regular(Content(content)) => content.clone(),
                other => format!("{other:?}"),
            })
        };
        let joins = node != name("control-plane-0");
        assert_eq!(of("/etc/kubernetes/discovery.conf").is_some(), joins, "{node}");
        assert_eq!(of("/etc/kubernetes/pki/ca.key").is_some(), !joins, "{node}");
        // What identifies a kubelet is made in the node.
        let made = of("/etc/kubernetes/kubelet.conf").unwrap();
        assert!(made.contains("/var/lib/kubelet/kubelet.conf") && !made.contains("BEGIN"));
        let told = of("/etc/kubernetes/kubeadm.yaml").unwrap();
        assert!(!told.contains("oken") && !told.contains("unsafe"), "{told}");
        if joins {
            let own = keys.0["leaves"][format!("{node}/join")]["issued"]["certificate"].as_str();
            assert_eq!(of("/etc/kubernetes/pki/join.crt").as_deref(), own);
        }
    }
}

#[test]
fn keys_stay_until_they_near_their_end() {
    let bench = with_workers();
    let first = bench.keys(None, now());
    assert_eq!(bench.keys(Some(first.clone()), now() + days(300)), first);
    let renewed = bench.keys(Some(first.clone()), now() + days(340));
    assert_ne!(renewed, first);
    assert_eq!(renewed.0["authorities"], first.0["authorities"]);
}

#[test]
fn the_first_end_is_that_of_the_oldest_certificate_which_is_no_authority() {
    let (small, large) = (single(), with_workers());
    let first = small.keys(None, now());
    let end = small.stack.expiry(&first).unwrap().unwrap();
    // A certificate knows whole seconds.
    let seconds = end.duration_since(now()).unwrap().as_secs();
    assert!(seconds.abs_diff(days(365).as_secs()) <= 1, "{seconds}");
    let grown = large.keys(Some(first.clone()), now() + days(100));
    assert_eq!(large.stack.expiry(&grown).unwrap(), Some(end));
    let renewed = small.keys(Some(first), now() + days(340));
    assert!(small.stack.expiry(&renewed).unwrap().unwrap() > end + days(300));
    let foreign: Keys = serde_json::from_str("{}").unwrap();
    let code = small.stack.expiry(&foreign).unwrap_err().code;
    assert_eq!(code, "stack.kubernetes.keys_unreadable");
}

#[test]
fn keys_of_nodes_that_are_gone_are_forgotten() {
    let (large, small) = (with_workers(), single());
    let keys = small.keys(Some(large.keys(None, now())), now());
    let text = serde_json::to_string(&keys).unwrap();
    assert!(!text.contains("worker-0"));
    assert!(text.contains("control-plane-0/apiserver"));
}

#[test]
fn keys_that_do_not_cover_the_cluster_are_refused() {
    let keys = single().keys(None, now());
    let bench = with_workers();
    let problem = bench.stack.render(&bench.request(), &keys).unwrap_err();
    assert_eq!(problem.code, "stack.kubernetes.stale_keys");
    let nonsense = Keys(serde_json::json!({"authorities": "-----BEGIN"}));
    let problem = bench.stack.render(&bench.request(), &nonsense).unwrap_err();
    assert_eq!(problem.code, "stack.kubernetes.keys_unreadable");
    assert!(!format!("{problem:?}").contains("BEGIN"));
}

#[test]
fn requests_that_do_not_fit_together_are_refused() {
    let bench = Bench::new(vec![NodeGroup::new(Role::Worker, 1)]);
    let code =
        |bench: &Bench| bench.stack.ensure_keys(None, &bench.request(), now()).unwrap_err().code;
    assert_eq!(code(&bench), "stack.kubernetes.no_control_plane");
    let mut bench = with_workers();
    bench.addresses.nodes.remove(&name("worker-0"));
    assert_eq!(code(&bench), "stack.kubernetes.no_address");
    let mut bench = single();
    bench.addresses.service_networks = vec!["10.96.0.0/29".parse().unwrap()];
    assert_eq!(code(&bench), "stack.kubernetes.service_network");
}

#[test]
fn workers_hold_no_keys_of_authorities() {
    for (node, config) in with_workers().configs() {
        let has = |path: &str| config.files.iter().any(|file| file.path == path);
        let controls = node == name("control-plane-0");
        for path in ["ca.key", "sa.key", "etcd/ca.key", "super-admin.key"] {
            assert_eq!(has(&format!("/etc/kubernetes/pki/{path}")), controls, "{node} {path}");
        }
        assert_eq!(has("/etc/kubernetes/admin.conf"), controls);
        assert!(has("/etc/kubernetes/kubelet.conf") && has("/etc/kubernetes/pki/ca.crt"));
    }
}

#[test]
fn the_user_becomes_an_administrator_of_the_first_control_plane() {
    let bench = with_workers();
    let access =
        of_kubernetes(bench.stack.access(&bench.request(), &bench.keys(None, now())).unwrap());
    assert_eq!(
        (access.node.as_str(), access.address),
        ("control-plane-0", "10.89.0.2:6443".parse().unwrap())
    );
    let kubeconfig = access.kubeconfig(access.address);
    assert_eq!(kubeconfig.context(), "bivouac-demo");
    assert!(kubeconfig.render().expose().contains("https://10.89.0.2:6443"));
    assert_eq!(bench.stack.describe(), "Kubernetes v1.36.3");
}

#[test]
fn the_api_is_known_by_name_where_its_certificate_has_no_such_address() {
    let bench = single();
    let access =
        of_kubernetes(bench.stack.access(&bench.request(), &bench.keys(None, now())).unwrap());
    let known = |at: &str| {
        let text = access.kubeconfig(at.parse().unwrap()).render().expose().to_owned();
        assert!(text.contains(&format!("server: https://{at}\n")), "{text}");
        text.contains("tls-server-name: kubernetes\n")
    };
    for certified in ["10.89.0.2:6443", "127.0.0.1:36443", "[::1]:36443"] {
        assert!(!known(certified), "{certified}");
    }
    for elsewhere in ["192.0.2.7:36443", "127.0.0.2:36443"] {
        assert!(known(elsewhere), "{elsewhere}");
    }
}

fn is_secret(content: &str) -> bool {
    content.contains("PRIVATE KEY") || content.contains("client-key-data")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_cluster_can_be_brought_up(
        control_planes in 1u32..4,
        workers in 0u32..4,
        shares_images: bool,
        by_kubeadm: bool,
        cni in prop_oneof![Just(Cni::Bridge), Just(Cni::Flannel), Just(Cni::None)],
        families in prop_oneof![
            Just(vec![true]), Just(vec![false]), Just(vec![true, false]), Just(vec![false, true]),
        ],
        joins: bool,
    ) {
        // kubeadm makes one control plane; the cluster file says so.
        let (bootstrap, control_planes) =
            if by_kubeadm { (Bootstrap::Kubeadm, 1) } else { (Bootstrap::Services, control_planes) };
        let mut bench = Bench::new(vec![
            NodeGroup::new(Role::ControlPlane, control_planes),
            NodeGroup::new(Role::Worker, workers),
        ])
        .with(bootstrap, cni)
        .of_families(&families)
        .joining(if joins { &["control-plane-1", "worker-0"] } else { &[] });
        bench.facts.shares_images = shares_images;
        let keys = bench.keys(None, now());
        let configs = bench.render(&keys);
        let balancers = u32::from(control_planes > 1);
        prop_assert_eq!(configs.len(), (control_planes + workers + balancers) as usize);
        let again = bench.keys(Some(keys), now());
        for (node, config) in bench.render(&again) {
            prop_assert_eq!(config.digest(), configs[&node].digest());
        }
        for config in configs.values() {
            prop_assert_eq!(check_units(config), Vec::<String>::new());
            check_files(config)?;
            check_requests(config, &bench)?;
        }
    }
}

fn check_files(config: &NodeConfig) -> Result<(), TestCaseError> {
    let mut paths = BTreeSet::new();
    for file in &config.files {
        prop_assert!(paths.insert(&file.path), "{} is there twice", file.path);
        if let FileKind::Regular(Content(content)) = &file.kind
            && is_secret(content)
        {
            prop_assert_eq!(file.mode, 0o600, "{}", &file.path);
        }
    }
    let mut open = config.clone();
    open.files.clear();
    prop_assert!(!serde_json::to_string(&open).unwrap().contains("-----BEGIN"));
    Ok(())
}

/// Every file that a request or a flag names is one that the node has.
fn check_requests(config: &NodeConfig, bench: &Bench) -> Result<(), TestCaseError> {
    let mut paths: BTreeSet<&str> = config.files.iter().map(|file| file.path.as_str()).collect();
    if paths.contains("/etc/kubernetes/kubeadm.yaml") {
        // kubeadm makes these.
        paths.extend(["/etc/kubernetes/bootstrap-kubelet.conf", "/var/lib/kubelet/config.yaml"]);
    }
    for service in &config.services {
        for argument in &service.command {
            let value = argument.split_once('=').map_or("", |(_, value)| value);
            if value.starts_with("/etc/") || value.starts_with("/var/lib/kube") {
                prop_assert!(paths.contains(value), "{argument}");
            }
        }
    }
    let control_planes: BTreeSet<IpAddr> = bench
        .addresses
        .nodes
        .iter()
        .filter(|(node, _)| node.as_str().starts_with("control"))
        .map(|(_, own)| own.primary())
        .collect();
    for task in &config.tasks {
        let Run::Requests(requests) = &task.run else { continue };
        for one in requests {
            let tls = one.request.tls.as_ref().unwrap();
            prop_assert!(paths.contains(tls.authority.as_str()));
            if let Some(identity) = &tls.identity {
                prop_assert!(paths.contains(identity.key.as_str()), "{}", identity.key);
            }
            let rest = one.request.url.strip_prefix("https://").unwrap();
            let host: std::net::SocketAddr = rest.split('/').next().unwrap().parse().unwrap();
            let via_balancer = host == balancer::OF_A_NODE;
            prop_assert!(via_balancer || control_planes.contains(&host.ip()), "{host}");
            // A node may ask another one only where there is nobody else to ask.
            let own = bench.addresses.nodes[&config.node].primary();
            prop_assert!(via_balancer || control_planes.len() == 1 || host.ip() == own, "{host}");
        }
    }
    Ok(())
}
