//! The page that goes with an export.

use std::net::SocketAddr;

use bivouac_spec::{Cluster, NodeName};

/// What to do with the folder.
pub fn render(cluster: &Cluster, control_plane: &NodeName, at: SocketAddr) -> String {
    let name = cluster.name();
    format!(
        "\
# Cluster {name}

Made by `bivouac export compose`. It needs Docker 20.10 or newer with Docker Compose 2.15 or newer, no bivouac and no registry.

```sh
docker compose up --detach --wait                # make it, and wait until it is usable
kubectl --kubeconfig kubeconfig get nodes        # the API is at https://{at}
docker compose exec {control_plane} bivouac agent status
docker compose down --volumes                    # remove it with all its data
```

The first `up` builds the node image from `image/`, which takes a minute or less. All nodes start at the same moment and wait for each
other by themselves. A node is healthy when it is usable, and `{control_plane}` when the whole cluster is: services of your own, in
`docker-compose.override.yaml`, can wait for that:

```yaml
services:
  app:
    depends_on:
      {control_plane}: {{condition: service_healthy}}
```

`keys.json`, `kubeconfig` and `nodes/*/node.json` hold the keys of the cluster: only their owner may read them, and whoever has them
is the cluster's administrator. Exporting into this folder again keeps them.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_cluster_and_its_api() {
        let cluster = Cluster::named("demo".parse().unwrap());
        let node = "control-plane-0".parse().unwrap();
        let text = render(&cluster, &node, "127.0.0.1:6443".parse().unwrap());
        assert!(text.starts_with("# Cluster demo\n"));
        assert!(text.contains("https://127.0.0.1:6443"));
        assert!(text.contains("      control-plane-0: {condition: service_healthy}\n"));
    }
}
