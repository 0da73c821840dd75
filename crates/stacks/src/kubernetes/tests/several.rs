//! Several control planes, and clusters that change.

use bivouac_spec::node::{File, Service};

use super::*;

/// The content of a file of a node.
pub(super) fn content(config: &NodeConfig, path: &str) -> String {
    let file = config.files.iter().find(|file| file.path == path);
    match file.map(|file| &file.kind) {
        Some(FileKind::Regular(Content(content))) => content.clone(),
        other => panic!("{path}: {other:?}"),
    }
}

pub(super) fn service<'a>(config: &'a NodeConfig, name: &str) -> &'a Service {
    config.services.iter().find(|service| service.name == name).unwrap()
}

/// The names of units, with what they wait for.
fn order(config: &NodeConfig) -> Vec<String> {
    let services = config.services.iter().map(|unit| (&unit.name, &unit.after, ""));
    let tasks = config.tasks.iter().map(|unit| (&unit.name, &unit.after, "*"));
    let conditions = config.conditions.iter().map(|unit| (&unit.name, &unit.after, "?"));
    let units = services.chain(tasks).chain(conditions);
    units.map(|(name, after, mark)| format!("{name}{mark}: {}", after.join(", "))).collect()
}

/// Files whose content differs, or that only one of them has.
fn differing<'a>(one: &'a NodeConfig, other: &'a NodeConfig) -> Vec<&'a str> {
    let lacks = |files: &[File], file: &File| !files.contains(file);
    let paths = |from: &'a NodeConfig, to: &NodeConfig| {
        let files = from.files.iter().filter(|file| lacks(&to.files, file));
        files.map(|file| file.path.as_str()).collect::<BTreeSet<_>>()
    };
    paths(one, other).union(&paths(other, one)).copied().collect()
}

/// Services that an agent would start again.
fn restarted<'a>(old: &NodeConfig, new: &'a NodeConfig) -> Vec<&'a str> {
    let files = differing(old, new);
    let touched =
        |service: &Service| service.watch.iter().any(|path| files.contains(&path.as_str()));
    let restarts = new.services.iter().filter(|service| {
        let before = old.services.iter().find(|before| before.name == service.name);
        before.is_none_or(|before| !service.runs_as(before)) || touched(service)
    });
    restarts.map(|service| service.name.as_str()).collect()
}

/// What is rendered before and after, with the keys that are kept.
fn grown(
    small: &Bench,
    large: &Bench,
) -> (BTreeMap<NodeName, NodeConfig>, BTreeMap<NodeName, NodeConfig>) {
    let keys = small.keys(None, now());
    let before = small.render(&keys);
    (before, large.render(&large.keys(Some(keys), now())))
}

#[test]
fn several_control_planes_are_reached_through_balancers() {
    let configs = Bench::several().configs();
    insta::assert_yaml_snapshot!("balancer", document(&configs[&name("balancer")]));
    let (first, second) = (&configs[&name("control-plane-0")], &configs[&name("control-plane-1")]);
    let worker = &configs[&name("worker-0")];
    insta::assert_yaml_snapshot!("order_of_several", [order(first), order(second), order(worker)]);
    let commands = |config: &NodeConfig, names: &[&str]| -> Vec<Vec<String>> {
        names.iter().map(|name| service(config, name).command.clone()).collect()
    };
    insta::assert_yaml_snapshot!(
        "commands_of_several",
        [commands(second, &["balancer", "etcd"]), commands(worker, &["balancer"])]
    );
    for (config, kubeconfig, server) in [
        (first, "kubelet", "127.0.0.1:7443"),
        (worker, "kubelet", "127.0.0.1:7443"),
        (worker, "kube-proxy", "127.0.0.1:7443"),
        (second, "controller-manager", "10.89.0.3:6443"),
        (second, "super-admin", "10.89.0.3:6443"),
    ] {
        let text = content(config, &format!("/etc/kubernetes/{kubeconfig}.conf"));
        assert!(text.contains(&format!("https://{server}\n")), "{kubeconfig}: {text}");
    }
}

#[test]
fn the_user_comes_by_the_balancer_and_every_api_server_answers_for_it() {
    let bench = Bench::several();
    let keys = bench.keys(None, now());
    let access = of_kubernetes(bench.stack.access(&bench.request(), &keys).unwrap());
    assert_eq!(
        (access.node.as_str(), access.address),
        ("balancer", "10.89.0.7:6443".parse().unwrap())
    );
    for node in ["control-plane-0", "control-plane-1", "control-plane-2"] {
        let request = &keys.0["leaves"][format!("{node}/apiserver")]["request"];
        let names = |key: &str| request[key].as_array().unwrap().clone();
        assert!(names("addresses").contains(&"10.89.0.7".into()), "{request}");
        assert!(names("addresses").contains(&"127.0.0.1".into()), "{request}");
        for known in ["balancer", "kubernetes", node] {
            assert!(names("dnsNames").contains(&known.into()), "{request}");
        }
    }
}

