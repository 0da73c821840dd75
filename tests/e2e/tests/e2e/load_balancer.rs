//! Services of type `LoadBalancer` have addresses that the host reaches, and keep them when nodes are lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, SOON, case, fetch, say, wait_until};
use serde_json::Value;

use crate::life;

pub(crate) const CASES: [Case; 2] = [
    case("load_balancer/services_are_reached", About::Pairs, services_are_reached),
    case("load_balancer/two_families", About::Grounds, two_families),
];

/// The API says only after most of a minute that a node is lost; the other nodes must not wait for that.
const TAKEN_OVER: Duration = Duration::from_secs(30);
const NODE: &str = "control-plane-0";
const WORKERS: [&str; 2] = ["worker-0", "worker-1"];
const SPEC: &str = "  nodes:\n  - {role: control-plane}\n  - {role: worker, count: 2}\n";

/// A pod that answers, on the control plane: there it stays when workers are lost.
fn serve(ground: &Ground, cluster: &Cluster<'_>) {
    let image = life::image(ground, "web");
    let _ = life::run_once(cluster, "web", NODE, &image, &[]).success();
    cluster.wait("pod/web", "condition=Ready");
}

fn service(cluster: &Cluster<'_>, name: &str, rest: &str) {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, selector: {{run: web}}, \
         ports: [{{port: 80, targetPort: 8080}}]{rest}}}\n"
    ));
}

fn ingress(service: &Value) -> Vec<String> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    ingress.filter_map(|one| one["ip"].as_str()).map(str::to_owned).collect()
}

/// The addresses of a Service, when it has some.
fn addresses(cluster: &Cluster<'_>, name: &str) -> Vec<String> {
    wait_until("the Service has an address", SOON, || {
        let service = cluster.get(["service", name]);
        let found = ingress(&service);
        if found.is_empty() { Err(format!("{service:#}")) } else { Ok(found) }
    })
}

fn answers(address: &str) {
    let target =
        if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") };
    let _ = wait_until("the Service answers", SOON, || fetch(&target));
}

