use bivouac_spec::cluster::LoadBalancer;

use super::*;

const SERVICE: &str = "load-balancer";

fn commands(bench: &Bench) -> Vec<String> {
    let configs = bench.configs();
    let services = configs.values().flat_map(|config| &config.services);
    let ours = services.filter(|service| service.name == SERVICE);
    ours.map(|service| service.command.join(" ")).collect()
}

#[test]
fn every_node_has_addresses_of_services_and_control_planes_give_them() {
    let bench = Bench::several().of_families(&[true, false]);
    let commands = commands(&bench);
    assert_eq!(commands.len(), 5, "not the balancer");
    assert_eq!(commands.iter().filter(|one| one.ends_with(" --allocate")).count(), 3);
    insta::assert_snapshot!("load_balancer", commands.join("\n"));
    let configs = bench.configs();
    for config in configs.values().filter(|config| config.node.as_str() != "balancer") {
        let service = config.services.iter().find(|one| one.name == SERVICE).unwrap();
        assert_eq!(service.after, ["kube-proxy"]);
        let watched: Vec<_> = service.watch.iter().map(|path| path.as_str()).collect();
        assert_eq!(watched, ["/etc/bivouac/load-balancer.crt", "/etc/bivouac/load-balancer.key"]);
    }
}

#[test]
fn where_nobody_could_reach_them_there_are_none() {
    let mut bench = Bench::several();
    bench.facts.shares_network = false;
    assert!(commands(&bench).is_empty());
    assert!(!format!("{:?}", bench.configs()).contains("bivouac:load-balancer"));
    let mut bench = Bench::several();
    bench.cluster.spec.network.load_balancer = LoadBalancer::None;
    assert!(commands(&bench).is_empty());
}

#[test]
fn addresses_that_nodes_have_already_are_left_out() {
    let mut bench = Bench::several();
    let range = bench.addresses.node_networks.primary.service_addresses().unwrap();
    let taken = range.addresses().next().unwrap();
    bench.addresses.nodes.get_mut(&name("worker-1")).unwrap().addresses.primary = taken;
    assert!(commands(&bench).iter().all(|one| one.contains(&format!(" --except={taken}"))));
}
