use bivouac_spec::cluster::{NodeGroup, Role};
use proptest::prelude::*;

use super::*;

fn cluster(workers: u32) -> Cluster {
    let mut cluster = Cluster::named("demo".parse().unwrap());
    cluster.spec.nodes.push(NodeGroup::new(Role::Worker, workers));
    cluster
}

fn occupied(nets: &[&str]) -> BTreeMap<IpNet, String> {
    nets.iter().map(|net| (net.parse().unwrap(), "route through eth0".to_owned())).collect()
}

#[test]
fn a_free_machine_gets_the_usual_networks() {
    let addresses = assign_addresses(&cluster(2), &occupied(&["0.0.0.0/0"]), None).unwrap();
    insta::assert_json_snapshot!(addresses);
}

#[test]
fn occupied_networks_are_stepped_over() {
    let occupied = occupied(&["10.89.0.0/24", "10.244.0.0/15", "10.96.0.1/32", "172.17.0.0/16"]);
    let addresses = assign_addresses(&cluster(0), &occupied, None).unwrap();
    assert_eq!(addresses.primary().network.to_string(), "10.89.1.0/24");
    assert_eq!(addresses.primary().gateway.to_string(), "10.89.1.1");
    assert_eq!(listed(&addresses.pod_networks), "`10.246.0.0/16`");
    assert_eq!(listed(&addresses.service_networks), "`10.97.0.0/16`");
}

#[test]
fn a_machine_inside_10_0_0_0_8_gets_other_ranges() {
    let addresses = assign_addresses(&cluster(1), &occupied(&["10.0.0.0/8"]), None).unwrap();
    assert_eq!(addresses.primary().network.to_string(), "172.31.0.0/24");
    assert_eq!(listed(&addresses.service_networks), "`172.16.0.0/16`");
    assert_eq!(listed(&addresses.pod_networks), "`172.17.0.0/16`");
}

#[test]
fn a_named_network_that_is_occupied_is_refused_with_its_occupant() {
    let mut cluster = cluster(1);
    cluster.spec.network.pod_cidr = vec!["10.0.0.0/9".parse().unwrap()];
    cluster.spec.network.service_cidr = vec!["192.168.0.0/16".parse().unwrap()];
    let taken = occupied(&["10.8.0.0/16", "192.168.1.0/24"]);
    let problems = assign_addresses(&cluster, &taken, None).unwrap_err();
    insta::assert_json_snapshot!(problems);
    let addresses = assign_addresses(&cluster, &occupied(&[]), None).unwrap();
    assert_eq!(
        addresses.primary().network.to_string(),
        "172.31.0.0/24",
        "chosen apart from the pods"
    );
}

#[test]
fn nothing_free_is_a_problem_and_not_a_panic() {
    let all = occupied(&["10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15"]);
    let problems = assign_addresses(&cluster(1), &all, None).unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "plan.no_free_network");
}

#[test]
fn a_full_network_is_a_problem() {
    let mut small = cluster(1);
    small.spec.network.node_cidr = vec!["10.1.0.0/29".parse().unwrap()];
    let existing = assign_addresses(&small, &occupied(&[]), None).unwrap();
    let problems = assign_addresses(&cluster(5), &occupied(&[]), Some(&existing)).unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "plan.no_free_address");
    assert!(assign_addresses(&cluster(4), &occupied(&[]), Some(&existing)).is_ok());
}

#[test]
fn nodes_leave_the_upper_part_to_services() {
    let last = assign_addresses(&cluster(221), &occupied(&[]), None).unwrap();
    let highest = last.nodes.values().map(|node| node.primary()).max().unwrap();
    assert_eq!(highest.to_string(), "10.89.0.223");
    let problems = assign_addresses(&cluster(222), &occupied(&[]), None).unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "plan.no_free_address");
    // A node that was there before keeps its address.
    let mut before = last;
    let node = before.nodes.get_mut(&"worker-0".parse().unwrap()).unwrap();
    node.addresses.primary = "10.89.0.230".parse().unwrap();
    let kept = assign_addresses(&cluster(221), &occupied(&[]), Some(&before)).unwrap();
    assert_eq!(kept, before);
}

