//! IPv6, and both families.

use bivouac_spec::node::config::SysctlScope;

use super::*;

#[test]
fn dual_stack_gives_everything_two_addresses() {
    let dual = single().of_families(&[true, false]);
    insta::assert_snapshot!("dual_stack", changes(&single(), &dual));
}

#[test]
fn the_preferred_family_comes_first() {
    let six = single().of_families(&[false, true]);
    let changes = changes(&single().of_families(&[true, false]), &six);
    // Where requests go to is elsewhere.
    let rest: Vec<&str> = changes.lines().filter(|line| !line.contains("\"url\"")).collect();
    insta::assert_snapshot!("ipv6_first", rest.join("\n"));
}

#[test]
fn kubeadm_is_told_of_both_families() {
    let [one, two] = [&[true][..], &[true, false]]
        .map(|families| single().with(Bootstrap::Kubeadm, Cni::Bridge).of_families(families));
    insta::assert_snapshot!("kubeadm_dual_stack", changes(&one, &two));
}

#[test]
fn flannel_tunnels_both_families() {
    let [one, two] = [&[true][..], &[true, false]]
        .map(|families| single().with(Bootstrap::Services, Cni::Flannel).of_families(families));
    let changes = changes(&one, &two);
    for expected in ["+ \"EnableIPv6\": true", "+ \"IPv6Network\": \"fd24::/56\""] {
        assert!(changes.contains(expected), "{changes}");
    }
    assert!(changes.contains("\"70\""), "{changes}");
}

#[test]
fn a_cluster_of_ipv6_alone_has_its_urls_in_brackets() {
    let bench = Bench::several().of_families(&[false]);
    let configs = bench.configs();
    let config = &configs[&name("control-plane-1")];
    let forwarding: Vec<(&str, SysctlScope)> = config
        .sysctls
        .iter()
        .filter(|sysctl| sysctl.name.contains("forward"))
        .map(|sysctl| (sysctl.name.as_str(), sysctl.scope))
        .collect();
    assert_eq!(forwarding, [("net.ipv6.conf.all.forwarding", SysctlScope::Namespaced)]);
    let etcd = config.services.iter().find(|service| service.name == "etcd").unwrap();
    assert!(etcd.command.contains(&"--listen-peer-urls=https://[fd89::3]:2380".to_owned()));
    let balancer = &configs[&name("balancer")].services[0].command;
    for argument in ["--listen=[::]:6443", "--backend=[fd89::3]:6443"] {
        assert!(balancer.contains(&argument.to_owned()), "{balancer:?}");
    }
    let access =
        of_kubernetes(bench.stack.access(&bench.request(), &bench.keys(None, now())).unwrap());
    let text = access.kubeconfig(access.address).render().expose().to_owned();
    assert!(text.contains("server: https://[fd89::7]:6443\n"), "{text}");
}
