use std::fmt::Write as _;

use bivouac_spec::cluster::{
    Bootstrap, Cni, ImageCache, NodeGroup, Protocol, Proxy, Resources, Stack,
};
use bivouac_spec::facts::CgroupVersion;
use bivouac_spec::quantity::{Bytes, Cpus};
use proptest::prelude::*;

use super::*;
use crate::{assign_addresses, plan_down};

mod disks;
mod founding;
mod quorum;

/// A ground that does what plans say.
#[derive(Clone)]
struct World {
    facts: Facts,
    image: String,
    /// Of the nodes that are made now.
    node_image: String,
    goes_back: bool,
    applied: Option<Applied>,
    observed: Option<ObservedCluster>,
}

impl World {
    fn new() -> Self {
        let facts = Facts {
            kernel: "6.12.9".to_owned(),
            architecture: "amd64".to_owned(),
            cpus: 2,
            memory: Bytes(8 << 30),
            disk_free: Bytes(50 << 30),
            cgroup: CgroupVersion::V2,
            raises_limits: true,
            shares_kernel: true,
            shares_images: true,
            open_files: 1_048_576,
            occupied: BTreeMap::new(),
            reaches_nodes: true,
            shares_network: true,
            file_systems: BTreeSet::new(),
            identity: String::new(),
            place: String::new(),
            remakes_for: vec![Aspect::Image, Aspect::Ports, Aspect::Disk],
            remote: false,
            no_disks: None,
        };
        let (image, node_image) = ("image-1".to_owned(), "image-1".to_owned());
        Self { facts, image, node_image, goes_back: false, applied: None, observed: None }
    }

    fn addresses(&self, cluster: &Cluster) -> Addresses {
        let existing = self.applied.as_ref().map(|applied| {
            let mut addresses = applied.addresses.clone();
            let members = applied.members.iter();
            addresses
                .nodes
                .extend(members.map(|(name, one)| (name.clone(), one.addresses.clone())));
            addresses
        });
        assign_addresses(cluster, &self.facts.occupied, existing.as_ref()).unwrap()
    }

    fn plan(&self, cluster: &Cluster) -> Plan {
        let (addresses, records) = (self.addresses(cluster), self.records(cluster));
        plan_up(&UpRequest {
            cluster,
            addresses: &addresses,
            applied: self.applied.as_ref(),
            observed: self.observed.as_ref(),
            facts: &self.facts,
            records: &records,
            image: &self.image,
            goes_back: self.goes_back,
        })
    }

    fn records(&self, cluster: &Cluster) -> BTreeMap<NodeName, NodeRecord> {
        let neighbours = self.addresses(cluster).neighbours();
        let first = cluster.nodes()[0].name.clone();
        let record = |node: NodeSpec| {
            // The first node knows of all others.
            let all = if node.name == first { neighbours.as_str() } else { "" };
            let record = NodeRecord {
                config: format!("{:?} {all}", node.labels),
                image: self.node_image.clone(),
                resources: node.resources,
                ports: Vec::new(),
                neighbours: neighbours.clone(),
            };
            (node.name, record)
        };
        cluster.nodes().into_iter().map(record).collect()
    }

    /// Carries out the first `steps` actions.
    fn run(&mut self, cluster: &Cluster, plan: &Plan, steps: usize) {
        assert!(plan.check().is_ok(), "{plan:?}");
        let (addresses, records) = (self.addresses(cluster), self.records(cluster));
        let joined = joined(cluster, self.applied.as_ref(), self.observed.as_ref());
        let before = self.applied.take();
        let mut applied = Applied { joined, ..Applied::new(cluster.clone(), addresses) };
        if steps >= plan.actions.len() {
            applied.completed = Some(Box::new(cluster.clone()));
        } else if let Some(before) = before {
            applied.members.extend(before.members);
            applied.completed = before.completed;
        }
        self.applied = Some(applied);
        let nodes = BTreeMap::new();
        let (name, remains) = (cluster.name().clone(), Vec::new());
        let empty = ObservedCluster { name, networks: Vec::new(), nodes, remains };
        let observed = self.observed.get_or_insert(empty);
        for action in plan.actions.iter().take(steps) {
            match action {
                Action::CreateNetwork { networks, .. } => observed.networks.clone_from(networks),
                Action::CreateNode { node, address, .. }
                | Action::StartNode { node, address, .. } => {
                    let made = ObservedNode {
                        state: ObservedState::Running,
                        address: Some(*address),
                        record: Some(records[node].clone()),
                        pid: Some(1),
                    };
                    observed.nodes.insert(node.clone(), made);
                }
                Action::UpdateNode { node, .. } => {
                    observed.nodes.get_mut(node).unwrap().record = Some(records[node].clone());
                }
                Action::DestroyNode { node, .. } => {
                    observed.nodes.remove(node);
                    self.applied.iter_mut().for_each(|applied| drop(applied.members.remove(node)));
                }
                other => panic!("{other:?} is not for up"),
            }
        }
    }

