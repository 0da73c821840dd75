//! The host restarts: clusters are started as the unit of systemd does it, and are what they were.

use std::collections::BTreeMap;
use std::path::Path;

use bivouac_e2e::{Cluster, Ground, HostSnapshot, Run, SOON, fetch, free_ports, wait_until};
use serde_json::Value;

use crate::life;

const CERTIFICATES: &str = "/etc/kubernetes/pki /var/lib/kubelet/pki";

pub(super) fn the_host_restarts(ground: &Ground) {
    let before = HostSnapshot::take(ground);
    let cluster = ground.cluster("reboot");
    let [port] = free_ports();
    let spec =
        |nodes: &str| format!("  nodes:\n{nodes}  ports: [{{hostPort: {port}, port: 30080}}]\n");
    let single = "  - {role: control-plane}\n";
    let file = cluster.file(&spec(single));
    let _ = cluster.up(&file).success();
    // On the control plane, where its volume is then.
    serve(&cluster);
    restarts(&cluster, &before, port);

    let file = cluster.file(&spec(&format!("{single}  - {{role: worker}}\n")));
    let _ = cluster.up(&file).success();
    restarts(&cluster, &before, port);

    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// A page that is written once, to a volume.
fn serve(cluster: &Cluster<'_>) {
    let image = life::image(cluster.ground(), "busybox");
    let script = "cd /data; [ -e index.html ] || cat /proc/sys/kernel/random/uuid > index.html; exec busybox httpd -f -p 8080";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Mi}}}}\n\
         ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: page}}\nspec:\n  \
         selector: {{matchLabels: {{app: page}}}}\n  template:\n    metadata: {{labels: {{app: page}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      \
         containers: [{{name: page, image: {image}, args: [-c, '{script}'], volumeMounts: [{{name: data, mountPath: /data}}]}}]\n      \
         volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: page}}\nspec:\n  type: LoadBalancer\n  \
         selector: {{app: page}}\n  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]\n"
    ));
    cluster.wait_for_rollout("deployment/page");
}

fn restarts(cluster: &Cluster<'_>, before: &HostSnapshot, port: u16) {
    let kubeconfig = || std::fs::read(cluster.ground().kubeconfig()).expect("`up` wrote it");
    let (then, credentials) = (State::of(cluster, port), kubeconfig());
    cluster.lose_power(before);
    let _ = fetch(&then.published).expect_err("the host was switched off");
    let start = starts(cluster);
    let _ = start.success().expect_output(&[cluster.name()]);
    let _ = cluster.ground().bivouac(["status", cluster.name()]).success();
    assert_eq!(State::of(cluster, port), then);
    assert_eq!(kubeconfig(), credentials);
    let _ = cluster.up_by_name().success().expect_output(&["nothing changed"]);
}

/// What systemd runs when the machine starts, with as little around it.
fn starts(cluster: &Cluster<'_>) -> Run {
    let unit = cluster.ground().bivouac(["service", "install", "--dry-run"]).success().stdout();
    is_understood(cluster.ground(), &unit);
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
    let line = line.unwrap_or_else(|| panic!("the unit starts nothing: {unit}"));
    let mut words = line.split_whitespace();
    let run = Run::new(words.next().unwrap_or_default()).args(words).without_environment();
    run.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .in_folder(Path::new("/"))
}

/// systemd has nothing to say of the unit, where it is installed to be asked. What it says of other units of the host does not count.
fn is_understood(ground: &Ground, unit: &str) {
    const NAME: &str = "bivouac.service";
    let file = ground.write(NAME, unit);
    let verify = Run::new("sh").args(["-c", "command -v systemd-analyze"]).outcome();
    if verify.code == 0 {
        let said = Run::new("systemd-analyze").args(["verify"]).args([&file]).success();
        let output = said.stdout();
        let is_silent = !output.lines().chain(said.stderr.lines()).any(|line| line.contains(NAME));
        assert!(is_silent, "{said}");
    }
}

/// What a restart must not change.
#[derive(Debug, PartialEq)]
struct State {
    /// Address and certificates of each node.
    nodes: BTreeMap<String, (String, String)>,
    /// What knows them in the cluster.
    objects: Vec<Value>,
    /// The Service's address outside.
    service: String,
    /// The port of the host that leads to it.
    published: String,
    page: String,
}

impl State {
    fn of(cluster: &Cluster<'_>, port: u16) -> Self {
        let (service, published) = (service(cluster), format!("127.0.0.1:{port}"));
        let nodes = cluster.get(["nodes"]);
        let nodes = nodes["items"].as_array().into_iter().flatten();
        let identity = |node: &Value| {
            ["/metadata/name", "/metadata/uid", "/status/addresses", "/status/nodeInfo/machineID"]
                .map(|path| node.pointer(path).cloned().unwrap_or_default())
        };
        let objects: Vec<Value> = nodes.flat_map(identity).collect();
        let status = cluster.status();
        let names = status["nodes"].as_object().into_iter().flat_map(|nodes| nodes.keys().cloned());
        let own = |node: String| {
            let sums = format!("find {CERTIFICATES} -type f -exec sha256sum {{}} + | sort");
            let sums = cluster.exec(&node, ["sh", "-c", &sums]).success().stdout();
            assert!(!sums.is_empty(), "{node} has no certificates");
            (node.clone(), (cluster.address(&node), sums))
        };
        let page = page(&published);
        let address = cluster.address("control-plane-0");
        for way in [format!("{service}:80"), format!("{address}:30080")] {
            assert_eq!(self::page(&way), page, "{way}");
        }
        Self { nodes: names.map(own).collect(), objects, service, published, page }
    }
}

/// The address outside of the Service.
fn service(cluster: &Cluster<'_>) -> String {
    wait_until("the Service has an address", SOON, || {
        let service = cluster.get(["service", "page"]);
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        ip.map(str::to_owned).ok_or_else(|| format!("{service:#}"))
    })
}

/// What it says, without the head.
fn page(address: &str) -> String {
    let answer = wait_until("the page is answered", SOON, || fetch(address));
    let (_, page) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
    assert!(!page.trim().is_empty(), "{answer}");
    page.to_owned()
}
