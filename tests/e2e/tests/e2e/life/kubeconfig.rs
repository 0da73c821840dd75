//! The user's kubeconfig file keeps what is the user's.

use bivouac_e2e::{Cluster, Ground};

/// In a style of its own, with things that bivouac does not know.
const OWN: &str = r#"# mine
apiVersion: v1
kind: Config
preferences: {}
current-context:   work
clusters:
  - name: "work"   # the office
    cluster: {server: 'https://work.example.org:6443', insecure-skip-tls-verify: true}
contexts:
  - context: {cluster: work, user: me, namespace: team}
    name: work
users:
  - name: me
    user:
      token: not-a-secret
"#;

/// Lines that are nobody's but the user's.
fn own_lines() -> impl Iterator<Item = &'static str> {
    OWN.lines().filter(|line| !line.starts_with("current-context"))
}

pub(super) fn write_own(ground: &Ground) {
    std::fs::write(ground.kubeconfig(), OWN).expect("the folder of the test can be written");
}

pub(super) fn leads_to_the_cluster(cluster: &Cluster<'_>) {
    let context = format!("bivouac-{}", cluster.name());
    let path = cluster.ground().kubeconfig();
    let merged = std::fs::read_to_string(&path).expect("the user's file is still there");
    for line in own_lines() {
        assert!(merged.lines().any(|found| found == line), "`{line}` is gone from:\n{merged}");
    }
    assert!(merged.contains(&format!("current-context: {context}")), "{merged}");

    let file = format!("--kubeconfig={}", path.display());
    let nodes = cluster.kubectl([&file, "get", "nodes", "-o", "name"]).success();
    assert_eq!(nodes.stdout().lines().count(), 3, "{nodes}");

    let printed = cluster.ground().bivouac(["kubeconfig", cluster.name()]).success();
    let alone = cluster.ground().write("alone", &printed.output);
    let file = format!("--kubeconfig={}", alone.display());
    let asked = cluster.kubectl([&file, "config", "current-context"]).success();
    assert_eq!(asked.stdout().trim(), context);
    let _ = cluster.kubectl([&file, "auth", "can-i", "*", "*"]).success();
}

pub(super) fn is_as_it_was(ground: &Ground) {
    let now = std::fs::read_to_string(ground.kubeconfig()).expect("the user's file is still there");
    let [now, own] = [now.as_str(), OWN]
        .map(|text| text.replace("current-context:   work", "current-context: work"));
    assert_eq!(now, own);
}
