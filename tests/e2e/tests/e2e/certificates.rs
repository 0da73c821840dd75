//! Certificates near their end are renewed while the cluster lives, and whoever has one goes on with the new one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bivouac_e2e::{
    About, Case, Cluster, Ground, Hello, HostSnapshot, SOON, case, fetch, wait_until,
};
use bivouac_pki::{Pki, Validity};
use serde_json::Value;

use crate::life;

pub(crate) const CASES: [Case; 1] =
    [case("certificates/are_renewed", About::Pairs, certificates_are_renewed)];

const NODE: &str = "control-plane-0";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Servers look every minute whether their certificate is another one; if they are told earlier, so much the better.
const SEEN: Duration = Duration::from_secs(240);
/// Who serves, the port, and whether that is on the loopback alone.
const SERVERS: [(&str, u16, bool); 6] = [
    ("apiserver", 6443, false),
    ("kubelet", 10250, false),
    ("etcd/server", 2379, false),
    ("etcd/peer", 2380, false),
    ("kube-controller-manager", 10257, true),
    ("kube-scheduler", 10259, true),
];
/// Who is a client of the API by a kubeconfig that is read once, and its file.
const CLIENTS: [(&str, &str); 2] =
    [("kube-controller-manager", "controller-manager"), ("kube-scheduler", "scheduler")];

