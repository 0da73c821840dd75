//! The host after `down` is what it was before `up`.

use bivouac_e2e::{About, Case, Ground, HostSnapshot, case};

pub(crate) const CASES: [Case; 1] =
    [case("nothing_left/the_host_is_as_it_was", About::Grounds, the_host_is_as_it_was)];

fn the_host_is_as_it_was(ground: &Ground) {
    let cluster = ground.cluster("nothing-left");
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");

    let before = HostSnapshot::take(ground);
    let _ = cluster.up(&file).success();
    // Things that reach further than a node's own start: mounts of pods, ports, volumes.
    cluster.apply(&format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: busy}}
spec:
  containers:
  - name: main
    image: {}
    args: [-c, echo data > /data/file; sleep 1000000]
    ports: [{{containerPort: 80, hostPort: 18080}}]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
",
        crate::life::image(ground, "busybox")
    ));
    cluster.wait("pod/busy", "condition=Ready");
    let during = HostSnapshot::take(ground).differences(&before);
    assert!(!during.is_empty(), "a cluster shows on the host");
    let _ = cluster.down().success();

    before.expect_nothing_left(ground);
}
