//! How work leaves a node that is removed.

use bivouac_e2e::{About, Case, Ground, case};

use crate::life;

pub(crate) const CASES: [Case; 1] =
    [case("drain/takes_as_long_as_is_said", About::Grounds, takes_as_long_as_is_said)];

/// A budget that allows nothing keeps a pod on its node: for as long as is said, or not at all.
fn takes_as_long_as_is_said(ground: &Ground) {
    let cluster = ground.cluster("drain");
    let spec = "  nodes:\n  - {role: control-plane}\n  - {role: worker}\n";
    let _ = cluster.up(&cluster.file(spec)).success();
    let image = life::image(ground, "web");
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 1\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec: {{containers: [{{name: web, image: {image}, imagePullPolicy: IfNotPresent}}]}}\n"
    ));
    cluster.wait_for_rollout("deployment/web");
    cluster.apply(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: all}\n\
         spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n",
    );
    let remove = |option: &str| {
        let remove = ["node", "remove", "worker-0", "--cluster", cluster.name()];
        ground.bivouac(remove).args(option.split(' '))
    };
    let _ = remove("--drain-timeout 0s").outcome().expect_code(2).expect_errors(&["--no-drain"]);
    let pods = cluster.get(["pods", "--selector", "app=web"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod has a name");
    let kept = remove("--drain-timeout 3s").outcome().expect_code(1);
    let budget = "PodDisruptionBudget default/all";
    let said = ["drain node worker-0", pod, "timeout reached: 3s", budget];
    let _ = kept.expect_errors(&said);
    let _ = cluster.kubectl(["get", "node", "worker-0"]).success();

    let _ = remove("--no-drain").success();
    let nodes = cluster.get(["nodes"]);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(1), "{nodes:#}");
    let _ = cluster.down().success();
}