fn certificates_are_renewed(ground: &Ground) {
    let cluster = ground.cluster("renewal");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let app = serve(ground, &cluster);
    let first = pki(&cluster);
    serve_and_use(&cluster, &first);

    let mut old = first.clone();
    age(&cluster, &mut old);
    let problems = cluster.status()["problems"].clone();
    assert_eq!(problems[0]["code"], "status.certificates_end", "{problems:#}");
    let help = problems[0]["help"].as_str().unwrap_or_default();
    assert!(help.contains(&format!("bivouac up {}", cluster.name())), "{problems:#}");

    let processes = || CLIENTS.map(|(program, _)| process(&cluster, program));
    let earlier = processes();
    let _ = cluster.up_by_name().success().expect_errors(&["are renewed"]);
    let renewed = pki(&cluster);
    for (name, leaf) in &renewed.leaves {
        let is_new = |pki: &Pki| pki.leaves[name].issued.certificate != leaf.issued.certificate;
        assert!(is_new(&first) && is_new(&old), "{name} is as it was");
    }
    let problems = cluster.status()["problems"].clone();
    assert!(problems.is_null(), "{problems:#}");
    for (earlier, now) in earlier.iter().zip(processes()) {
        assert_ne!(*earlier, now, "nobody reads a kubeconfig twice");
    }
    serve_and_use(&cluster, &renewed);

    let kubeconfig = std::fs::read_to_string(ground.kubeconfig());
    let kubeconfig = kubeconfig.unwrap_or_else(|error| panic!("no kubeconfig: {error}"));
    assert!(
        kubeconfig.contains(&encoded(&renewed, "admin")),
        "the user has the earlier certificate"
    );
    // The scheduler, the controllers and the kubelet are believed by the API server.
    let image = life::image(ground, "busybox");
    let made = ["create", "deployment", "later", "--image", &image, "--", "sleep", "1000000"];
    let _ = cluster.kubectl(made).success();
    cluster.wait_for_rollout("deployment/later");
    assert_eq!(serving(&cluster), app, "the pod was left alone");
    answers(&cluster);
    let _ = cluster.kubectl(["exec", "deployment/later", "--", "true"]).success();
    assert_eq!(cluster.up_by_name().args(["--output", "json"]).success().json()["changed"], false);

    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// A pod that answers, and what identifies its container.
fn serve(ground: &Ground, cluster: &Cluster<'_>) -> Value {
    let image = life::image(ground, "web");
    let _ = life::run_once(cluster, "web", NODE, &image, &[]).success();
    cluster.wait("pod/web", "condition=Ready");
    let exposed = ["expose", "pod/web", "--type=LoadBalancer", "--port=80", "--target-port=8080"];
    let _ = cluster.kubectl(exposed).success();
    answers(cluster);
    serving(cluster)
}

fn serving(cluster: &Cluster<'_>) -> Value {
    cluster.get(["pod", "web"])["status"]["containerStatuses"][0]["containerID"].clone()
}

fn answers(cluster: &Cluster<'_>) {
    let _ = wait_until("the app answers", SOON, || {
        let service = cluster.get(["service", "web"]);
        let address = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        fetch(&format!("{}:80", address.ok_or_else(|| format!("{service:#}"))?))
    });
}

/// The keys of the cluster, where bivouac has them.
fn keys(cluster: &Cluster<'_>) -> std::path::PathBuf {
    cluster.ground().state().join("clusters").join(cluster.name()).join("keys.json")
}

fn read(cluster: &Cluster<'_>) -> Value {
    let text = std::fs::read(keys(cluster)).unwrap_or_else(|error| panic!("no keys: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("the keys are no JSON: {error}"))
}

fn pki(cluster: &Cluster<'_>) -> Pki {
    serde_json::from_value(read(cluster)).unwrap_or_else(|error| panic!("no keys: {error}"))
}

/// From now on, all certificates are of almost a year ago.
fn age(cluster: &Cluster<'_>, pki: &mut Pki) {
    let validity = Validity { leaf: 20 * DAY, ..Validity::starting(std::time::SystemTime::now()) };
    let mut kept = read(cluster);
    for (name, leaf) in &mut pki.leaves {
        let issued = pki.authorities.issue(&leaf.request, &validity);
        leaf.issued = issued.unwrap_or_else(|error| panic!("{name} cannot be issued: {error}"));
        kept["leaves"][name]["issued"] =
            serde_json::to_value(&leaf.issued).unwrap_or_else(|error| panic!("{error}"));
    }
    std::fs::write(keys(cluster), kept.to_string()).unwrap_or_else(|error| panic!("{error}"));
}

/// Everybody serves with these certificates, and is a client with these.
fn serve_and_use(cluster: &Cluster<'_>, pki: &Pki) {
    let address = cluster.address(NODE);
    for (server, port, is_local) in SERVERS {
        let host = if is_local { "127.0.0.1" } else { &address };
        let name = format!("{NODE}/{server}");
        let wanted = der(&pki.leaves[&name].issued.certificate);
        wait_until(&format!("{server} serves with its certificate"), SEEN, || {
            let shown = shown(cluster, &format!("{host}:{port}"))?;
            if shown == wanted { Ok(()) } else { Err("it is another one".to_owned()) }
        });
    }
    for (program, name) in CLIENTS {
        let file = format!("/etc/kubernetes/{name}.conf");
        let process = process(cluster, program);
        // In a pod, it is a file of the pod's.
        let has = cluster.exec(NODE, ["cat", &format!("/proc/{process}/root{file}")]).success();
        let wanted = encoded(pki, &format!("{NODE}/{name}"));
        assert!(has.stdout().contains(&wanted), "{program} has another certificate");
    }
}

/// The only process of a program.
fn process(cluster: &Cluster<'_>, program: &str) -> u64 {
    wait_until(&format!("{program} runs"), SOON, || {
        let found = cluster.exec(NODE, ["pidof", program]).outcome().stdout();
        found.trim().parse().map_err(|_| format!("`{found}`"))
    })
}

/// The certificate (DER) that a server shows to whoever asks in the node.
fn shown(cluster: &Cluster<'_>, address: &str) -> Result<Vec<u8>, String> {
    let mut hello = Hello::new();
    // It goes on listening when it has said all.
    let through = ["socat", "-t10", "-", &format!("TCP:{address}")];
    let answer = cluster.exec(NODE, through).input(hello.words()).outcome();
    hello.certificate(&answer.output)
}

fn der(certificate: &str) -> Vec<u8> {
    let lines = certificate.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.collect();
    STANDARD.decode(text).unwrap_or_else(|error| panic!("{certificate}: {error}"))
}

/// A certificate as kubeconfigs have it.
fn encoded(pki: &Pki, name: &str) -> String {
    STANDARD.encode(&pki.leaves[name].issued.certificate)
}
