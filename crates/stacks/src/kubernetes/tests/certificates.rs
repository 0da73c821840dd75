//! What starts again, or is done again, when certificates were renewed.

use super::*;

/// Of each node, the files that differ after a renewal, and the units that watch one of them.
fn renewed(bench: &Bench) -> BTreeMap<NodeName, (BTreeSet<String>, BTreeSet<String>)> {
    let first = bench.keys(None, now());
    let second = bench.keys(Some(first.clone()), now() + days(340));
    let (before, after) = (bench.render(&first), bench.render(&second));
    let of_a_node = |(node, after): (NodeName, NodeConfig)| {
        let files = after.files.iter().filter(|file| !before[&node].files.contains(file));
        let files: BTreeSet<String> = files.map(|file| file.path.to_string()).collect();
        let services = after.services.iter().map(|service| (&service.name, &service.watch));
        let units = services.chain(after.tasks.iter().map(|task| (&task.name, &task.watch)));
        let watch = |watch: &Vec<camino::Utf8PathBuf>| {
            watch.iter().any(|path| files.contains(path.as_str()))
        };
        let units = units.filter(|(_, paths)| watch(paths)).map(|(name, _)| name.clone()).collect();
        (node, (files, units))
    };
    after.into_iter().map(of_a_node).collect()
}

fn words(words: &BTreeSet<String>) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn who_reads_a_certificate_only_when_it_starts_is_started_again() {
    let all = renewed(&with_workers());
    assert_eq!(
        words(&all[&name("control-plane-0")].1),
        [
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubelet",
            "load-balancer",
            "metrics-server",
        ]
    );
    assert_eq!(words(&all[&name("worker-1")].1), ["kube-proxy", "kubelet", "load-balancer"]);
    let flannel = renewed(&single().with(Bootstrap::Services, Cni::Flannel));
    assert!(flannel[&name("control-plane-0")].1.contains("flanneld"));
}

#[test]
fn static_pods_do_not_go_on_with_what_they_had() {
    let bench = with_workers().with(Bootstrap::Kubeadm, Cni::Bridge);
    let all = renewed(&bench);
    assert_eq!(
        words(&all[&name("control-plane-0")].1),
        ["kubeadm-finish", "kubeadm-init", "load-balancer", "metrics-server", "static-pods-renew"]
    );
    // What kubeadm did stays done: it looks at what it was told. So does one who has joined, and would be able to join once more.
    assert_eq!(
        words(&all[&name("worker-1")].1),
        ["kubeadm-finish", "kubeadm-join", "load-balancer"]
    );
    let configs = bench.configs();
    let renew = configs[&name("control-plane-0")]
        .tasks
        .iter()
        .find(|task| task.name == "static-pods-renew");
    let watch: Vec<&str> = renew.unwrap().watch.iter().map(|path| path.as_str()).collect();
    // The certificate, too, which may be renewed alone: the pod of the scheduler has no folder of it.
    assert!(watch.contains(&"/etc/kubernetes/pki/kube-scheduler.crt"), "{watch:?}");
    for file in watch {
        let is_there = |config: &NodeConfig| config.files.iter().any(|one| one.path == file);
        assert!(is_there(&configs[&name("control-plane-0")]), "{file}");
    }
}

/// What nobody watches is read by those who look at it again, or by people.
#[test]
fn nothing_that_is_renewed_is_forgotten() {
    for by in [Bootstrap::Services, Bootstrap::Kubeadm] {
        for cni in [Cni::Bridge, Cni::Flannel] {
            let bench = with_workers().with(by, cni);
            let configs = bench.configs();
            for (node, (files, _)) in renewed(&bench) {
                let config = &configs[&node];
                let services = config.services.iter().flat_map(|service| &service.watch);
                let watched: BTreeSet<&str> = services
                    .chain(config.tasks.iter().flat_map(|task| &task.watch))
                    .map(|path| path.as_str())
                    .collect();
                let is_read_again = |file: &str| {
                    let people =
                        ["admin", "super-admin"].map(|it| format!("/etc/kubernetes/{it}.conf"));
                    file.starts_with("/etc/kubernetes/pki/")
                        || file.starts_with("/var/lib/kubelet/pki/")
                        || people.contains(&file.to_owned())
                };
                for file in files {
                    assert!(watched.contains(&*file) || is_read_again(&file), "{node}: {file}");
                }
            }
        }
    }
}