    fn node(&mut self, name: &str) -> &mut ObservedNode {
        self.observed.as_mut().unwrap().nodes.get_mut(&name.parse().unwrap()).unwrap()
    }
}

fn cluster(workers: u32) -> Cluster {
    let mut cluster = Cluster::named("demo".parse().unwrap());
    cluster.spec.nodes.push(NodeGroup::new(Role::Worker, workers));
    cluster
}

fn up(workers: u32) -> (World, Cluster) {
    let (mut world, cluster) = (World::new(), cluster(workers));
    let plan = world.plan(&cluster);
    world.run(&cluster, &plan, usize::MAX);
    (world, cluster)
}

fn render(plan: &Plan) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        writeln!(text, "{}", action.describe()).unwrap();
    }
    for refusal in &plan.refusals {
        writeln!(text, "[{}, exit {}] {refusal}", refusal.code, refusal.class.exit_code()).unwrap();
        writeln!(text, "    help: {}", refusal.help.as_deref().unwrap()).unwrap();
    }
    for note in &plan.notes {
        writeln!(text, "note: {note}").unwrap();
    }
    text
}

#[test]
fn a_new_cluster_is_made_whole() {
    let plan = World::new().plan(&cluster(2));
    insta::assert_snapshot!(render(&plan));
    insta::assert_json_snapshot!(plan);
}

#[test]
fn published_ports_are_told_with_their_node() {
    let mut cluster = cluster(1);
    let port = |host_port, node: Option<&str>, protocol| Port {
        host_port,
        port: 6443,
        node: node.map(|node| node.parse().unwrap()),
        host_ip: "127.0.0.1".parse().unwrap(),
        protocol,
    };
    let ports = [
        port(36443, None, Protocol::Tcp),
        port(36444, Some("control-plane-0"), Protocol::Tcp),
        port(53, Some("worker-0"), Protocol::Udp),
    ];
    cluster.spec.ports.extend(ports);
    let plan = World::new().plan(&cluster);
    insta::assert_snapshot!(render(&plan));
    let written = serde_json::to_value(&plan).unwrap();
    assert_eq!(written["actions"][2]["ports"][0]["node"], "worker-0");
    assert_eq!(serde_json::from_value::<Plan>(written).unwrap(), plan);
}

#[test]
fn what_a_cluster_keeps_for_its_life_is_refused() {
    let (world, mut cluster) = up(1);
    cluster.spec.network.cni = Cni::Flannel;
    let Stack::Kubernetes(kubernetes) = &mut cluster.spec.stack else { panic!("another stack") };
    kubernetes.bootstrap = Bootstrap::Kubeadm;
    cluster.spec.network.pod_cidr = vec!["10.128.0.0/16".parse().unwrap()];
    cluster.spec.nodes[1].count = 3;
    let plan = world.plan(&cluster);
    assert!(plan.actions.is_empty());
    insta::assert_snapshot!(render(&plan));
}

#[test]
fn how_images_are_had_can_change() {
    let (world, mut cluster) = up(1);
    let Stack::Kubernetes(kubernetes) = &mut cluster.spec.stack else { panic!("another stack") };
    let registry = serde_json::json!({"host": "docker.io", "insecure": true});
    kubernetes.registries.push(serde_json::from_value(registry).unwrap());
    kubernetes.proxy = Some(Proxy::default());
    kubernetes.image_cache = Some(ImageCache::default());
    kubernetes.drain_timeout = "5m".parse().unwrap();
    assert_eq!(world.plan(&cluster).refusals, []);
}

#[test]
fn add_ons_come_and_go() {
    let (world, mut cluster) = up(1);
    let Stack::Kubernetes(kubernetes) = &mut cluster.spec.stack else { panic!("another stack") };
    kubernetes.addons.metrics_server = false;
    kubernetes.addons.storage = false;
    assert_eq!(world.plan(&cluster).refusals, []);
}

#[test]
fn what_changes_is_changed_and_nothing_else() {
    let (world, mut cluster) = up(3);
    cluster.spec.nodes[1].count = 2;
    cluster.spec.nodes[1].skip.insert(0);
    cluster.spec.nodes[1].resources.memory = Some(Bytes(1 << 30));
    cluster
        .spec
        .nodes
        .push(NodeGroup { name: Some("gpu".to_owned()), ..NodeGroup::new(Role::Worker, 1) });
    let plan = world.plan(&cluster);
    insta::assert_snapshot!(render(&plan));
    insta::assert_json_snapshot!(plan);
}

