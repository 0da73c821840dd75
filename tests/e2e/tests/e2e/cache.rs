//! A cache of container images that clusters of a host share: a registry counts what it is asked for.

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Login, SOON, TestAuthority, TestImage,
    TestRegistry, case, wait_until,
};

pub(crate) const CASES: [Case; 1] =
    [case("cache/clusters_share_what_they_pull", About::Grounds, clusters_share_what_they_pull)];

const NODE: &str = "control-plane-0";
const IMAGE: &str = "cached.test/team/cached:1";
const USER: &str = "puller";
const PASSWORD: &str = "correct-horse-battery";

fn clusters_share_what_they_pull(ground: &Ground) {
    let (first, second) = (ground.cluster("cache-1"), ground.cluster("cache-2"));
    let before = HostSnapshot::take(ground);
    for cluster in [&first, &second] {
        let _ = cluster.up(&cluster.file(&spec(""))).success();
    }
    // One that is the same for both: what another sends proves nothing.
    let host = way_out(&first);
    let registry = registry(&first, &host);
    let told = |cluster: &Cluster<'_>, password| told(cluster, &host, &registry, password);

    told(&first, PASSWORD);
    prints(&first, "one", NODE);
    let fetched = fetched(&registry);
    assert_eq!(fetched.len(), 4, "a manifest, a config and two layers: {fetched:?}");

    // What is there is not for those whom the registry refuses.
    told(&second, "wrong");
    second.apply(&pod("refused", NODE));
    let message = wait_until("the pull is refused", SOON, || {
        let pod = second.get(["pod", "refused"]);
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default().to_owned();
        if message.contains("HTTP 401") { Ok(message) } else { Err(waiting.to_string()) }
    });
    bivouac_e2e::say(&format!("a wrong password: {message}"));

    told(&second, PASSWORD);
    prints(&second, "two", NODE);
    assert_eq!(self::fetched(&registry), fetched, "each is fetched once: {:?}", registry.asked());

    // A new node has the image, and nobody is there to ask.
    registry.leave();
    let _ = ground.bivouac(["node", "add", "--cluster", second.name()]).success();
    prints(&second, "three", "worker-0");

    let cache = |more: &[&str]| {
        let run = ground.bivouac(["image", "cache", "--output", "json"]).args(more);
        run.success().json()
    };
    let names = serde_json::json!(["cached.test/team/cached"]);
    let held = cache(&[]);
    assert_eq!((&held["images"], held["blobs"].as_u64()), (&names, Some(4)), "{held:#}");
    assert_eq!(cache(&["--empty"]), held);
    assert_eq!(cache(&[])["blobs"], 0);

    for cluster in [&first, &second] {
        let _ = cluster.down().success();
    }
    before.expect_nothing_left(ground);
}

/// The lines of a cluster file.
fn spec(registries: &str) -> String {
    format!("  stack:\n    kubernetes:\n      imageCache: {{}}\n{registries}")
}

/// The cluster is told of the registry, and of a password for it.
fn told(cluster: &Cluster<'_>, host: &str, registry: &TestRegistry, password: &str) {
    let _ = cluster.ground().write("password", password);
    let port = registry.port();
    let registries = format!(
        "      registries:
      - host: cached.test
        onlyMirrors: true
        mirrors:
        - url: https://{host}:{port}
          caFile: ca.pem
          credentials: {{username: {USER}, password: {{file: password}}}}
"
    );
    let _ = cluster.up(&cluster.file(&spec(&registries))).success();
}

/// The address of the host that the cluster's nodes have as their way out.
fn way_out(cluster: &Cluster<'_>) -> String {
    let routes = cluster.exec(NODE, ["ip", "-4", "route", "show", "default"]).success().stdout();
    let host = routes.split_whitespace().nth(2);
    host.unwrap_or_else(|| panic!("no way out: {routes}")).to_owned()
}

/// A registry that nodes reach at this address and trust, with an image made of what a cluster has.
fn registry(cluster: &Cluster<'_>, host: &str) -> TestRegistry {
    let authority = TestAuthority::new();
    let _ = cluster.ground().write("ca.pem", authority.certificate());
    let tls = authority.server(&[host]);
    let mut busybox = cluster.exec(NODE, ["cat", "/usr/bin/busybox"]).success().output;
    // A layer that nobody ever loaded: nodes have those already.
    busybox.extend(b"cached");
    let image = TestImage::new("cached:1", &busybox, "word of cached");
    let login = Login::Basic(USER.to_owned(), PASSWORD.to_owned());
    TestRegistry::start("registry.test", login, Some(tls), &[("team/cached:1", &image)])
}

/// What the registry sent, each as often as it did.
fn fetched(registry: &TestRegistry) -> Vec<String> {
    let mut asked = registry.asked();
    asked.retain(|one| one.starts_with("GET /v2/team/") && one.ends_with("200 OK"));
    asked.sort();
    asked
}

fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 0\n  \
         nodeName: {node}\n  containers: [{{name: main, image: '{IMAGE}', imagePullPolicy: Always, args: [cat, /word]}}]\n"
    )
}

/// A pod of the image runs on this node, pulled now, and prints its word.
fn prints(cluster: &Cluster<'_>, name: &str, node: &str) {
    cluster.apply(&pod(name, node));
    let _ = cluster.printed_by(name).expect_output(&["word of cached"]);
}
