//! An engine that is reached over TLS, as one on another machine is: by a context, and by the environment.

use std::path::{Path, PathBuf};

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, Run, TestAuthority, case};

use crate::load::Loaded;

pub(crate) const CASES: [Case; 3] = [
    case("remote/certificates_that_do_not_fit", About::OwnEngine, certificates_that_do_not_fit),
    case("remote/a_cluster_by_a_context", About::OwnEngine, a_cluster_by_a_context),
    case("remote/a_cluster_by_the_environment", About::OwnEngine, a_cluster_by_the_environment),
];

const CONTEXT: &str = "e2e-lab";
const NODES: [&str; 2] = ["control-plane-0", "worker-0"];
const ALONE: &str = NODES[0];

fn certificates_that_do_not_fit(ground: &Ground) {
    let cluster = ground.cluster("untrusted");
    let file = cluster.file("");
    let (host, own) = ground.engine().over_tls();
    let refused = |certificates: Option<&Path>, code: i32, words: &[&str]| {
        let mut way = vec![("DOCKER_HOST", host.clone().into())];
        if let Some(folder) = certificates {
            way.push(("DOCKER_TLS_VERIFY", "1".into()));
            way.push(("DOCKER_CERT_PATH", folder.as_os_str().to_owned()));
        }
        ground.find_engine_by(way);
        for verb in ["up", "plan"] {
            let refused = ground.bivouac([verb, "--file"]).args([&file]).outcome();
            let _ = refused.expect_code(code).expect_errors(&[words, &["hint:"]].concat());
        }
    };
    refused(None, 3, &[&host, "DOCKER_TLS_VERIFY"]);

    // Somebody else's authority.
    let strange = ground.path("strange");
    let stranger = TestAuthority::new();
    stranger.write_identity(&strange, &["client"]);
    let authority = strange.join("ca.pem").display().to_string();
    refused(Some(&strange), 3, &[&host, "not trusted", &authority]);

    // The engine is trusted, and does not trust us. A connection that it closes may break before its reason is read.
    std::fs::copy(own.join("ca.pem"), strange.join("ca.pem")).expect("both are files");
    refused(Some(&strange), 3, &[&host]);

    std::fs::remove_file(strange.join("key.pem")).expect("it was just made");
    let key = strange.join("key.pem").display().to_string();
    refused(Some(&strange), 2, &[&key]);
    assert!(!ground.state().exists(), "a refused `up` made a state folder");
    ground.find_engine_by(way(&host, &own));
}

/// The environment variables that lead to an engine with these certificates.
fn way(host: &str, certificates: &Path) -> [(&'static str, PathBuf); 3] {
    let certificates = certificates.to_owned();
    [
        ("DOCKER_HOST", host.into()),
        ("DOCKER_TLS_VERIFY", "1".into()),
        ("DOCKER_CERT_PATH", certificates),
    ]
}

/// Makes a context, by the `docker` command itself; gives its folder of settings.
fn context(ground: &Ground) -> PathBuf {
    let (host, certificates) = ground.engine().over_tls();
    let settings = ground.path("docker-settings");
    let file = |name| certificates.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let endpoint = format!("host={host},ca={ca},cert={cert},key={key}");
    let create = Run::new("docker").env("DOCKER_CONFIG", &settings).without_env("DOCKER_HOST");
    let create = create.without_env("DOCKER_CONTEXT");
    let _ = create.args(["context", "create", CONTEXT, "--docker", &endpoint]).success();
    settings
}

fn a_cluster_by_a_context(ground: &Ground) {
    let settings = context(ground);
    ground.find_engine_by([("DOCKER_CONFIG", settings)]);
    let cluster = ground.cluster("remote");
    let before = HostSnapshot::take(ground);
    let file = cluster.file(&format!(
        "  provider: {{docker: {{context: {CONTEXT}}}}}\n  nodes:\n  - {{role: control-plane}}\n  - {{role: worker}}\n"
    ));
    let _ = cluster.up(&file).success();
    is_reached_by_a_port(&cluster);
    images_are_sent(&cluster);

    let said = cluster.exec(ALONE, ["sh", "-c", "cat; exit 7"]).input("over TLS").outcome();
    assert_eq!(said.expect_code(7).stdout(), "over TLS");
    let missing = cluster.exec("worker-9", ["true"]).outcome().expect_code(2);
    let _ = missing.expect_errors(&["worker-9", "hint:"]);
    let _ = cluster.logs([ALONE, "kubelet", "--tail", "5"]).success();

    let _ = ground.bivouac(["stop", cluster.name()]).success();
    let _ = ground.usable_by("start", [cluster.name()]).success();
    is_reached_by_a_port(&cluster);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn is_reached_by_a_port(cluster: &Cluster<'_>) {
    let server = ["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"];
    let server = cluster.kubectl(server).success().stdout();
    assert!(server.starts_with("https://127.0.0.1:"), "{server}");
    let nodes = cluster.get(["nodes"]);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(NODES.len()), "{nodes:#}");
}

/// The engine's machine does not see the files of this one, so every node gets the images themselves.
fn images_are_sent(cluster: &Cluster<'_>) {
    let ground = cluster.ground();
    let shared = ["grep", " /var/lib/bivouac-images ", "/proc/self/mountinfo"];
    assert_ne!(cluster.exec(ALONE, shared).outcome().code, 0, "images are shared");
    Loaded::new(cluster, "archive").runs(cluster, "archive");
    let named = Loaded::by(cluster, "named", |image, name| {
        let engine = ground.engine();
        let _ = engine.docker(["load"]).input(image.docker_archive()).success();
        let load = |name| {
            let load = ground.bivouac(["load", "--cluster", cluster.name(), name]);
            load.env("DOCKER_CONTEXT", CONTEXT).outcome()
        };
        let loaded = load(name);
        let absent = load("bivouac.test/e2e/absent:1");
        let _ = engine.docker(["image", "rm", name]).success();
        let _ = loaded.expect_code(0).expect_output(&[name, "2 nodes"]);
        let _ = absent.expect_code(1).expect_errors(&["absent:1", "tcp://", "hint:"]);
    });
    named.runs(cluster, "named");
}

/// It is the same engine, and so the same cluster, whatever leads there.
fn a_cluster_by_the_environment(ground: &Ground) {
    let (host, certificates) = ground.engine().over_tls();
    let settings = context(ground);
    ground.find_engine_by([("DOCKER_CONFIG", settings), ("DOCKER_CONTEXT", CONTEXT.into())]);
    let cluster = ground.cluster("remote");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let address = cluster.address(ALONE);

    ground.find_engine_by(way(&host, &certificates));
    let _ = cluster.up_by_name().success().expect_output(&["nothing changed"]);
    assert_eq!(cluster.address(ALONE), address);
    let _ = cluster.kubectl(["get", "--raw", "/readyz"]).success();
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}