#[test]
fn more_and_fewer_control_planes() {
    let (mut world, mut cluster) = up(0);
    cluster.spec.nodes[0].count = 3;
    let grows = world.plan(&cluster);
    let names = joined(&cluster, world.applied.as_ref(), world.observed.as_ref());
    let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
    assert_eq!(names, ["balancer", "control-plane-1", "control-plane-2"]);
    world.run(&cluster, &grows, usize::MAX);
    cluster.spec.nodes[0].count = 2;
    let shrinks = world.plan(&cluster);
    insta::assert_snapshot!(format!("{}\n{}", render(&grows), render(&shrinks)));
}

#[test]
fn control_planes_do_not_change_without_most_of_them() {
    let (mut world, mut cluster) = (World::new(), cluster(0));
    cluster.spec.nodes[0].count = 3;
    let plan = world.plan(&cluster);
    world.run(&cluster, &plan, usize::MAX);
    let lose = |world: &mut World, name: &str| {
        world.observed.as_mut().unwrap().nodes.remove(&name.parse().unwrap());
    };
    lose(&mut world, "control-plane-0");
    assert!(world.plan(&cluster).check().is_ok());
    lose(&mut world, "control-plane-2");
    insta::assert_snapshot!(render(&world.plan(&cluster)));
    lose(&mut world, "control-plane-1");
    assert!(world.plan(&cluster).check().is_ok(), "it is founded anew");
    assert!(joined(&cluster, world.applied.as_ref(), world.observed.as_ref()).is_empty());
}

#[test]
fn what_is_missing_stopped_or_broken_is_mended() {
    let (mut world, cluster) = up(3);
    world.node("worker-0").state = ObservedState::Stopped;
    world.node("worker-1").state = ObservedState::Broken;
    world.observed.as_mut().unwrap().nodes.remove(&"worker-2".parse().unwrap());
    world.observed.as_mut().unwrap().networks.clear();
    insta::assert_snapshot!(render(&world.plan(&cluster)));
}

fn version(cluster: &mut Cluster) -> &mut String {
    let Stack::Kubernetes(kubernetes) = &mut cluster.spec.stack else { panic!("another stack") };
    &mut kubernetes.version
}

#[test]
fn an_upgrade_goes_node_by_node_and_back_the_other_way() {
    let (mut world, mut cluster) = (World::new(), cluster(2));
    cluster.spec.nodes[0].count = 2;
    *version(&mut cluster) = "v1.36.1".to_owned();
    let plan = world.plan(&cluster);
    world.run(&cluster, &plan, usize::MAX);
    let former = cluster.clone();
    *version(&mut cluster) = "v1.36.3".to_owned();
    world.node_image = "image-2".to_owned();
    let up = world.plan(&cluster);
    world.run(&cluster, &up, 4);
    world.node_image = "image-1".to_owned();
    world.goes_back = true;
    let back = world.plan(&former);
    insta::assert_snapshot!(format!("{}\n{}", render(&up), render(&back)));
    world.run(&former, &back, usize::MAX);
    assert!(world.plan(&former).is_empty());
}

#[test]
fn a_version_that_is_older_or_too_far_is_refused() {
    let (world, mut cluster) = up(1);
    let mut told = String::new();
    for wanted in ["v1.36.1", "v1.38.0"] {
        *version(&mut cluster) = wanted.to_owned();
        told.push_str(&render(&world.plan(&cluster)));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_newer_bivouac_is_a_note() {
    let (mut world, cluster) = up(1);
    world.image = "image-2".to_owned();
    world.node("control-plane-0").address = Some("10.0.0.1".parse().unwrap());
    let plan = world.plan(&cluster);
    assert!(plan.is_empty());
    insta::assert_snapshot!(render(&plan));
}

#[test]
fn a_cluster_without_records_or_on_another_network_is_refused() {
    let (mut world, cluster) = up(1);
    let whole = world.clone();
    world.applied = None;
    let unrecorded = render(&world.plan(&cluster));
    world = whole;
    world.observed.as_mut().unwrap().networks = vec!["10.1.0.0/24".parse().unwrap()];
    insta::assert_snapshot!(format!("{unrecorded}{}", render(&world.plan(&cluster))));
}

#[test]
fn a_ground_that_is_too_small_is_named_in_every_respect() {
    let (mut world, mut cluster) = (World::new(), cluster(3));
    let resources = Resources { cpus: Some(Cpus(2500)), memory: Some(Bytes(4 << 30)), disk: None };
    cluster.spec.nodes[1].resources = resources;
    world.facts.disk_free = Bytes(100 << 20);
    let plan = world.plan(&cluster);
    assert!(plan.actions.is_empty());
    insta::assert_snapshot!(render(&plan));
}

#[test]
fn a_running_cluster_is_not_asked_whether_it_fits() {
    let (mut world, cluster) = up(1);
    world.facts.disk_free = Bytes(0);
    world.facts.memory = Bytes(1);
    assert!(world.plan(&cluster).is_empty());
}

#[test]
fn down_removes_what_is_there() {
    let (mut world, cluster) = up(2);
    world.observed.as_mut().unwrap().remains.push("cgroup demo/worker-7".to_owned());
    insta::assert_snapshot!(render(&plan_down(cluster.name(), world.observed.as_ref())));
    assert!(plan_down(cluster.name(), None).is_empty());
}

#[derive(Debug, Clone)]
enum Trouble {
    Interrupted(usize),
    Gone(usize),
    Stopped(usize),
    Broken(usize),
    Rebooted,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0_usize..12).prop_map(Trouble::Interrupted),
        (0_usize..12).prop_map(Trouble::Gone),
        (0_usize..12).prop_map(Trouble::Stopped),
        (0_usize..12).prop_map(Trouble::Broken),
        Just(Trouble::Rebooted),
    ]
}

