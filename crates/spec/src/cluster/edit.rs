//! Changes of a cluster that are asked for without its file.

use super::{Cluster, Kubernetes, NodeGroup, NodeSpec, Role, Stack};
use crate::name::nearest;
use crate::{NodeName, Problem};

impl Cluster {
    /// So many nodes more in a group: that of this prefix, or else the first of this role, which is made when there is none.
    ///
    /// # Errors
    /// When there is no group of the prefix.
    pub fn add_nodes(
        &mut self,
        role: Role,
        prefix: Option<&str>,
        count: u32,
    ) -> Result<(), Problem> {
        let groups = &mut self.spec.nodes;
        let position = match prefix {
            Some(prefix) => groups.iter().position(|group| group.prefix() == prefix),
            None => groups.iter().position(|group| group.role == role),
        };
        match (position, prefix) {
            (Some(position), _) => {
                let group = &mut groups[position];
                group.count = group.count.saturating_add(count);
                Ok(())
            }
            (None, None) => {
                groups.push(NodeGroup::new(role, count));
                Ok(())
            }
            (None, Some(prefix)) => {
                let message = format!("cluster `{}` has no group `{prefix}`", self.name());
                let known: Vec<&str> = self.spec.nodes.iter().map(NodeGroup::prefix).collect();
                let help = nearest(prefix, known.iter().copied()).map_or_else(
                    || format!("Name one of: {}.", known.join(", ")),
                    |near| format!("Name `{near}` if you mean that."),
                );
                Err(Problem::usage("spec.unknown_group", message).help(help))
            }
        }
    }

    /// The cluster without this node. All other nodes keep their names.
    ///
    /// # Errors
    /// When it asks for no such node, or nobody can ask for it.
    pub fn remove_node(&mut self, node: &NodeName) -> Result<(), Problem> {
        let nodes = self.nodes();
        let Some(found) = nodes.iter().find(|one| one.name == *node) else {
            let message = format!("cluster `{}` has no node `{node}`", self.name());
            let names: Vec<&str> = nodes.iter().map(|one| one.name.as_str()).collect();
            let help = nearest(node.as_str(), names.iter().copied()).map_or_else(
                || format!("Name one of: {}.", names.join(", ")),
                |near| format!("Name `{near}` if you mean that."),
            );
            return Err(Problem::usage("spec.unknown_node", message).help(help));
        };
        if found.role == Role::Balancer {
            let message =
                format!("node `{node}` is there as long as there are several control planes");
            let help = "Remove control planes until one is left, and it goes with them.";
            return Err(Problem::usage("spec.balancer", message).help(help));
        }
        // Groups of one name go on counting: it is in the one without which all others stay what they are.
        let members = |nodes: Vec<NodeSpec>| -> Vec<NodeSpec> {
            nodes
                .into_iter()
                .filter(|one| one.role != Role::Balancer && one.name != *node)
                .collect()
        };
        let others = members(nodes);
        for index in 0..self.spec.nodes.len() {
            let mut without = self.clone();
            without.spec.nodes[index].leave_out(node);
            let left = without.nodes();
            if left.iter().all(|one| one.name != *node) && members(left) == others {
                *self = without;
                return Ok(());
            }
        }
        let message = format!("node `{node}` cannot be taken out of its group");
        Err(Problem::usage("spec.unremovable_node", message)
            .help("Change `spec.nodes` in the cluster file, and run `bivouac up`."))
    }
}

impl Cluster {
    /// Another version of what runs on it; the newest when none is named.
    ///
    /// # Errors
    /// When a version is named and the stack has none to choose from.
    pub fn set_version(&mut self, version: Option<&str>) -> Result<(), Problem> {
        match (&mut self.spec.stack, version) {
            (Stack::Kubernetes(kubernetes), version) => {
                kubernetes.version = version.unwrap_or(Kubernetes::VERSION).to_owned();
                Ok(())
            }
            (Stack::Incus(_), None) => Ok(()),
            (Stack::Incus(_), Some(version)) => {
                let message = format!(
                    "cluster `{}` runs Incus, which has no `{version}` to choose",
                    self.name()
                );
                let help =
                    "Leave the version out: its nodes are made anew from the current node image.";
                Err(Problem::usage("spec.no_version", message).help(help))
            }
        }
    }
}

impl NodeGroup {
    /// One node less, and not this one's number again.
    fn leave_out(&mut self, node: &NodeName) {
        let number = node.as_str().rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
        self.count = self.count.saturating_sub(1);
        self.skip.extend(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cluster: &Cluster) -> Vec<String> {
        cluster.nodes().into_iter().map(|node| node.name.to_string()).collect()
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        let zones = vec!["a".to_owned(), "b".to_owned()];
        cluster.spec.nodes.push(NodeGroup { zones, ..NodeGroup::new(Role::Worker, 2) });
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, 2));
        cluster
    }

    #[test]
    fn nodes_come_with_the_next_numbers() {
        let mut cluster = cluster();
        cluster.add_nodes(Role::ControlPlane, None, 2).unwrap();
        cluster.remove_node(&"worker-0".parse().unwrap()).unwrap();
        let expected = [
            "control-plane-0",
            "control-plane-1",
            "control-plane-2",
            "worker-1",
            "worker-2",
            "worker-3",
            "balancer",
        ];
        assert_eq!(names(&cluster), expected);
        cluster.add_nodes(Role::Worker, Some("worker"), 1).unwrap();
        assert_eq!(names(&cluster).len(), 8);
        let problem = cluster.add_nodes(Role::Worker, Some("wrker"), 1).unwrap_err();
        assert_eq!(problem.help.as_deref(), Some("Name `worker` if you mean that."));
    }

    #[test]
    fn every_node_can_be_taken_out_and_the_others_stay() {
        for node in cluster().nodes() {
            let mut cluster = cluster();
            let before = cluster.nodes();
            cluster.remove_node(&node.name).unwrap_or_else(|problem| panic!("{problem}"));
            let expected: Vec<_> = before.into_iter().filter(|one| one.name != node.name).collect();
            assert_eq!(cluster.nodes(), expected);
        }
    }

    #[test]
    fn the_balancer_and_strangers_cannot_be_removed() {
        let mut cluster = cluster();
        cluster.spec.nodes[0].count = 3;
        for name in ["balancer", "worker-9"] {
            cluster.remove_node(&name.parse().unwrap()).unwrap_err();
        }
        cluster.remove_node(&"control-plane-1".parse().unwrap()).unwrap();
        assert!(names(&cluster).contains(&"balancer".to_owned()));
    }
}
