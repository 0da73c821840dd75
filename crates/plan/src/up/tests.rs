use std::fmt::Write as _;

use bivouac_spec::cluster::{Bootstrap, Cni, NodeGroup, Protocol, Resources, Stack};
use bivouac_spec::facts::CgroupVersion;
use bivouac_spec::quantity::{Bytes, Cpus};
use proptest::prelude::*;

use super::*;
use crate::{assign_addresses, plan_down};

/// A ground that does what plans say.
#[derive(Clone)]
struct World {
    facts: Facts,
    image: String,
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
            identity: String::new(),
            place: String::new(),
            remote: false,
        };
        Self { facts, image: "image-1".to_owned(), applied: None, observed: None }
    }

    fn addresses(&self, cluster: &Cluster) -> Addresses {
        let existing = self.applied.as_ref().map(|applied| &applied.addresses);
        assign_addresses(cluster, &self.facts.occupied, existing).unwrap()
    }

    fn plan(&self, cluster: &Cluster) -> Plan {
        let (addresses, configs) = (self.addresses(cluster), configs(cluster));
        plan_up(&UpRequest {
            cluster,
            addresses: &addresses,
            applied: self.applied.as_ref(),
            observed: self.observed.as_ref(),
            facts: &self.facts,
            configs: &configs,
            image: &self.image,
        })
    }

    /// Carries out the first `steps` actions.
    fn run(&mut self, cluster: &Cluster, plan: &Plan, steps: usize) {
        assert!(plan.check().is_ok());
        let addresses = self.addresses(cluster);
        self.applied = Some(Applied { cluster: cluster.clone(), addresses });
        let nodes = BTreeMap::new();
        let (name, remains) = (cluster.name().clone(), Vec::new());
        let empty = ObservedCluster { name, network: None, nodes, remains };
        let observed = self.observed.get_or_insert(empty);
        for action in plan.actions.iter().take(steps) {
            match action {
                Action::CreateNetwork { network, .. } => observed.network = Some(*network),
                Action::CreateNode { node, address, .. }
                | Action::StartNode { node, address, .. } => {
                    let made = ObservedNode {
                        state: ObservedState::Running,
                        address: Some(*address),
                        config: Some(configs(cluster)[node].clone()),
                        image: Some(self.image.clone()),
                        pid: Some(1),
                    };
                    observed.nodes.insert(node.clone(), made);
                }
                other => panic!("{other:?} is not for up"),
            }
        }
    }

    fn node(&mut self, name: &str) -> &mut ObservedNode {
        self.observed.as_mut().unwrap().nodes.get_mut(&name.parse().unwrap()).unwrap()
    }
}

fn configs(cluster: &Cluster) -> BTreeMap<NodeName, String> {
    cluster.nodes().into_iter().map(|node| (node.name, "sha256:1".to_owned())).collect()
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
fn changes_of_ports_and_of_how_pods_are_reached_are_refused() {
    let (world, mut cluster) = up(0);
    let port = r#"{"hostPort": 36443, "port": 6443}"#;
    cluster.spec.ports.push(serde_json::from_str(port).unwrap());
    cluster.spec.network.cni = Cni::Flannel;
    let Stack::Kubernetes(kubernetes) = &mut cluster.spec.stack;
    kubernetes.bootstrap = Bootstrap::Kubeadm;
    insta::assert_snapshot!(render(&world.plan(&cluster)));
}

#[test]
fn what_is_missing_stopped_or_broken_is_mended() {
    let (mut world, cluster) = up(3);
    world.node("worker-0").state = ObservedState::Stopped;
    world.node("worker-1").state = ObservedState::Broken;
    world.observed.as_mut().unwrap().nodes.remove(&"worker-2".parse().unwrap());
    world.observed.as_mut().unwrap().network = None;
    insta::assert_snapshot!(render(&world.plan(&cluster)));
}

#[test]
fn changes_of_the_file_are_refused_field_by_field() {
    let (world, mut cluster) = up(2);
    cluster.spec.nodes[1].count = 3;
    cluster.spec.nodes[1].labels.insert("example.com/disk".to_owned(), "fast".to_owned());
    cluster.spec.nodes.push(NodeGroup::new(Role::Worker, 1));
    cluster.spec.network.pod_cidr = vec!["10.128.0.0/16".parse().unwrap()];
    let plan = world.plan(&cluster);
    assert!(plan.actions.is_empty());
    insta::assert_snapshot!(render(&plan));
}

#[test]
fn a_newer_bivouac_is_a_note() {
    let (mut world, cluster) = up(1);
    world.image = "image-2".to_owned();
    world.node("worker-0").config = Some("sha256:0".to_owned());
    world.node("control-plane-0").address = Some("10.0.0.1".parse().unwrap());
    let stranger = world.node("worker-0").clone();
    world.observed.as_mut().unwrap().nodes.insert("worker-9".parse().unwrap(), stranger);
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
    world.observed.as_mut().unwrap().network = Some("10.1.0.0/24".parse().unwrap());
    insta::assert_snapshot!(format!("{unrecorded}{}", render(&world.plan(&cluster))));
}

#[test]
fn a_ground_that_is_too_small_is_named_in_every_respect() {
    let (mut world, mut cluster) = (World::new(), cluster(3));
    let resources = Resources { cpus: Some(Cpus(2500)), memory: Some(Bytes(4 << 30)) };
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
            observed.network = None;
            observed.nodes.values_mut().for_each(|node| node.state = ObservedState::Stopped);
        }
    }
}

proptest! {
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
