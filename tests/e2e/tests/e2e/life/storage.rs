//! A volume outlives the pod that wrote it, and whatever else comes over its cluster.

use bivouac_e2e::Cluster;

/// A word is in a volume, and the pod that wrote it is gone.
pub(crate) fn is_written(cluster: &Cluster<'_>) {
    let image = super::image(cluster.ground(), "busybox");
    cluster.apply(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
",
    );
    cluster.apply(&pod("writer", &image, "echo survived > /data/word"));
    let _ = cluster.printed_by("writer");
    let _ = cluster.kubectl(["delete", "pod", "writer"]).success();
}

/// A new pod finds the word.
pub(crate) fn is_kept(cluster: &Cluster<'_>) {
    let image = super::image(cluster.ground(), "busybox");
    cluster.apply(&pod("reader", &image, "cat /data/word"));
    assert_eq!(cluster.printed_by("reader").stdout(), "survived\n");
}

fn pod(name: &str, image: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: {image}
    args: [-c, {script}]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
"
    )
}
