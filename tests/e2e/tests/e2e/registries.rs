//! Images from registries that the tests run on the host: mirrors, passwords, authorities, a proxy.

use std::os::unix::fs::PermissionsExt as _;

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Login, Outcome, SOON, TestAuthority, TestImage,
    TestProxy, TestRegistry, case, wait_until,
};

pub(crate) const CASES: [Case; 2] = [
    case(
        "registries/mirrors_passwords_and_a_proxy",
        About::GroundsAndKubeadm,
        mirrors_passwords_and_a_proxy,
    ),
    case("registries/what_is_missing_is_told", About::Bivouac, what_is_missing_is_told),
];

const NODE: &str = "control-plane-0";
const USER: &str = "puller";
const PASSWORD: &str = "correct-horse-battery";
/// Puller and password as they travel.
const TRAVELS: &str = "cHVsbGVyOmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==";
const VARIABLE: &str = "E2E_REGISTRY_PASSWORD";

/// Registries and a proxy on the host, each reached at the address that the cluster's nodes have as their way out.
struct World {
    host: String,
    mirror: TestRegistry,
    token: TestRegistry,
    plain: TestRegistry,
    proxy: TestProxy,
}

fn mirrors_passwords_and_a_proxy(ground: &Ground) {
    let cluster = ground.cluster("registries");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let world = world(ground, &cluster);
    let containerd = cluster.unit(NODE, "containerd")["pid"].clone();

    // On a living cluster.
    let plain = file(&cluster, &world, "");
    let done = up(&cluster, &plain, Some(PASSWORD));
    assert_eq!(done["changed"], true, "{done:#}");
    prints(&cluster, "mirrored", "mirrored.test/team/mirrored:1");
    prints(&cluster, "token", &format!("{}:{}/team/token:1", world.host, world.token.port()));
    prints(&cluster, "plain", &format!("{}:{}/team/plain:1", world.host, world.plain.port()));
    assert!(world.mirror.pulls() > 0, "{:?}", world.mirror.asked());
    assert!(world.token.asked().iter().any(|path| path == "GET /token 200 OK"));
    assert_eq!(cluster.unit(NODE, "containerd")["pid"], containerd, "nothing is started again");

    // Nobody has the password any more, and nothing changes by that.
    assert_eq!(up(&cluster, &plain, None)["changed"], false);
    is_nowhere_but_with_the_keys(ground, &cluster);

    // Through the proxy, past which goes what is the cluster's own. Pods live on.
    cluster.apply(&pod("sleeper", "mirrored.test/team/mirrored:1", "[sleep, '3600']"));
    cluster.wait("pod/sleeper", "condition=Ready");
    let running = cluster.get(["pod", "sleeper"])["status"]["containerStatuses"].clone();
    let proxied =
        format!("      proxy: {{https: 'http://{}:{}'}}\n", world.host, world.proxy.port());
    let _ = up(&cluster, &file(&cluster, &world, &proxied), None);
    assert_ne!(
        cluster.unit(NODE, "containerd")["pid"],
        containerd,
        "it is told by its environment"
    );
    prints(&cluster, "proxied", "proxied.test/team/proxied:1");
    assert!(
        world.proxy.asked().contains(&"proxied.test:443".to_owned()),
        "{:?}",
        world.proxy.asked()
    );
    prints(&cluster, "again", "mirrored.test/team/again:1");
    assert!(world.proxy.asked().iter().all(|asked| asked == "proxied.test:443"));
    let still = cluster.get(["pod", "sleeper"])["status"]["containerStatuses"].clone();
    assert_eq!(still, running, "its container is the same");

    // A wrong password says what it is.
    let _ = up(&cluster, &plain, Some("wrong"));
    let image = "mirrored.test/team/refused:1";
    cluster.apply(&pod("refused", image, "[cat, /word]"));
    let message = wait_until("the pull is refused", SOON, || {
        let pod = cluster.get(["pod", "refused"]);
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default().to_owned();
        if message.contains(image) && message.contains("auth") {
            Ok(message)
        } else {
            Err(waiting.to_string())
        }
    });
    assert!(!message.contains("wrong"), "{message}");
    bivouac_e2e::say(&format!("a wrong password: {message}"));
    let _ = up(&cluster, &plain, Some(PASSWORD));
    // Another pod: the kubelet asks again for the first one only after a while.
    let _ = cluster.kubectl(["delete", "pod", "refused"]).success();
    prints(&cluster, "refused", image);

    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn what_is_missing_is_told(ground: &Ground) {
    let cluster = ground.cluster("registries");
    let file = |password: &str| {
        cluster.file(&format!(
            "  stack:\n    kubernetes:\n      registries:\n      - {{host: a.test, credentials: {{username: me, password: {password}}}}}\n"
        ))
    };
    let plan = |password: &str| {
        let run = ground.bivouac(["plan", "--file"]).args([file(password)]);
        run.without_env(VARIABLE).outcome().expect_code(2)
    };
    let _ = plan(&format!("{{environment: {VARIABLE}}}"))
        .expect_errors(&[VARIABLE, "sudo --preserve-env"]);
    // Beside the cluster file.
    let path = ground.path("word");
    let _ = plan("{file: word}").expect_errors(&[&path.display().to_string()]);
    let _ = ground.write("word", "\n");
    let _ = plan("{file: word}").expect_errors(&["is empty"]);
    assert!(!ground.state().exists(), "a plan changes nothing");
}

fn world(ground: &Ground, cluster: &Cluster<'_>) -> World {
    let routes = cluster.exec(NODE, ["ip", "-4", "route", "show", "default"]).success().stdout();
    let host = routes.split_whitespace().nth(2).unwrap_or_else(|| panic!("no way out: {routes}"));
    let busybox = cluster.exec(NODE, ["cat", "/usr/bin/busybox"]).success().output;
    let image =
        |name: &str| TestImage::new(&format!("{name}:1"), &busybox, &format!("word of {name}"));
    let authority = TestAuthority::new();
    let _ = ground.write("ca.pem", authority.certificate());
    let _ = ground.write("password", format!("{PASSWORD}\n"));
    let tls = || Some(authority.server(&[host, "proxied.test"]));
    let who = || (USER.to_owned(), PASSWORD.to_owned());

    let (mirrored, again, refused) = (image("mirrored"), image("again"), image("refused"));
    let mirrored =
        [("team/mirrored:1", &mirrored), ("team/again:1", &again), ("team/refused:1", &refused)];
    let (user, password) = who();
    let mirror = TestRegistry::start(host, Login::Basic(user, password), tls(), &mirrored);
    let (user, password) = who();
    let tokens = [("team/token:1", &image("token"))];
    let token = TestRegistry::start(host, Login::Token(user, password), tls(), &tokens);
    let plain = [("team/plain:1", &image("plain"))];
    let plain = TestRegistry::start(host, Login::Anybody, None, &plain);
    let proxied = [("team/proxied:1", &image("proxied"))];
    let proxied = TestRegistry::start(host, Login::Anybody, tls(), &proxied);
    let proxy = TestProxy::start(proxied.port());
    World { host: host.to_owned(), mirror, token, plain, proxy }
}

/// The cluster file with these registries.
fn file(cluster: &Cluster<'_>, world: &World, rest: &str) -> std::path::PathBuf {
    let World { host, mirror, token, plain, .. } = world;
    let (mirror, token, plain) = (mirror.port(), token.port(), plain.port());
    let bootstrap = cluster.setting().bootstrap;
    cluster.file(&format!(
        "  stack:
    kubernetes:
      bootstrap: {bootstrap}
      registries:
      - host: mirrored.test
        onlyMirrors: true
        mirrors:
        - url: https://{host}:{mirror}
          caFile: ca.pem
          credentials: {{username: {USER}, password: {{environment: {VARIABLE}}}}}
      - host: '{host}:{token}'
        caFile: ca.pem
        credentials: {{username: {USER}, password: {{file: password}}}}
      - host: '{host}:{plain}'
        insecure: true
      - host: proxied.test
        caFile: ca.pem
{rest}"
    ))
}

fn up(cluster: &Cluster<'_>, file: &std::path::Path, password: Option<&str>) -> serde_json::Value {
    let run = cluster.up(file).args(["--output", "json"]);
    let run = match password {
        Some(password) => run.env(VARIABLE, password),
        None => run.without_env(VARIABLE),
    };
    run.success().json()
}

fn pod(name: &str, image: &str, arguments: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 0\n  \
         containers: [{{name: main, image: '{image}', imagePullPolicy: Always, args: {arguments}}}]\n"
    )
}

