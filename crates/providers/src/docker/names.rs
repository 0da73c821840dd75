//! What things of ours are called on an engine, and the labels by which they are known. Pure.

use std::collections::HashMap;

use bivouac_spec::{ClusterName, NodeName};

/// The cluster of a container, a volume or a network.
pub(super) const CLUSTER: &str = "dev.bivouac.cluster";

/// The node of a container or a volume.
pub(super) const NODE: &str = "dev.bivouac.node";

/// What a container is made from, as JSON: a record. On a volume, what the container of [`CONTAINER`] was made to be since.
pub(super) const RECORD: &str = "dev.bivouac.record";

/// The container that the record of a volume is about.
pub(super) const CONTAINER: &str = "dev.bivouac.container";

/// The networks of a network that were asked for: engines add one of IPv4 where there is none.
pub(super) const NETWORKS: &str = "dev.bivouac.networks";

/// The key of the node image of a container, or of an image.
pub(super) const IMAGE: &str = "dev.bivouac.image";

/// The address of a container.
pub(super) const ADDRESS: &str = "dev.bivouac.address";

/// Which provider made it: the name that a cluster file gives it.
pub(super) const PROVIDER: &str = "dev.bivouac.provider";

/// The machine id of the node that lives on a volume.
pub(super) const MACHINE_ID: &str = "dev.bivouac.machine-id";

/// The repository of our images. Nobody answers there: they are never pulled.
const REPOSITORY: &str = "bivouac.dev/node";

/// How many characters of a digest tell one from another.
const DIGITS: usize = 12;

/// The network of a cluster.
pub(super) fn network(cluster: &ClusterName) -> String {
    format!("bivouac-{cluster}")
}

/// The container of a node, and its volume. The dot, which is in no name, keeps `a-b` and `c` apart from `a` and `b-c`.
pub(super) fn node(cluster: &ClusterName, node: &NodeName) -> String {
    format!("bivouac-{cluster}.{node}")
}

/// The volume with a record of a node, of which there can be several. A third part keeps it apart from those of nodes.
pub(super) fn record(cluster: &ClusterName, node: &NodeName, number: u32) -> String {
    format!("bivouac-{cluster}.{node}.record-{number}")
}

/// The image that is made from a node image and an agent.
pub(super) fn image(digest: &str, agent: &str) -> String {
    format!("{REPOSITORY}:{}-{}", short(digest), short(agent))
}

/// Whether an image of these names is ours alone. One without a name is somebody's who built it from ours: ours have one.
pub(super) fn are_ours(tags: &[String]) -> bool {
    let is_ours = |tag: &String| tag.strip_prefix(REPOSITORY).is_some_and(|it| it.starts_with(':'));
    !tags.is_empty() && tags.iter().all(is_ours)
}

fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..DIGITS).unwrap_or(hex)
}

/// The labels of a thing of this cluster.
pub(super) fn labels(provider: &str, cluster: &ClusterName) -> HashMap<String, String> {
    let labels = [(PROVIDER, provider), (CLUSTER, cluster.as_str())];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The labels of a thing of this node.
pub(super) fn node_labels(
    provider: &str,
    cluster: &ClusterName,
    node: &NodeName,
) -> HashMap<String, String> {
    let mut labels = labels(provider, cluster);
    labels.insert(NODE.to_owned(), node.to_string());
    labels
}

/// A filter of the engine's lists: only what has these labels.
pub(super) fn filter<'a>(
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> HashMap<String, Vec<String>> {
    let labels = labels.into_iter().map(|(name, value)| match value {
        "" => name.to_owned(),
        value => format!("{name}={value}"),
    });
    HashMap::from([("label".to_owned(), labels.collect())])
}

/// Whether labels say that a thing is this cluster's.
pub(super) fn is_of(
    labels: &HashMap<String, String>,
    provider: &str,
    cluster: &ClusterName,
) -> bool {
    let says = |name, value: &str| labels.get(name).is_some_and(|label| label == value);
    says(PROVIDER, provider) && says(CLUSTER, cluster.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?";

    proptest! {
        #[test]
        fn names_never_clash(one in NAME, other in NAME, node_name in NAME, peer in NAME) {
            let (a, b): (ClusterName, ClusterName) = (one.parse().unwrap(), other.parse().unwrap());
            let (n, m): (NodeName, NodeName) = (node_name.parse().unwrap(), peer.parse().unwrap());
            prop_assert_eq!(a == b, network(&a) == network(&b));
            prop_assert_eq!((&a, &n) == (&b, &m), node(&a, &n) == node(&b, &m));
        }
    }

    #[test]
    fn labels_say_whose_it_is() {
        let demo = "demo".parse().unwrap();
        let labels = node_labels("docker", &demo, &"worker-0".parse().unwrap());
        assert!(is_of(&labels, "docker", &demo));
        assert!(!is_of(&labels, "compose", &demo));
        assert!(!is_of(&labels, "docker", &"other".parse().unwrap()));
        assert!(!is_of(&HashMap::new(), "docker", &demo));
    }

    #[test]
    fn images_are_told_apart_by_both_digests() {
        let (one, other) = ("sha256:0123456789abcdef", "sha256:fedcba9876543210");
        assert_eq!(image(one, other), "bivouac.dev/node:0123456789ab-fedcba987654");
        assert_eq!(image("short", "x"), "bivouac.dev/node:short-x");
    }

    #[test]
    fn an_image_is_ours_by_its_names_alone() {
        let are_ours =
            |tags: &[&str]| are_ours(&tags.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(are_ours(&["bivouac.dev/node:1-2"]));
        for strange in [
            &[][..],
            &["<none>:<none>"],
            &["me/tools:1"],
            &["bivouac.dev/node-of-mine:1"],
            &["bivouac.dev/node:1-2", "me/tools:1"],
        ] {
            assert!(!are_ours(strange), "{strange:?}");
        }
    }
}