#[test]
fn a_worker_more_changes_nothing_for_the_others() {
    let large = Bench::several();
    let mut small = Bench::several();
    small.cluster.spec.nodes[1].count = 1;
    small.addresses.nodes.remove(&name("worker-1"));
    let (before, after) = grown(&small, &large);
    for (node, config) in &before {
        let (digest, new) = (config.digest(), &after[node]);
        let is_first = node.as_str() == "control-plane-0";
        assert_eq!(digest != new.digest(), is_first, "{node}");
        assert_eq!(restarted(config, new), Vec::<&str>::new(), "{node}");
    }
}

#[test]
fn control_planes_more_start_again_only_what_must_know_them() {
    let (small, mut large) = (with_workers(), with_workers());
    large.cluster.spec.nodes[0].count = 3;
    large.addresses = addresses(&large.cluster);
    // What is there keeps its addresses.
    for (node, own) in &small.addresses.nodes {
        let new = large.addresses.nodes.insert(node.clone(), own.clone()).unwrap();
        let other = large
            .addresses
            .nodes
            .iter_mut()
            .find(|(name, other)| *name != node && other.primary() == own.primary());
        if let Some((_, other)) = other {
            *other = new;
        }
    }
    let large = large.joining(&["control-plane-1", "control-plane-2", "balancer"]);
    let (before, after) = grown(&small, &large);
    let restarted = |node: &str| restarted(&before[&name(node)], &after[&name(node)]);
    // The API server keeps running: its new certificate is read by itself.
    assert_eq!(
        restarted("control-plane-0"),
        [
            "balancer",
            "etcd",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "load-balancer"
        ]
    );
    assert_eq!(restarted("worker-0"), ["balancer", "kubelet", "kube-proxy", "load-balancer"]);
    let files = differing(&before[&name("control-plane-0")], &after[&name("control-plane-0")]);
    assert!(files.contains(&"/etc/kubernetes/pki/apiserver.crt"), "{files:?}");
    assert!(!files.contains(&"/etc/kubernetes/admin.conf"), "{files:?}");
}

#[test]
fn services_watch_what_they_do_not_read_again() {
    let configs = Bench::several().with(Bootstrap::Services, Cni::Flannel).configs();
    let watched: BTreeMap<&str, &[camino::Utf8PathBuf]> = configs[&name("control-plane-0")]
        .services
        .iter()
        .map(|service| (service.name.as_str(), service.watch.as_slice()))
        .collect();
    insta::assert_yaml_snapshot!("watched", watched);
}

#[test]
fn nodes_leave_in_steps() {
    let bench = Bench::several();
    let steps = |node: &str| {
        let steps = bench.leaves(node);
        steps.into_iter().map(|step| (step.name.clone(), format!("{step:#?}"))).collect::<Vec<_>>()
    };
    let text =
        |node: &str| steps(node).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!("a_control_plane_leaves", text("control-plane-0"));
    let names: Vec<String> = steps("worker-1").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["drain node worker-1", "remove Node worker-1"]);
    assert!(steps("balancer").is_empty());
    // Who is gone with its data is a member of etcd until it is taken out.
    let joins = bench.steps(&Change::Joins(&name("control-plane-0")));
    assert_eq!(joins[0], bench.leaves("control-plane-0")[1]);
    assert_eq!(joins.len(), 1);
    assert!(bench.steps(&Change::Joins(&name("worker-1"))).is_empty());
    let by_kubeadm = with_workers().with(Bootstrap::Kubeadm, Cni::Bridge);
    let steps = by_kubeadm.leaves("worker-0");
    assert_eq!(steps[0].nodes, [name("control-plane-0")]);
}

#[test]
fn taints_that_differ_are_changed() {
    let bench = with_workers();
    let mut before = bench.cluster.clone();
    let taint = |key: &str, value: &str, effect| Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()),
        effect,
    };
    before.spec.nodes[1].count = 1;
    before.spec.nodes[1].taints = vec![
        taint("dedicated", "other", TaintEffect::PreferNoSchedule),
        taint("gone", "x", TaintEffect::NoExecute),
    ];
    let arguments = |before: &Cluster| -> Vec<String> {
        let steps = bench.steps(&Change::Changed(before));
        steps.iter().map(|step| step.command[5..].join(" ")).collect()
    };
    let changed = "worker-0 gone:NoExecute- dedicated=batch:PreferNoSchedule";
    assert_eq!(arguments(&before), [changed]);
    assert!(arguments(&bench.cluster).is_empty());
    // With the first worker, pods stay off the control plane.
    before.spec.nodes.truncate(1);
    let own = "control-plane-0 node-role.kubernetes.io/control-plane=:NoSchedule";
    assert_eq!(arguments(&before), [own]);
}
