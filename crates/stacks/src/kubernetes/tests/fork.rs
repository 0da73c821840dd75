//! Copies that become other clusters.

use bivouac_spec::cluster::Resources;
use bivouac_spec::quantity::Cpus;

use super::*;

/// The same cluster under another name, elsewhere.
fn fork(of: &Bench) -> Bench {
    let mut fork = Bench { cluster: of.cluster.clone(), ..Bench::new(Vec::new()) };
    fork.cluster.metadata.name = "copy".parse().unwrap();
    fork.stack = open(&fork.cluster.spec.stack);
    fork.addresses = serde_json::from_str(
        &serde_json::to_string(&of.addresses)
            .unwrap()
            .replace("10.89.0.", "10.90.0.")
            .replace("10.244.", "10.245."),
    )
    .unwrap();
    assert_ne!(fork.addresses, of.addresses);
    fork.joined = fork.stack.fork_joins(&fork.cluster).unwrap();
    fork
}

fn applied(bench: &Bench) -> Applied {
    Applied::new(bench.cluster.clone(), bench.addresses.clone())
}

#[test]
fn each_node_of_a_fork_is_told_what_it_is() {
    let original = Bench::several();
    let fork = fork(&original);
    assert_eq!(
        fork.joined.iter().map(NodeName::as_str).collect::<Vec<_>>(),
        ["control-plane-1", "control-plane-2"]
    );
    let steps = fork.stack.fork(&applied(&original), &fork.request()).unwrap();
    let shown: Vec<_> = steps.iter().map(|step| (&step.name, &step.nodes, &step.command)).collect();
    insta::assert_yaml_snapshot!("fork", shown);
    // Whoever joins finds the others by what the first one says of itself.
    let members = &fork.configs()[&name("control-plane-1")];
    let peer = &steps[0].command[8];
    assert!(members.files.iter().any(|file| file.path == "/etc/bivouac/etcd-members.sh"));
    assert_eq!(peer, "https://10.90.0.2:2380");
}

#[test]
fn only_one_of_several_members_forgets_the_others() {
    let force = "--force-new-cluster".to_owned();
    for (count, forced) in [(1, false), (3, true)] {
        let original = Bench::new(vec![NodeGroup::new(Role::ControlPlane, count)]);
        let fork = fork(&original);
        let steps = fork.stack.fork(&applied(&original), &fork.request()).unwrap();
        assert_eq!(steps[0].command.contains(&force), forced, "{count}");
        assert!(steps[1..].iter().all(|step| !step.command.contains(&force)));
        // It forgets nothing that they know and it does not.
        let shared = fork.stack.fork_shares(&fork.cluster);
        assert_eq!(shared.is_some(), forced, "{count}");
        let Some(shared) = shared else { continue };
        assert_eq!((&shared.to, shared.folder.as_str()), (&steps[0].nodes[0], "/var/lib/etcd"));
        let asked: Vec<_> = shared.ask.iter().map(|step| step.nodes[0].as_str()).collect();
        assert_eq!(asked, ["control-plane-0", "control-plane-1", "control-plane-2"]);
        assert!(shared.ask.iter().all(|step| step.command[1..3] == ["agent", "etcd-log"]));
    }
}

#[test]
fn networks_that_the_fork_has_itself_stay_reachable() {
    let original = Bench::several();
    let mut fork = fork(&original);
    fork.addresses = original.addresses.clone();
    let steps = fork.stack.fork(&applied(&original), &fork.request()).unwrap();
    assert!(steps.iter().all(|step| step.command[4].is_empty()), "{:?}", steps[0].command);
}

#[test]
fn a_fork_has_the_authorities_of_its_original_and_certificates_of_its_own_addresses() {
    let original = Bench::several();
    let fork = fork(&original);
    let keys = original.keys(None, now());
    let forked = fork.keys(Some(keys.clone()), now());
    let (before, after) = (&keys.0, &forked.0);
    assert_eq!(before["authorities"], after["authorities"]);
    let leaf = |keys: &serde_json::Value, name: &str| keys["leaves"][name].clone();
    let certified = "control-plane-0/apiserver";
    assert_ne!(leaf(before, certified), serde_json::Value::Null, "{:?}", before["leaves"]);
    assert_ne!(leaf(before, certified), leaf(after, certified));
    assert_eq!(leaf(before, "worker-0/kubelet-client"), leaf(after, "worker-0/kubelet-client"));
    assert_ne!(leaf(before, "worker-0/kubelet"), leaf(after, "worker-0/kubelet"));
    fork.render(&forked);
}

#[test]
fn nodes_have_room_for_pods_before_their_kubelets_say_so() {
    let known = (8 << 30) - 1;
    let has_of = |memory: u64, resources: Resources| {
        let group = NodeGroup { resources, ..NodeGroup::new(Role::ControlPlane, 1) };
        let mut bench = Bench::new(vec![group]);
        bench.facts.memory = Bytes(memory);
        let configs = bench.configs();
        let nodes =
            configs[&name("control-plane-0")].tasks.iter().find(|task| task.name == "nodes");
        let Run::Requests(requests) = &nodes.unwrap().run else { panic!("no requests") };
        let made = requests.iter().find(|one| one.name == "Node control-plane-0").unwrap();
        let node: serde_json::Value =
            serde_json::from_str(made.request.body.as_deref().unwrap()).unwrap();
        assert_eq!(node["status"]["capacity"], node["status"]["allocatable"]);
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "linux");
        ["cpu", "memory", "pods"]
            .map(|what| node["status"]["capacity"][what].as_str().unwrap().to_owned())
    };
    let has = |resources| has_of(known, resources);
    assert_eq!(has(Resources::default()), ["2", "8589934592", "110"]);
    let limits =
        Resources { cpus: Some(Cpus(500)), memory: Some(Bytes(1 << 30)), ..Resources::default() };
    assert_eq!(has(limits), ["500m", "1073741824", "110"]);
    let more = Resources { cpus: Some(Cpus(64_000)), memory: None, ..Resources::default() };
    assert_eq!(has(more), ["2", "8589934592", "110"], "no node has more than its ground");
    // Of an export nobody knows which machine it is for.
    assert_eq!(has_of(u64::MAX, limits), ["500m", "1073741824", "110"]);
    assert_eq!(has_of(u64::MAX, Resources::default()), ["2", "1125899906842624", "110"]);
}

#[test]
fn what_cannot_be_forked_is_refused() {
    let kubeadm = Bench::new(vec![NodeGroup::new(Role::ControlPlane, 1)])
        .with(Bootstrap::Kubeadm, Cni::Bridge);
    let problem = kubeadm.stack.fork_joins(&kubeadm.cluster).unwrap_err();
    assert_eq!(problem.code, "stack.kubernetes.fork_kubeadm");
    assert!(kubeadm.stack.fork(&applied(&kubeadm), &kubeadm.request()).is_err());
    let original = Bench::several();
    let mut fork = fork(&original);
    fork.addresses.service_networks = vec!["10.97.0.0/16".parse().unwrap()];
    let problem = fork.stack.fork(&applied(&original), &fork.request()).unwrap_err();
    assert_eq!(problem.code, "stack.kubernetes.fork");
}
