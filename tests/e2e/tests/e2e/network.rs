//! The ways in which pods of different nodes reach each other.

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, SOON, case, wait_until};
use serde_json::Value;

use crate::life;

pub(crate) const CASES: [Case; 4] = [
    case("network/flannel", About::Grounds, flannel),
    case("network/none", About::Grounds, none),
    case("network/two_families", About::Grounds, two_families),
    case("network/the_other_family_alone", About::Grounds, the_other_family_alone),
];

const NODES: [&str; 2] = ["control-plane-0", "worker-0"];
const SPEC: &str = "  nodes:\n  - {role: control-plane}\n  - {role: worker}\n";
const BY_NAME: &str = "http://web.default.svc.cluster.local";

fn up<'a>(ground: &'a Ground, cni: &str) -> Cluster<'a> {
    let cluster = ground.cluster(cni);
    let file = cluster.file(&format!("{SPEC}  network: {{cni: {cni}}}\n"));
    let _ = cluster.up(&file).success();
    cluster
}

/// Pods of different nodes through the overlay, by address and by name.
fn flannel(ground: &Ground) {
    let cluster = up(ground, "flannel");
    let image = life::image(ground, "web");
    for (index, node) in NODES.iter().enumerate() {
        let server = life::run_once(&cluster, &format!("web-{index}"), node, &image, &[]);
        let _ = server.success();
    }
    let _ = cluster
        .kubectl(["expose", "pod", "web-0", "--name=web", "--port=80", "--target-port=8080"])
        .success();
    let addresses = [0, 1].map(|index| {
        let pod = format!("web-{index}");
        cluster.wait(&format!("pod/{pod}"), "condition=Ready");
        let address = cluster.get(["pod", &pod])["status"]["podIP"].clone();
        address.as_str().unwrap_or_else(|| panic!("{pod} has no address")).to_owned()
    });
    let ways = [
        ("web-0", format!("http://{}:8080", addresses[1]), "hostname: web-1"),
        ("web-1", format!("http://{}:8080", addresses[0]), "hostname: web-0"),
        ("web-1", BY_NAME.to_owned(), "hostname: web-0"),
    ];
    for (pod, url, wanted) in ways {
        let answer = wait_until("a pod of another node answers", SOON, || {
            let asked = cluster.kubectl(["exec", pod, "--", "/bin/web", "get", &url]).outcome();
            if asked.code == 0 { Ok(asked) } else { Err(asked.to_string()) }
        });
        let _ = answer.expect_output(&[wanted]);
    }
    // Larger than a packet: what an overlay loses when its nodes do not know that it makes packets smaller.
    let bytes = format!("http://{}:8080/{}", addresses[0], "x".repeat(6000));
    let _ = cluster.kubectl(["exec", "web-1", "--", "/bin/web", "get", &bytes]).success();
    let _ = cluster.down().success();
}

/// Nodes, pods and Services have an address of each family, and are reached at both.
fn two_families(ground: &Ground) {
    are_reached_at_each_address(ground, "IPv4, IPv6", "RequireDualStack", &[false, true]);
}

/// No address of IPv4 is needed for anything.
fn the_other_family_alone(ground: &Ground) {
    are_reached_at_each_address(ground, "IPv6", "SingleStack", &[true]);
}

/// In a cluster of these families, a Service with this policy; `are_ipv6` says of each address that is wanted whether it is one of IPv6.
fn are_reached_at_each_address(ground: &Ground, families: &str, policy: &str, are_ipv6: &[bool]) {
    let cluster = ground.cluster("families");
    let before = HostSnapshot::take(ground);
    let file = cluster.file(&format!("{SPEC}  network: {{ipFamilies: [{families}]}}\n"));
    let _ = cluster.up(&file).success();
    let image = life::image(ground, "web");
    for (index, node) in NODES.iter().enumerate() {
        let _ = life::run_once(&cluster, &format!("web-{index}"), node, &image, &[]).success();
    }
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  ipFamilyPolicy: {policy}\n  \
         selector: {{run: web-0}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    ));
    let expect = |addresses: &[String]| {
        let found: Vec<bool> = addresses.iter().map(|address| address.contains(':')).collect();
        assert_eq!(found, are_ipv6, "{addresses:?}");
    };
    for node in NODES {
        let mut addresses = cluster.get(["node", node])["status"]["addresses"].clone();
        if let Some(addresses) = addresses.as_array_mut() {
            addresses.retain(|address| address["type"] == "InternalIP");
        }
        expect(&texts(&addresses, "address"));
    }
    cluster.wait("pod/web-0", "condition=Ready");
    cluster.wait("pod/web-1", "condition=Ready");
    let pod = texts(&cluster.get(["pod", "web-0"])["status"]["podIPs"], "ip");
    let service = texts(&cluster.get(["service", "web"])["spec"]["clusterIPs"], "");
    expect(&pod);
    expect(&service);
    let url = |address: &String, port: u16| match address.contains(':') {
        true => format!("http://[{address}]:{port}"),
        false => format!("http://{address}:{port}"),
    };
    let pods = pod.iter().map(|address| url(address, 8080));
    let services = service.iter().map(|address| url(address, 80));
    for url in pods.chain(services).chain([BY_NAME.to_owned()]) {
        let answer = wait_until("a pod of another node answers", SOON, || {
            let asked = cluster.kubectl(["exec", "web-1", "--", "/bin/web", "get", &url]).outcome();
            if asked.code == 0 { Ok(asked) } else { Err(asked.to_string()) }
        });
        let _ = answer.expect_output(&["hostname: web-0"]);
    }
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// The items of a list that are texts, or have one of this name.
fn texts(list: &Value, name: &str) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().or(item[name].as_str()).map(str::to_owned)).collect()
}

/// The nodes are there and wait for a network that the user installs.
fn none(ground: &Ground) {
    let cluster = up(ground, "none");
    for node in NODES {
        wait_until("a node says that it has no network", SOON, || {
            let node = cluster.get(["node", node]);
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
            let waits = ready.is_some_and(|ready| {
                ready["status"] == "False" && ready["message"].to_string().contains("cni")
            });
            if waits { Ok(()) } else { Err(format!("{node:#}")) }
        });
    }
    let nodes = cluster.get(["nodes"]);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(NODES.len()), "{nodes:#}");
    let _ = cluster.ground().bivouac(["status", cluster.name()]).success();
    let _ = cluster.down().success();
}
