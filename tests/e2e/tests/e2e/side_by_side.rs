//! Two clusters at once, made at the same moment.

use bivouac_e2e::{About, Case, Cluster, Ground, Provider, Run, SOON, Setting, case};

pub(crate) const CASES: [Case; 2] = [
    case("side_by_side/two_clusters", About::Grounds, two_clusters),
    case("side_by_side/two_grounds", About::One(Provider::Docker), two_grounds),
];

fn two_clusters(ground: &Ground) {
    let (left, right) = (ground.cluster("left"), ground.cluster("right"));
    live_and_die_apart(&left, &right, [&left, &right].map(Cluster::up_single));
}

/// An engine forbids forwarding, also between the nodes of a bridge that is not its own.
fn two_grounds(ground: &Ground) {
    let linux = Setting::of(Provider::Linux);
    let (left, right) = (ground.cluster_of(linux, "left"), ground.cluster("right"));
    let file = left.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    live_and_die_apart(&left, &right, [left.up(&file), right.up_single()]);
}

fn live_and_die_apart(left: &Cluster<'_>, right: &Cluster<'_>, ups: [Run; 2]) {
    let ground = left.ground();
    let ups = ups.map(Run::start);
    for up in ups {
        let _ = up.finish(5 * SOON).expect_code(0);
    }
    both_are_usable(ground, left, right);

    let _ = left.down().success();
    let list = ground.bivouac(["list", "--output", "json"]).success().json();
    assert!(!names(&list).contains(&left.name().to_owned()), "{list:#}");
    let _ = ground.bivouac(["status", right.name()]).success();
    runs_a_pod(right, "after");
    let kubeconfig =
        std::fs::read_to_string(ground.kubeconfig()).expect("one cluster is still in it");
    assert!(!kubeconfig.contains("name: bivouac-e2e-left"), "{kubeconfig}");
    assert!(kubeconfig.contains("name: bivouac-e2e-right"), "{kubeconfig}");

    let _ = left.down().success().expect_output(&["nothing"]);
    let _ = right.down().success();
    assert!(
        !ground.kubeconfig().exists(),
        "bivouac made the kubeconfig file, and nothing is in it any more"
    );
}

fn names(list: &serde_json::Value) -> Vec<String> {
    let clusters = list.as_array().into_iter().flatten();
    clusters.filter_map(|cluster| Some(cluster["name"].as_str()?.to_owned())).collect()
}

fn both_are_usable(ground: &Ground, left: &Cluster<'_>, right: &Cluster<'_>) {
    let list = ground.bivouac(["list", "--output", "json"]).success().json();
    let kubeconfig = std::fs::read_to_string(ground.kubeconfig()).expect("`up` wrote it");
    let mut networks = Vec::new();
    for cluster in [left, right] {
        assert!(names(&list).contains(&cluster.name().to_owned()), "{list:#}");
        assert!(kubeconfig.contains(&format!("bivouac-{}", cluster.name())), "{kubeconfig}");
        let node = cluster.get(["node", "control-plane-0"]);
        networks.push((cluster.address("control-plane-0"), node["spec"]["podCIDR"].clone()));
        runs_a_pod(cluster, "before");
    }
    assert_ne!(networks[0].0, networks[1].0, "two nodes have one address");
    assert_ne!(networks[0].1, networks[1].1, "two nodes have one pod network");
    // The context of each leads to its own cluster.
    for cluster in [left, right] {
        let context = format!("--context=bivouac-{}", cluster.name());
        let file = format!("--kubeconfig={}", ground.kubeconfig().display());
        let uid = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"];
        let asked = cluster.kubectl([&context, &file]).args(uid).success().stdout();
        assert_eq!(asked, cluster.kubectl(uid).success().stdout());
    }
}

fn runs_a_pod(cluster: &Cluster<'_>, name: &str) {
    let image = crate::life::image(cluster.ground(), "busybox");
    let pod =
        ["run", name, "--restart=Never", "--image-pull-policy=IfNotPresent", "--image", &image];
    let _ = cluster.kubectl(pod).args(["--", "-c", "hostname"]).success();
    assert_eq!(cluster.printed_by(name).stdout(), format!("{name}\n"));
}
