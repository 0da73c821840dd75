//! The cluster of `examples/k8s-test-cluster`, for whoever knows the original.

use std::path::Path;

use bivouac_e2e::{About, Case, Ground, Provider, case, fetch};

pub(crate) const CASES: [Case; 1] =
    [case("test_cluster/comes_up", About::One(Provider::Docker), comes_up)];

const EXAMPLE: &str = "../../examples/k8s-test-cluster/cluster.yaml";
const NODE_TYPE: &str = "eu.rainbow-h2020.node-type";

fn comes_up(ground: &Ground) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    // Of another name: the example's own may be there.
    let cluster = ground.cluster("test-cluster");
    let _ = ground.up([cluster.name()]).args(["--file"]).args([&file]).success();

    let nodes = cluster.get(["nodes"]);
    let of = |node: &serde_json::Value| {
        let labels = &node["metadata"]["labels"];
        let texts =
            [&node["metadata"]["name"], &labels[NODE_TYPE], &labels["topology.kubernetes.io/zone"]];
        texts.map(|text| text.as_str().unwrap_or_default().to_owned())
    };
    let seen: Vec<_> = nodes["items"].as_array().into_iter().flatten().map(of).collect();
    assert_eq!(
        seen,
        [
            ["control-plane-0", "control-plane", "bronx"].map(str::to_owned),
            ["worker-0", "worker", "brooklyn"].map(str::to_owned)
        ],
        "{nodes:#}"
    );
    let classes = cluster.get(["storageclasses"]);
    assert_eq!(classes["items"].as_array().map(Vec::len), Some(1), "{classes:#}");
    let annotations = &classes["items"][0]["metadata"]["annotations"];
    assert_eq!(annotations["storageclass.kubernetes.io/is-default-class"], "true", "{classes:#}");

    let kubeconfig = std::fs::read_to_string(ground.kubeconfig()).expect("`up` wrote it");
    assert!(kubeconfig.contains("https://127.0.0.1:36443"), "{kubeconfig}");
    // It speaks TLS there, and says so to whoever does not.
    let refused = fetch("localhost:36443").expect_err("the API wants TLS");
    assert!(refused.contains("HTTPS"), "{refused}");
    let server = "--server=https://localhost:36443";
    let _ = cluster.kubectl([server, "get", "--raw", "/readyz"]).success().expect_output(&["ok"]);
    let _ = cluster.down().success();
}