#[test]
fn existing_addresses_are_kept_although_the_ground_now_uses_them() {
    let before = assign_addresses(&cluster(1), &occupied(&[]), None).unwrap();
    let own = occupied(&["10.89.0.0/24", "10.244.0.0/24"]);
    assert_eq!(assign_addresses(&cluster(1), &own, Some(&before)).unwrap(), before);
}

fn net() -> impl Strategy<Value = IpNet> {
    let private = prop_oneof![Just(10_u32 << 24), Just((172 << 24) | (16 << 16))];
    (private, 0_u32..1 << 20, 12_u8..=32).prop_map(|(base, low, prefix)| {
        IpNet::V4(Ipv4Net::new_assert((base | low).into(), prefix).trunc())
    })
}

fn networks(addresses: &Addresses) -> Vec<IpNet> {
    addresses.networks().chain(addresses.service_networks.clone()).collect()
}

fn assert_apart(addresses: &Addresses) {
    let networks = networks(addresses);
    for (index, one) in networks.iter().enumerate() {
        assert!(!networks[..index].iter().any(|other| overlap(one, other)), "{networks:?}");
    }
    let gateways = addresses.node_networks.iter().map(|own| own.gateway);
    let (mut seen, mut pods) = (BTreeSet::from_iter(gateways), BTreeSet::new());
    for node in addresses.nodes.values() {
        for (address, own) in node.addresses.iter().zip(addresses.node_networks.iter()) {
            assert!(seen.insert(*address) && own.network.contains(address));
        }
        for (share, whole) in node.pod_networks.iter().zip(&addresses.pod_networks) {
            assert!(pods.insert(*share) && whole.contains(share));
        }
    }
}

fn families() -> impl Strategy<Value = Vec<IpFamily>> {
    let (v4, v6) = (IpFamily::V4, IpFamily::V6);
    prop_oneof![Just(vec![v4]), Just(vec![v6]), Just(vec![v4, v6]), Just(vec![v6, v4])]
}

#[test]
fn two_families_have_an_address_and_a_share_of_each() {
    let mut cluster = cluster(1);
    cluster.spec.network.ip_families = vec![IpFamily::V4, IpFamily::V6];
    cluster.spec.network.pod_cidr = vec!["fd00:1::/56".parse().unwrap()];
    let occupied = occupied(&["fd62:6976:89::/64", "10.89.0.0/24"]);
    insta::assert_json_snapshot!(assign_addresses(&cluster, &occupied, None).unwrap());
}

proptest! {
    #[test]
    fn addresses_never_clash(
        workers in 0_u32..249,
        families in families(),
        nets in prop::collection::vec(net(), 0..12),
    ) {
        let mut cluster = cluster(workers);
        cluster.spec.network.ip_families = families;
        let occupied = nets.iter().map(|net| (*net, "a route".to_owned())).collect();
        if let Ok(addresses) = assign_addresses(&cluster, &occupied, None) {
            assert_apart(&addresses);
            prop_assert_eq!(addresses.nodes.len(), cluster.nodes().len());
            for own in networks(&addresses) {
                prop_assert!(!nets.iter().any(|net| overlap(net, &own)));
            }
        }
    }

    #[test]
    fn nodes_keep_their_addresses(counts in prop::collection::vec(0_u32..200, 1..6)) {
        let mut addresses: Option<Addresses> = None;
        for workers in counts {
            let next = assign_addresses(&cluster(workers), &BTreeMap::new(), addresses.as_ref()).unwrap();
            assert_apart(&next);
            prop_assert_eq!(next.nodes.len(), workers as usize + 1);
            for (name, before) in addresses.iter().flat_map(|a| &a.nodes) {
                if let Some(now) = next.nodes.get(name) {
                    prop_assert_eq!(before, now);
                }
            }
            addresses = Some(next);
        }
    }
}