fn strike(world: &mut World, cluster: &Cluster, trouble: &Trouble) {
    let Some(observed) = &mut world.observed else { return };
    let names: Vec<_> = observed.nodes.keys().cloned().collect();
    let pick = |index: usize| names.get(index % names.len().max(1));
    match trouble {
        Trouble::Interrupted(steps) => {
            let plan = world.plan(cluster);
            world.run(cluster, &plan, *steps);
        }
        Trouble::Gone(index) => {
            pick(*index).map(|name| observed.nodes.remove(name));
        }
        Trouble::Stopped(index) => {
            pick(*index)
                .and_then(|name| observed.nodes.get_mut(name))
                .into_iter()
                .for_each(|node| node.state = ObservedState::Stopped);
        }
        Trouble::Broken(index) => {
            pick(*index)
                .and_then(|name| observed.nodes.get_mut(name))
                .into_iter()
                .for_each(|node| node.state = ObservedState::Broken);
        }
        Trouble::Rebooted => {
            observed.networks.clear();
            observed.nodes.values_mut().for_each(|node| node.state = ObservedState::Stopped);
        }
    }
}

/// Any file of a few groups.
fn any_cluster() -> impl Strategy<Value = Cluster> {
    let group = ("[ab]", 0_u32..4, prop::collection::btree_set(0_u32..4, 0..2), any::<bool>());
    let group = group.prop_map(|(name, count, skip, limited)| {
        let mut group = NodeGroup::new(Role::Worker, count);
        (group.name, group.skip) = (Some(name), skip);
        group.resources.memory = limited.then_some(Bytes(256 << 20));
        group
    });
    (1_u32..4, prop::collection::vec(group, 0..3)).prop_map(|(control_planes, groups)| {
        let mut cluster = cluster(0);
        cluster.spec.nodes[0].count = control_planes;
        cluster.spec.nodes.extend(groups);
        cluster
    })
}

proptest! {
    #[test]
    fn a_cluster_becomes_any_other(one in any_cluster(), other in any_cluster(), steps in 0_usize..12) {
        let mut world = World::new();
        let plan = world.plan(&one);
        world.run(&one, &plan, usize::MAX);
        let before = world.applied.clone().unwrap().addresses;
        let plan = world.plan(&other);
        world.run(&other, &plan, steps);
        let plan = world.plan(&other);
        world.run(&other, &plan, usize::MAX);
        let plan = world.plan(&other);
        prop_assert!(plan.is_empty(), "{plan:?}");
        let names: Vec<_> = world.observed.unwrap().nodes.into_keys().collect();
        let mut wanted: Vec<_> = other.nodes().into_iter().map(|node| node.name).collect();
        wanted.sort();
        prop_assert_eq!(&names, &wanted);
        let after = world.applied.unwrap().addresses;
        for (name, address) in &after.nodes {
            if let Some(known) = before.nodes.get(name) {
                prop_assert_eq!(known, address);
            }
        }
    }

    #[test]
    fn the_plan_of_an_applied_cluster_is_empty(workers in 0_u32..40) {
        let (world, cluster) = up(workers);
        let plan = world.plan(&cluster);
        prop_assert!(plan.is_empty() && plan.notes.is_empty(), "{plan:?}");
    }

    #[test]
    fn whatever_happens_one_more_run_mends_it(
        workers in 0_u32..8,
        first in 0_usize..12,
        troubles in prop::collection::vec(trouble(), 0..8),
    ) {
        let (mut world, cluster) = (World::new(), cluster(workers));
        let plan = world.plan(&cluster);
        world.run(&cluster, &plan, first);
        let addresses = world.applied.clone().unwrap().addresses;
        for trouble in &troubles {
            strike(&mut world, &cluster, trouble);
        }
        let plan = world.plan(&cluster);
        world.run(&cluster, &plan, usize::MAX);
        prop_assert!(world.plan(&cluster).is_empty());
        prop_assert_eq!(world.applied.unwrap().addresses, addresses);
    }
}