/// The nodes that have the address on an interface, of those that run.
fn holders<'a>(cluster: &Cluster<'_>, nodes: &[&'a str], address: &str) -> Vec<&'a str> {
    let has = |node: &&&str| {
        let listed = cluster.exec(node, ["ip", "-oneline", "address"]).success();
        listed.stdout().split_whitespace().any(|word| word.split('/').next() == Some(address))
    };
    nodes.iter().filter(has).copied().collect()
}

fn services_are_reached(ground: &Ground) {
    let cluster = ground.cluster("reach");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up(&cluster.file(SPEC)).success();
    serve(ground, &cluster);
    service(&cluster, "web", "");
    service(&cluster, "other", "");
    let web = addresses(&cluster, "web").remove(0);
    let other = addresses(&cluster, "other").remove(0);
    assert_ne!(web, other);
    answers(&web);
    answers(&other);
    let nodes = [NODE, WORKERS[0], WORKERS[1]];
    // Control planes are taken last; one has it until the first worker is there.
    let holder = wait_until("one worker has the address", SOON, || {
        match holders(&cluster, &nodes, &web)[..] {
            [holder] if WORKERS.contains(&holder) => Ok(holder),
            ref found => Err(format!("{found:?}")),
        }
    });

    what_is_wanted(&cluster, &web);
    only_where_the_pod_is(&cluster);

    // What is deleted is free again, and what is given stays.
    let _ = cluster.kubectl(["delete", "service", "other"]).success();
    wait_until("the address is on no node", SOON, || {
        let found = holders(&cluster, &nodes, &other);
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    });
    service(&cluster, "third", "");
    assert_eq!(addresses(&cluster, "third"), [other]);

    a_node_is_lost(&cluster, holder, &web);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// One asks for an address of its own, others for what they cannot have.
fn what_is_wanted(cluster: &Cluster<'_>, taken: &str) {
    let (network, _) = taken.rsplit_once('.').expect("an address has dots");
    let wanted = format!("{network}.250");
    service(cluster, "wanted", &format!(", loadBalancerIP: {wanted}"));
    assert_eq!(addresses(cluster, "wanted"), [wanted.as_str()]);
    answers(&wanted);
    service(cluster, "greedy", &format!(", loadBalancerIP: {taken}"));
    service(cluster, "others", ", loadBalancerClass: example.com/other");
    let event = wait_until("an event says why", SOON, || {
        let events = cluster.get(["events", "--field-selector=reason=NoLoadBalancerAddress"]);
        let found = events["items"].as_array().and_then(|items| items.first().cloned());
        found.ok_or_else(|| format!("{events:#}"))
    });
    assert_eq!(event["involvedObject"]["name"], "greedy", "{event:#}");
    assert!(event["message"].to_string().contains("default/web"), "{event:#}");
    for name in ["greedy", "others"] {
        assert!(ingress(&cluster.get(["service", name])).is_empty());
    }
    let _ = cluster.kubectl(["delete", "service", "wanted", "greedy", "others"]).success();
}

fn only_where_the_pod_is(cluster: &Cluster<'_>) {
    service(cluster, "local", ", externalTrafficPolicy: Local");
    let local = addresses(cluster, "local").remove(0);
    answers(&local);
    let nodes = [NODE, WORKERS[0], WORKERS[1]];
    wait_until("the node of the pod has the address", SOON, || {
        let found = holders(cluster, &nodes, &local);
        if found == [NODE] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let _ = cluster.kubectl(["delete", "service", "local"]).success();
}

fn a_node_is_lost(cluster: &Cluster<'_>, holder: &str, address: &str) {
    let other = WORKERS.into_iter().find(|node| *node != holder).expect("there are two");
    let stop = ["stop", cluster.name(), "--node", holder];
    let lost = Instant::now();
    let _ = cluster.ground().bivouac(stop).success();
    let target = format!("{address}:80");
    let _ = wait_until("another node has the address", TAKEN_OVER, || fetch(&target));
    say(&format!(
        "the address answers again {:.1} s after its node began to stop",
        lost.elapsed().as_secs_f64()
    ));
    wait_until("only the other worker has it", SOON, || {
        let found = holders(cluster, &[NODE, other], address);
        if found == [other] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let _ = cluster.ground().bivouac(["start", cluster.name()]).success();
    wait_until("one node has the address again", SOON, || {
        let found = holders(cluster, &[NODE, holder, other], address);
        if found == [holder] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    answers(address);
}

/// Both families of one control plane alone, which has them although it is marked as no place for them.
fn two_families(ground: &Ground) {
    let cluster = ground.cluster("reach-two");
    let network = "  network: {ipFamilies: [IPv4, IPv6], cni: flannel}\n";
    let _ = cluster.up(&cluster.file(network)).success();
    serve(ground, &cluster);
    service(&cluster, "web", ", ipFamilyPolicy: RequireDualStack");
    let both = addresses(&cluster, "web");
    let families: BTreeSet<bool> = both.iter().map(|address| address.contains(':')).collect();
    assert_eq!((both.len(), families.len()), (2, 2), "{both:?}");
    both.iter().for_each(|address| answers(address));

    // They stay when the program starts again.
    let before = cluster.unit(NODE, "load-balancer")["pid"].as_u64().expect("it runs");
    let _ = cluster.exec(NODE, ["kill", "-9", &before.to_string()]).success();
    wait_until("the program runs again", SOON, || {
        let unit = cluster.unit(NODE, "load-balancer");
        let again = unit["pid"].as_u64().is_some_and(|now| now != before);
        if again { Ok(()) } else { Err(format!("{unit:#}")) }
    });
    both.iter().for_each(|address| answers(address));
    assert_eq!(addresses(&cluster, "web"), both);

    // And nobody has them who does not want to.
    let off = "  network: {ipFamilies: [IPv4, IPv6], cni: flannel, loadBalancer: none}\n";
    let _ = cluster.up(&cluster.file(off)).success();
    assert_eq!(cluster.unit(NODE, "load-balancer"), Value::Null);
    wait_until("nobody has the addresses", SOON, || {
        let held: Vec<_> =
            both.iter().filter(|address| !holders(&cluster, &[NODE], address).is_empty()).collect();
        if held.is_empty() { Ok(()) } else { Err(format!("{held:?}")) }
    });
    let _ = cluster.down().success();
}