/// A pod of this image runs, pulled now, and prints the word of its name.
fn prints(cluster: &Cluster<'_>, name: &str, image: &str) {
    cluster.apply(&pod(name, image, "[cat, /word]"));
    let _: Outcome = cluster.printed_by(name).expect_output(&[&format!("word of {name}")]);
}

fn is_nowhere_but_with_the_keys(ground: &Ground, cluster: &Cluster<'_>) {
    let folder = ground.state().join("clusters").join(cluster.name());
    for entry in std::fs::read_dir(&folder).expect("the cluster is recorded").flatten() {
        let content = std::fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let has = text.contains(PASSWORD) || text.contains(TRAVELS);
        assert_eq!(has, entry.file_name() == "keys.json", "{}", entry.path().display());
    }
    let mode = folder.join("keys.json").metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let [agent, containerd] = [&[NODE][..], &[NODE, "containerd"]]
        .map(|which| cluster.logs(which.iter().copied()).success().stdout());
    for text in [agent, containerd, cluster.status().to_string()] {
        assert!(!text.contains(PASSWORD) && !text.contains(TRAVELS), "{text}");
    }
    let found = ["find", "/etc/containerd/certs.d", "-name", "hosts.toml", "-perm", "600"];
    let files = cluster.exec(NODE, found).success().stdout();
    assert_eq!(files.lines().count(), 4, "{files}");
}
